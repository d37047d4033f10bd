"""Retrieval prior: the faces whose voices are nearest to a voice (Fine-portraitist).

Each entry holds a speech embedding, the latent of the whole face and that of the bottom face, an
id and a licence note. No entry holds a picture or a recording.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from voice2face.errors import ArchitectureError, OutputError, SettingError
from voice2face.whole_files import replace_file

ENTRIES_FILE = "entries.safetensors"
FORMAT = "voice2face retrieval entries 1"
TENSORS = ("speech", "faces", "bottoms", "ids", "id_ends", "licences", "licence_ends")
EIGHT_BITS = torch.float8_e4m3fn  # off by some 3 %, less than face encoder and decoder are
CHECKED_AT_ONCE = 1 << 14
NEAREST_ALONE, MOST_NEIGHBOURS = 1, 256
LONGEST_TEXT_BYTES = 200


class Entries(NamedTuple):
    """What is searched and what is found.

    Attributes:
        speech: ``(N, dim)``, unit length.
        faces: ``(N, C, H, W)`` latents of whole faces; ``EIGHT_BITS`` a number are enough.
        bottoms: ``(N, C, H, W)`` latents of bottom faces.
        ids: N different names.
        licences: N notes on what each entry may be used for.
    """

    speech: Tensor
    faces: Tensor
    bottoms: Tensor
    ids: tuple[str, ...]
    licences: tuple[str, ...]


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


class Search(Protocol):
    """Finds the rows nearest to unit-length queries by cosine."""

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores and rows, each ``(batch, count)``, highest score first."""
        ...


class ExactSearch:
    """A matrix product over all entries, ``SCORES_AT_ONCE`` at a time; lower row on a tie.

    Args:
        speech: ``(N, dim)`` unit vectors.
    """

    SCORES_AT_ONCE = 1 << 26  # 256 MB

    def __init__(self, speech: Tensor) -> None:
        self.speech = speech.float()

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Search``."""
        parts = queries.float().cpu().split(max(1, self.SCORES_AT_ONCE // len(self.speech)))
        found = [highest(part @ self.speech.T, count) for part in parts]
        scores, rows = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(rows)


class FaissSearch:
    """FAISS for millions of entries (extra ``retrieval``); exact up to ``EXACT_ENTRIES``.

    Beyond, the entries lie in clusters, and the nearest few clusters are searched, or all of them
    where those hold too few. Entries that tie come in any order.

    Args:
        speech: ``(N, dim)`` unit vectors.
        probes: share of the clusters that a query looks into, where there are clusters.
    """

    EXACT_ENTRIES = 100_000

    def __init__(self, speech: Tensor, probes: float = 0.05) -> None:
        try:
            import faiss
        except ImportError as error:
            raise SettingError(
                "searching with FAISS needs it: pip install 'voice2face[retrieval]'"
            ) from error
        vectors = speech.float().numpy()
        count, dim = vectors.shape
        flat = faiss.IndexFlatIP(dim)
        self.index: Any = flat
        if count > self.EXACT_ENTRIES:
            clusters = round(2 * count**0.5)  # twice as many take four times as long to find
            self.index = faiss.IndexIVFFlat(flat, dim, clusters, faiss.METRIC_INNER_PRODUCT)
            self.index.train(vectors[:: max(1, count // (40 * clusters))])
            self.index.nprobe = max(1, round(probes * clusters))
        self.index.add(vectors)

    def __call__(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Search``."""
        vectors = queries.float().cpu().contiguous().numpy()
        scores, rows = self.index.search(vectors, count)
        lacking = (rows < 0).any(1)
        if lacking.any():  # the clusters that were searched hold too few entries
            import faiss

            wider: Any = faiss.SearchParametersIVF()
            wider.nprobe = self.index.nlist
            scores[lacking], rows[lacking] = self.index.search(
                vectors[lacking], count, params=wider
            )
        return torch.from_numpy(scores), torch.from_numpy(rows)


