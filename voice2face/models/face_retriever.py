"""Retrieval prior: the faces whose voices are nearest to a voice (Fine-portraitist).

Each entry holds a speech embedding, the latent of the whole face and that of the bottom face, an
id and a licence note. No entry holds a picture or a recording.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from voice2face.argument_checks import check_whole
from voice2face.errors import ArchitectureError, SettingError
from voice2face.models.face_entries import (
    ENTRIES_FILE,
    Entries,
    check_entries,
    read_entries,
    rows_of,
    take,
    write_entries,
)
from voice2face.models.nearest_search import ExactSearch, FaissSearch, Search
from voice2face.paths import expanded

NEAREST_ALONE, MOST_NEIGHBOURS = 1, 256
LEAST_TEMPERATURE = 1e-30  # below, cosines divided by it are infinite


class Retrieved(NamedTuple):
    """What was found for a batch of voices, nearest first.

    Attributes:
        ids: names, ``k`` for each voice.
        scores: ``(batch, k)`` cosines.
        faces: ``(batch, C, H, W)``, the nearest or the mixture of the k nearest.
        bottoms: ``(batch, C, H, W)``.
    """

    ids: tuple[tuple[str, ...], ...]
    scores: Tensor
    faces: Tensor
    bottoms: Tensor


class FaceRetriever:
    """Entries and a way to search them; ``add`` and ``remove`` make a new retriever.

    A retriever never changes, so threads may share one.

    Args:
        entries: what is searched.
        search: kind of search, ``ExactSearch`` or ``FaissSearch``.
        top_k: neighbours to find unless ``retrieve`` is told otherwise.
        temperature: ``None`` for the nearest face alone; see ``retrieve``.

    Raises:
        SettingError: the entries' sizes do not go together, an id is there twice, or another
            argument is out of range.
    """

    def __init__(
        self,
        entries: Entries,
        search: type[ExactSearch | FaissSearch] = ExactSearch,
        *,
        top_k: int = NEAREST_ALONE,
        temperature: float | None = None,
    ) -> None:
        check_entries(entries)
        self.entries = entries
        self.top_k = check_whole("top_k", top_k, MOST_NEIGHBOURS)
        self.temperature = check_temperature(temperature)
        self.rows = {name: row for row, name in enumerate(entries.ids)}
        self.search: Search = search(entries.speech)
        self._kind = search

    def __len__(self) -> int:
        return len(self.entries.ids)

    def retrieve(
        self,
        speech: Tensor,
        *,
        top_k: int | None = None,
        temperature: float | None = None,
        leave_out: Sequence[Collection[str]] | None = None,
    ) -> Retrieved:
        """Find the faces whose voices are nearest.

        Args:
            speech: Z^s, ``(batch, dim)``, unit length.
            top_k: neighbours to find, 1 to 256; the retriever's own by default, which is 1, as in
                the paper.
            temperature: mixes the k nearest with weights ``softmax(cosine / temperature)``; the
                retriever's own by default, which is ``None``: the nearest face alone.
            leave_out: ids that may not be found, for each voice; its own entry while training.

        Raises:
            SettingError: an argument is out of range, or too few entries are left.
        """
        top_k = self.top_k if top_k is None else check_whole("top_k", top_k, MOST_NEIGHBOURS)
        temperature = self.temperature if temperature is None else check_temperature(temperature)
        if leave_out is not None and len(leave_out) != len(speech):
            raise SettingError(f"{len(leave_out)} lists to leave out for {len(speech)} voices")
        unwanted = [
            {self.rows[name] for name in set_of(names) if name in self.rows}
            for names in leave_out or []
        ] or [set()] * len(speech)
        asked = top_k + max((len(rows) for rows in unwanted), default=0)
        if asked > len(self):
            raise SettingError(f"{top_k} neighbours asked for, {len(self)} entries are there")
        scores, rows = self.search(F.normalize(speech.float(), dim=1), asked)
        kept = [
            [k for k, row in enumerate(found) if row not in out][:top_k]
            for found, out in zip(rows.tolist(), unwanted, strict=True)
        ]
        chosen = torch.tensor(kept, device=scores.device)
        scores, rows = scores.gather(1, chosen), rows.gather(1, chosen)
        if temperature is None:
            weights = torch.zeros_like(scores)
            weights[:, 0] = 1.0
        else:
            weights = (scores / max(temperature, LEAST_TEMPERATURE)).softmax(1)
        return Retrieved(
            tuple(tuple(self.entries.ids[row] for row in found) for found in rows.tolist()),
            scores,
            torch.einsum("bk,bkchw->bchw", weights, rows_of(self.entries.faces, rows).float()),
            torch.einsum("bk,bkchw->bchw", weights, rows_of(self.entries.bottoms, rows).float()),
        )

    def add(self, entries: Entries) -> Self:
        """A retriever that holds these entries too.

        Raises:
            SettingError: sizes differ, or an id is there already.
        """
        old = self.entries
        for name, ours, theirs in zip(old._fields, old[:3], entries[:3], strict=False):
            if ours.shape[1:] != theirs.shape[1:]:
                raise SettingError(
                    f"{name} to add are of shape {tuple(theirs.shape[1:])}, those that are there "
                    f"of {tuple(ours.shape[1:])}"
                )
        return type(self)(
            Entries(
                torch.cat([old.speech, entries.speech.to(old.speech.dtype)]),
                torch.cat([old.faces, entries.faces.to(old.faces.dtype)]),
                torch.cat([old.bottoms, entries.bottoms.to(old.bottoms.dtype)]),
                (*old.ids, *entries.ids),
                (*old.licences, *entries.licences),
            ),
            self._kind,
            top_k=self.top_k,
            temperature=self.temperature,
        )

    def remove(self, ids: Collection[str]) -> Self:
        """A retriever without these entries: a person's wish to be taken out is met by id.

        Raises:
            SettingError: an id is not there, or nothing would be left.
        """
        ids = set_of(ids)
        strangers = sorted(ids - self.rows.keys())
        if strangers:
            raise SettingError(f"no entry is called {', '.join(strangers[:3])}")
        kept = [row for row, name in enumerate(self.entries.ids) if name not in ids]
        if not kept:
            raise SettingError("a retriever needs at least one entry; this would remove the last")
        return type(self)(
            take(self.entries, kept), self._kind, top_k=self.top_k, temperature=self.temperature
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the entries, in half precision or less, to a folder that ``load`` reads.

        An older file is replaced once the new one is complete.

        Raises:
            OutputError: the folder cannot be written to.
        """
        metadata = {}
        if self.top_k != NEAREST_ALONE:
            metadata["top_k"] = str(self.top_k)
        if self.temperature is not None:
            metadata["temperature"] = repr(float(self.temperature))
        folder = expanded(folder)
        write_entries(folder, self.entries, metadata)
        return folder

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        search: type[ExactSearch | FaissSearch] = ExactSearch,
    ) -> Self:
        """Read what ``save_pretrained`` wrote; latents are mapped from the file.

        They are read once here, to be checked, and again when they are retrieved.

        Raises:
            ArchitectureError: the file is missing, damaged, or holds something else.
        """
        folder = expanded(folder)
        entries, metadata = read_entries(folder)
        temperature = metadata.get("temperature")
        try:
            return cls(
                entries,
                search,
                top_k=int(metadata.get("top_k", NEAREST_ALONE)),
                temperature=None if temperature is None else float(temperature),
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise ArchitectureError(f"{folder / ENTRIES_FILE} cannot be read: {error}") from error


def check_temperature(temperature: float | None) -> float | None:
    """Refuse what neighbours cannot be mixed by.

    Raises:
        SettingError: it is no number above 0.
    """
    if temperature is None:
        return None
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not number or not temperature > 0:
        raise SettingError(f"temperature is above 0, not {temperature!r}")
    return float(temperature)


def set_of(ids: Collection[str]) -> set[str]:
    """Ids, of which a single text is one."""
    return {ids} if isinstance(ids, str) else set(ids)
