"""Frames of MP3s, of which libsndfile neither knows the number for sure nor reads the last."""

from __future__ import annotations

from voice2face.audio.mp3_tags import Seekable, read_past_tags

HEADER_BYTES = 4
LAYER_3 = 1  # as headers write it
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
KILOBITS_OF_MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KILOBITS_OF_LATER = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def goes_on(file: Seekable) -> bool:
    """Whether an MP3 goes on where libsndfile has read all samples that its header tells of.

    One frame may be left, which encoders fill up with silence that is not played. Tags are none,
    but may lie between files that were joined.
    """
    header = read_past_tags(file, HEADER_BYTES)
    if not is_frame(header):
        return False
    length = frame_bytes(header)
    if length is None:
        return True
    file.read(length - HEADER_BYTES)
    return is_frame(read_past_tags(file, HEADER_BYTES))


def is_frame(header: bytes) -> bool:
    """Whether a frame of MPEG audio begins so."""
    return len(header) >= 2 and header[0] == 0xFF and header[1] >= 0xE0


def frame_bytes(header: bytes) -> int | None:
    """Length of a frame of layer III, header and all; ``None`` of others, or where none is told."""
    if len(header) < HEADER_BYTES:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bits, rate, padded = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in RATES or layer != LAYER_3 or bits in (0, 15) or rate == 3:
        return None
    kilobits = (KILOBITS_OF_MPEG_1 if version == 3 else KILOBITS_OF_LATER)[bits - 1]
    return (144 if version == 3 else 72) * 1000 * kilobits // RATES[version][rate] + padded