class FaceRetriever:
    """Entries and a way to search them; ``add`` and ``remove`` make a new retriever.

    A retriever never changes, so threads may share one.

    Args:
        entries: what is searched.
        search: kind of search, ``ExactSearch`` or ``FaissSearch``.
        top_k: neighbours to find unless ``retrieve`` is told otherwise.
        temperature: ``None`` for the nearest face alone; see ``retrieve``.

    Raises:
        SettingError: the entries' sizes do not go together, or an id is there twice.
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
        self.top_k, self.temperature = top_k, temperature
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
        top_k = self.top_k if top_k is None else top_k
        temperature = self.temperature if temperature is None else temperature
        if not 1 <= top_k <= MOST_NEIGHBOURS:
            raise SettingError(f"top_k is 1 to {MOST_NEIGHBOURS}, not {top_k!r}")
        if temperature is not None and not temperature > 0:
            raise SettingError(f"temperature is above 0, not {temperature!r}")
        if leave_out is not None and len(leave_out) != len(speech):
            raise SettingError(f"{len(leave_out)} lists to leave out for {len(speech)} voices")
        unwanted = [
            {self.rows[name] for name in names if name in self.rows} for names in leave_out or []
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
            weights = (scores / temperature).softmax(1)
        return Retrieved(
            tuple(tuple(self.entries.ids[row] for row in found) for found in rows.tolist()),
            scores,
            torch.einsum("bk,bkchw->bchw", weights, self.entries.faces[rows].float()),
            torch.einsum("bk,bkchw->bchw", weights, self.entries.bottoms[rows].float()),
        )

    def add(self, entries: Entries) -> Self:
        """A retriever that holds these entries too.

        Raises:
            SettingError: sizes differ, or an id is there already.
        """
        old = self.entries
        return type(self)(
            Entries(
                torch.cat([old.speech, entries.speech.to(old.speech.dtype)]),
                torch.cat([old.faces, entries.faces.to(old.faces.dtype)]),
                torch.cat([old.bottoms, entries.bottoms.to(old.bottoms.dtype)]),
                old.ids + tuple(entries.ids),
                old.licences + tuple(entries.licences),
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
        ids = set(ids)
        strangers = sorted(ids - self.rows.keys())
        if strangers:
            raise SettingError(f"no entry is called {', '.join(strangers[:3])}")
        kept = [row for row, name in enumerate(self.entries.ids) if name not in ids]
        if not kept:
            raise SettingError("a retriever needs at least one entry; this would remove the last")
        return type(self)(
            take(self.entries, kept), self._kind, top_k=self.top_k, temperature=self.temperature
        )

    def save_pretrained(self, folder: Path) -> Path:
        """Write the entries, in half precision or less, to a folder that ``load`` reads.

        An older file is replaced once the new one is complete.

        Raises:
            OutputError: the folder cannot be written to.
        """
        entries = self.entries
        ids, id_ends = pack(entries.ids)
        licences, licence_ends = pack(entries.licences)
        tensors = {
            "speech": halved(entries.speech),
            "faces": halved(entries.faces),
            "bottoms": halved(entries.bottoms),
            "ids": ids,
            "id_ends": id_ends,
            "licences": licences,
            "licence_ends": licence_ends,
        }
        metadata = {"format": FORMAT}
        if self.top_k != NEAREST_ALONE:
            metadata["top_k"] = str(self.top_k)
        if self.temperature is not None:
            metadata["temperature"] = repr(float(self.temperature))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / ENTRIES_FILE, partial(save_file, tensors, metadata=metadata))
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{folder} cannot be written to: {error}") from error
        return folder

    @classmethod
    def load(cls, folder: Path, search: type[ExactSearch | FaissSearch] = ExactSearch) -> Self:
        """Read what ``save_pretrained`` wrote; latents are mapped from the file.

        They are read once here, to be checked, and again when they are retrieved.

        Raises:
            ArchitectureError: the file is missing, damaged, or holds something else.
        """
        file = folder / ENTRIES_FILE
        try:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ArchitectureError(f"{file} holds no retrieval entries of this version")
                missing = sorted(set(TENSORS) - set(opened.keys()))
                if missing:
                    raise ArchitectureError(f"{file} lacks {', '.join(missing)}")
                tensors = {name: opened.get_tensor(name) for name in TENSORS}
            entries = Entries(
                tensors["speech"],
                tensors["faces"],
                tensors["bottoms"],
                unpack(tensors["ids"], tensors["id_ends"]),
                unpack(tensors["licences"], tensors["licence_ends"]),
            )
            temperature = metadata.get("temperature")
            return cls(
                entries,
                search,
                top_k=int(metadata.get("top_k", NEAREST_ALONE)),
                temperature=None if temperature is None else float(temperature),
            )
        except ArchitectureError:
            raise
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise ArchitectureError(f"{file} cannot be read: {error}") from error


def check_entries(entries: Entries) -> None:
    """Refuse entries whose sizes do not go together.

    Raises:
        SettingError: says what does not fit.
    """
    speech, faces, bottoms, ids, licences = entries
    count = len(ids)
    if count == 0:
        raise SettingError("a retriever needs at least one entry")
    if len(set(ids)) != count:
        raise SettingError("two entries have the same id")
    if {len(speech), len(faces), len(bottoms), len(licences)} != {count}:
        raise SettingError("entries need one embedding, two latents, an id and a licence each")
    if speech.ndim != 2 or faces.ndim != 4 or faces.shape != bottoms.shape:
        raise SettingError("embeddings are (N, dim), both latents (N, channels, height, width)")
    for values in (speech, faces, bottoms):
        if not values.is_floating_point() or not all(map(finite, values.split(CHECKED_AT_ONCE))):
            raise SettingError("embeddings and latents are finite floating-point numbers")
    lengths = speech.float().norm(dim=1)
    if bool(((lengths - 1).abs() > 0.01).any()):
        raise SettingError("embeddings have length one")


def halved(values: Tensor) -> Tensor:
    """In half precision, or in eight bits where they are already."""
    return (values if values.dtype == EIGHT_BITS else values.half()).contiguous()


def finite(values: Tensor) -> bool:
    """Whether no number is infinite or none; not every type can tell by itself."""
    return bool(torch.isfinite(values.float()).all())


def highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest of each query's scores ``(batch, N)``, and their rows; lower rows on a tie."""
    shape = len(scores), min(count, scores.shape[1])
    rows = torch.empty(shape, dtype=torch.int64, device=scores.device)
    lowest_kept = scores.topk(rows.shape[1], sorted=False).values.amin(1)
    for kept, of_query, lowest in zip(rows, scores, lowest_kept, strict=True):
        candidates = (of_query >= lowest).nonzero()[:, 0]  # topk takes any of those that tie
        order = of_query[candidates].argsort(descending=True, stable=True)
        kept.copy_(candidates[order[: len(kept)]])
    return scores.gather(1, rows), rows


