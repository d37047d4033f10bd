"""Tags between or behind the frames of MP3s: ID3's of both versions, and APE's."""

from __future__ import annotations

import io
from typing import Protocol

ID3V1_BYTES = 128
ID3V2_HEADER_BYTES = 10  # and of its footer, where it has one
HAS_FOOTER = 0x10  # among ID3v2's flags
APE_HEADER_BYTES = 32
IS_HEADER = 1 << 29  # among APE's flags; in its footer, which comes last, it is not set


class Seekable(Protocol):
    """What tags are read from."""

    def read(self, count: int, /) -> bytes:
        """Up to ``count`` bytes."""

    def seek(self, offset: int, whence: int, /) -> int:
        """Go to a place in the file."""


def read_past_tags(file: Seekable, count: int) -> bytes:
    """Up to ``count`` bytes behind the tags that begin here, if any do."""
    while True:
        begun = file.read(APE_HEADER_BYTES)
        length = tag_bytes(begun)
        file.seek((length or 0) - len(begun), io.SEEK_CUR)
        if length is None:
            return file.read(count)


def tag_bytes(begun: bytes) -> int | None:
    """Length of the tag that begins so, ``None`` where none does.

    Args:
        begun: the first 32 bytes, or fewer at the end of a file.
    """
    if begun.startswith(b"ID3") and len(begun) >= ID3V2_HEADER_BYTES:
        footer = ID3V2_HEADER_BYTES if begun[5] & HAS_FOOTER else 0
        content = 0
        for seven_bits in begun[6:10]:
            content = content << 7 | seven_bits & 0x7F
        return ID3V2_HEADER_BYTES + content + footer
    if begun.startswith(b"TAG"):
        return ID3V1_BYTES
    if begun.startswith(b"APETAGEX") and len(begun) == APE_HEADER_BYTES:
        content, flags = (int.from_bytes(begun[at : at + 4], "little") for at in (12, 20))
        return APE_HEADER_BYTES + (content if flags & IS_HEADER else 0)
    return None
