"""Entries of a face retriever: embeddings, latents, ids and licences, and the file they lie in.

No entry holds a picture or a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voice2face.errors import ArchitectureError, OutputError, SettingError
from voice2face.tensor_files import save_tensors
from voice2face.whole_files import replace_file

ENTRIES_FILE = "entries.safetensors"
FORMAT = "voice2face retrieval entries 1"
TENSORS = ("speech", "faces", "bottoms", "ids", "id_ends", "licences", "licence_ends")
EIGHT_BITS = torch.float8_e4m3fn  # off by some 3 %, less than face encoder and decoder are
CHECKED_AT_ONCE = 1 << 14
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

    def __reduce__(self) -> tuple[Callable[..., Entries], tuple[object, ...]]:
        """How entries are pickled: PyTorch reads no pickled numbers of eight bits, but bytes."""
        latents = (
            values.view(torch.uint8) if values.dtype == EIGHT_BITS else values
            for values in (self.faces, self.bottoms)
        )
        return unpickled, (self.speech, *latents, self.ids, self.licences)


def unpickled(
    speech: Tensor, faces: Tensor, bottoms: Tensor, ids: tuple[str, ...], licences: tuple[str, ...]
) -> Entries:
    """Entries whose latents of eight bits came as bytes."""
    faces, bottoms = (
        values.view(EIGHT_BITS) if values.dtype == torch.uint8 else values
        for values in (faces, bottoms)
    )
    return Entries(speech, faces, bottoms, ids, licences)


def check_entries(entries: Entries) -> None:
    """Refuse entries whose sizes do not go together.

    Raises:
        SettingError: says what does not fit.
    """
    speech, faces, bottoms, ids, licences = entries
    count = len(ids)
    if count == 0:
        raise SettingError("a retriever needs at least one entry")
    check_texts(ids)
    check_texts(licences)
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


def rows_of(latents: Tensor, rows: Tensor) -> Tensor:
    """Some rows of latents; those of eight bits as bytes, since PyTorch 2.5 indexes no others."""
    if latents.dtype == EIGHT_BITS:
        return latents.view(torch.uint8)[rows].view(EIGHT_BITS)
    return latents[rows]


def take(entries: Entries, rows: Sequence[int]) -> Entries:
    """Some rows of entries."""
    chosen = torch.tensor(rows, device=entries.speech.device)
    return Entries(
        entries.speech[chosen],
        rows_of(entries.faces, chosen),
        rows_of(entries.bottoms, chosen),
        tuple(entries.ids[row] for row in rows),
        tuple(entries.licences[row] for row in rows),
    )


def write_entries(folder: Path, entries: Entries, metadata: Mapping[str, str]) -> None:
    """Write entries, in half precision or less, to a folder that ``read_entries`` reads.

    An older file is replaced once the new one is complete.

    Args:
        folder: made where it is missing.
        entries: to write.
        metadata: kept beside them, read back as it is.

    Raises:
        OutputError: the folder cannot be written to.
        SettingError: an id or a licence note is no text, or too long.
    """
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
    write = partial(save_tensors, tensors, metadata={"format": FORMAT, **metadata})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / ENTRIES_FILE, write)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder} cannot be written to: {error}") from error


def read_entries(folder: Path) -> tuple[Entries, Mapping[str, str]]:
    """Read what ``write_entries`` wrote, not checked yet; latents are mapped from the file.

    Returns:
        The entries, and the metadata beside them.

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
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise ArchitectureError(f"{file} cannot be read: {error}") from error
    return entries, metadata


def halved(values: Tensor) -> Tensor:
    """In half precision, or in eight bits where they are already."""
    return (values if values.dtype == EIGHT_BITS else values.half()).contiguous()


def finite(values: Tensor) -> bool:
    """Whether no number is infinite or none; not every type can tell by itself."""
    return bool(torch.isfinite(values.float()).all())


def check_texts(texts: Sequence[str]) -> None:
    """Refuse ids or licence notes that cannot be written.

    Raises:
        SettingError: one is no text, or too long.
    """
    for text in texts:
        try:
            fits = isinstance(text, str) and len(text.encode()) <= LONGEST_TEXT_BYTES
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise SettingError(
                f"ids and licence notes are texts of at most {LONGEST_TEXT_BYTES} bytes, "
                f"not {text!r:.60}"
            )


def pack(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts as the bytes of all, one after the other, and where each ends."""
    check_texts(texts)
    encoded = [text.encode() for text in texts]
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