def take(entries: Entries, rows: Sequence[int]) -> Entries:
    """Some rows of entries."""
    chosen = torch.tensor(rows, device=entries.speech.device)
    return Entries(
        entries.speech[chosen],
        entries.faces[chosen],
        entries.bottoms[chosen],
        tuple(entries.ids[row] for row in rows),
        tuple(entries.licences[row] for row in rows),
    )


def pack(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts as the bytes of all, one after the other, and where each ends."""
    encoded = [text.encode() for text in texts]
    if any(len(text) > LONGEST_TEXT_BYTES for text in encoded):
        raise SettingError(f"ids and licence notes have at most {LONGEST_TEXT_BYTES} bytes")
    ends = torch.tensor([len(text) for text in encoded]).cumsum(0)
    return torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8), ends


def unpack(content: Tensor, ends: Tensor) -> tuple[str, ...]:
    """The texts that ``pack`` packed.

    Raises:
        ValueError: the ends do not rise, reach beyond the content, or cut a letter.
    """
    raw, spans = content.numpy().tobytes(), list(pairwise([0, *ends.tolist()]))
    if any(not 0 <= end - start <= LONGEST_TEXT_BYTES for start, end in spans):
        raise ValueError("texts overlap or are too long")
    if spans and spans[-1][1] > len(raw):
        raise ValueError("texts reach beyond their end")
    return tuple(raw[start:end].decode() for start, end in spans)
