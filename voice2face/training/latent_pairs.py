"""Batches of stage 2: latents of faces, each with a voice that may belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from voice2face.data.tables import UNKNOWN, FaceTable
from voice2face.models.face_entries import Entries, rows_of
from voice2face.models.face_retriever import FaceRetriever
from voice2face.training.latents import EncodedTables
from voice2face.training.pairing import Pairing

Stage = Literal["bottom", "upper"]  # of Fine-portraitist

BOTTOM_NOISE = 0.3
RETRIEVED_AT_ONCE = 512


class Batch(NamedTuple):
    """One row a pair.

    Attributes:
        clean: what the denoiser is to draw, ``(batch, C, H, W)``.
        quality: picture quality, ``(batch, 6)``.
        speech: Z^s, ``(batch, dim)``.
        attributes: sex and age of the face, ``(batch, 2)``, see ``heard_attributes``.
        beside: what the denoiser sees beside the noisy latent, ``(batch, beside_channels, H, W)``.
    """

    clean: Tensor
    quality: Tensor
    speech: Tensor
    attributes: Tensor
    beside: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        beside = None if self.beside is None else self.beside.to(device)
        clean, quality, speech, attributes = (part.to(device) for part in self[:4])
        return Batch(clean, quality, speech, attributes, beside)


class LatentPairs(Protocol):
    """Draws batches."""

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """A batch of ``count`` pairs."""
        ...


class Rows(NamedTuple):
    """Which faces and voices, and which view or variant of each, ``(count,)``."""

    faces: np.ndarray
    views: np.ndarray
    voices: np.ndarray
    variants: np.ndarray


def draw_rows(
    tables: EncodedTables, pairing: Pairing, rng: np.random.Generator, count: int
) -> Rows:
    """Draw pairs, each face in one of its views, each voice in one of its variants."""
    faces, voices = pairing.sample(rng, count)
    views = rng.integers(tables.latents.shape[1], size=count)
    return Rows(faces, views, voices, rng.integers(tables.embeddings.shape[1], size=count))


def labelled_attributes(faces: FaceTable, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Sex and age of faces by their labels, ``(count, 2)``, NaN where a label is unknown.

    A label names a decade; the age within it is drawn.
    """
    sex, age = faces.sex[rows], faces.age[rows]
    told = np.stack([2.0 * sex - 1.0, age + rng.random(len(rows))], 1)
    told[(sex == UNKNOWN) | (age == UNKNOWN)] = np.nan
    return torch.from_numpy(told).float()


@dataclass(frozen=True)
class FacePairs:
    """Whole faces, for SCLDM.

    Attributes:
        faces: the faces' labels.
        tables: latents and embeddings.
        pairing: which of them go together.
    """

    faces: FaceTable
    tables: EncodedTables
    pairing: Pairing

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """See ``LatentPairs``."""
        rows = draw_rows(self.tables, self.pairing, rng, count)
        return Batch(
            self.tables.latents[rows.faces, rows.views],
            self.tables.quality[rows.faces, rows.views],
            self.tables.embeddings[rows.voices, rows.variants],
            labelled_attributes(self.faces, rows.faces, rng),
        )


@dataclass(frozen=True)
class PortraitistPairs:
    """Bottom or whole faces with what Fine-portraitist's denoisers see beside them.

    The upper denoiser learns from bottom faces of photographs and draws above generated ones, so
    the former are disturbed a little while training.

    Attributes:
        stage: speech-to-bottom or bottom-to-upper.
        faces: the faces' labels.
        tables: latents and embeddings.
        bottoms: latents of the bottom faces, of the latents' shape.
        pairing: which of them go together.
        entries: faces that may be retrieved.
        nearest: row of the entry nearest to each embedding, its own left out,
            ``(voices, variants)``.
    """

    stage: Stage
    faces: FaceTable
    tables: EncodedTables
    bottoms: Tensor
    pairing: Pairing
    entries: Entries
    nearest: Tensor

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """See ``LatentPairs``."""
        rows = draw_rows(self.tables, self.pairing, rng, count)
        bottoms = self.bottoms[rows.faces, rows.views]
        found = self.nearest[rows.voices, rows.variants]
        if self.stage == "bottom":
            clean, beside = bottoms, rows_of(self.entries.bottoms, found).float()
        else:
            clean = self.tables.latents[rows.faces, rows.views]
            noise = rng.standard_normal(bottoms.shape, dtype=np.float32)
            disturbed = bottoms + BOTTOM_NOISE * torch.from_numpy(noise)
            beside = torch.cat([disturbed, rows_of(self.entries.faces, found).float()], 1)
        return Batch(
            clean,
            self.tables.quality[rows.faces, rows.views],
            self.tables.embeddings[rows.voices, rows.variants],
            labelled_attributes(self.faces, rows.faces, rng),
            beside,
        )


def nearest_entries(
    retriever: FaceRetriever, embeddings: Tensor, voice_ids: list[str], speakers: list[str]
) -> Tensor:
    """Row of the nearest entry for each embedding, without the entries of the same speaker.

    Args:
        retriever: entries called ``FACE+VOICE`` by their ids, of which no voice's holds a ``+``.
        embeddings: ``(voices, variants, dim)``.
        voice_ids: the voices' ids.
        speakers: the voices' speakers.

    Returns:
        ``(voices, variants)`` rows.
    """
    speaker_of = dict(zip(voice_ids, speakers, strict=True))
    own: dict[str, list[str]] = {}
    for name in retriever.entries.ids:
        own.setdefault(speaker_of.get(name.rpartition("+")[2], ""), []).append(name)
    voices, variants = embeddings.shape[:2]
    left_out = [own.get(speaker, []) for speaker in speakers for _ in range(variants)]
    queries = embeddings.flatten(0, 1)
    rows = []
    for start in range(0, len(queries), RETRIEVED_AT_ONCE):
        part = slice(start, start + RETRIEVED_AT_ONCE)
        found = retriever.retrieve(queries[part], top_k=1, leave_out=left_out[part])
        rows += [retriever.rows[names[0]] for names in found.ids]
    return torch.tensor(rows).view(voices, variants)
