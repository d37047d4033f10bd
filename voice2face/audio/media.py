"""Decoding of a phone's M4A, of a video's sound and the like, which libsndfile does not read.

FFmpeg does, which PyAV brings along: ``pip install 'voice2face[media]'``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voice2face.audio.channels import mixed
from voice2face.audio.file_objects import Watched
from voice2face.audio.limits import check_channels, check_length
from voice2face.errors import AudioDecodeError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

OTHER_FORMATS = (  # where PyAV is not installed
    "for M4A and the sound of videos, pip install 'voice2face[media]', or convert them: "
    "ffmpeg -i talk.m4a talk.wav"
)
# none of them opens files or addresses that a file names, as playlists do
OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,asf,caf",
    "protocol_whitelist": "none",
}
AT_ONCE = 1 << 20  # samples a channel


def reads_media() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def decode_media(
    file: Watched, where: str, max_seconds: float | None
) -> tuple[NDArray[np.float32], float] | None:
    """Samples, ``(samples,)``, and rate of the first sound in a file; ``None`` if it is no media.

    Args:
        file: read from its beginning.
        where: what it is called in messages.
        max_seconds: as of ``check_length``.

    Raises:
        AudioDecodeError: it has no sound, or is cut off.
        AudioFormatError: it is too long, or has too many channels.
    """
    import av

    # before version 19, PyAV refuses a title that is no UTF-8 unless it is told not to
    leniently: dict[str, Any] = {}
    if int(av.__version__.partition(".")[0]) < 19:
        leniently["metadata_errors"] = "ignore"
    try:
        file.seek(0)
        media = av.open(file, "r", options=OPTIONS, **leniently)
    except (av.FFmpegError, ValueError):
        return None
    with media:
        if not media.streams.audio:
            raise AudioDecodeError(f"{where}: there is no sound in it")
        sound = media.streams.audio[0]
        rate: int = getattr(sound, "rate", 0)
        if not rate:
            raise AudioDecodeError(
                f"{where}: FFmpeg does not know how its sound is encoded; save it again as FLAC or "
                "WAV"
            )
        check_channels(sound.channels, where)
        if media.duration is not None:
            stated = round(media.duration * rate / av.time_base)
            check_length(stated, rate, where, max_seconds, sound.channels)
        try:
            samples = mixed(lambda: _blocks(media, sound, where, max_seconds))
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioDecodeError(
                f"{where}: its sound cannot be decoded, or is cut off ({reason}); get the whole "
                "file, or save it again as FLAC or WAV"
            ) from error
    return samples, float(rate)


def _blocks(
    media: InputContainer, sound: AudioStream, where: str, max_seconds: float | None
) -> Iterator[NDArray[np.float32]]:
    """Samples, ``(samples, channels)``, from the beginning on."""
    import av

    media.seek(0)
    to_float = av.AudioResampler(format="fltp", rate=sound.rate)
    waiting: list[NDArray[np.float32]] = []
    count = total = 0
    for frame in chain(media.decode(sound), [None]):
        for part in to_float.resample(frame):
            waiting.append(part.to_ndarray().astype(np.float32, copy=False))
            count += part.samples
        if count >= AT_ONCE:
            total += count
            check_length(total, sound.rate, where, max_seconds, sound.channels)
            yield np.concatenate(waiting, 1).T
            waiting, count = [], 0
    if waiting:
        check_length(total + count, sound.rate, where, max_seconds, sound.channels)
        yield np.concatenate(waiting, 1).T
