"""How long a recording may be, and how many channels it may have."""

from __future__ import annotations

from voice2face.errors import AudioFormatError

LONGEST_SECONDS = 4 * 3600.0
MOST_SAMPLES = 1 << 29  # a channel
MOST_CHANNELS = 64
DENSEST_RATE = 2 * 48_000  # samples a second, all channels together, where seconds are limited


def check_channels(channels: int, where: str) -> None:
    """Refuse recordings of too many channels.

    Args:
        channels: that are there.
        where: what the recording is called in messages.

    Raises:
        AudioFormatError: says how many there are.
    """
    if channels > MOST_CHANNELS:
        raise AudioFormatError(f"{where}: {channels} channels are over {MOST_CHANNELS}")


def check_length(
    count: int, rate: float, where: str, max_seconds: float | None = None, channels: int = 1
) -> None:
    """Refuse recordings that are too long.

    Args:
        count: samples a channel.
        rate: samples a second.
        where: what the recording is called in messages.
        max_seconds: the most that is taken; and no more samples than so many seconds have at
            48 kHz in stereo.
        channels: that are there.

    Raises:
        AudioFormatError: says how long it is, and what is read.
    """
    seconds, samples = count / rate, count * channels
    if max_seconds is not None and (seconds > max_seconds or samples > max_seconds * DENSEST_RATE):
        raise AudioFormatError(
            f"{where}: {seconds:g} s and {samples} samples; up to {max_seconds:g} s, at 48 kHz in "
            "stereo, are taken here: cut out a part with one speaker"
        )
    if count > min(LONGEST_SECONDS * rate, MOST_SAMPLES):
        raise AudioFormatError(
            f"{where}: {seconds / 3600:.1f} hours at {rate:.0f} Hz are more than are read "
            f"({LONGEST_SECONDS / 3600:.0f} hours, {MOST_SAMPLES >> 20} million samples); "
            "cut out a part with one speaker"
        )
