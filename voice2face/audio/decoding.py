"""Decoding of files and of their bytes, by libsndfile, and what it does not read by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voice2face.audio.channels import mixed
from voice2face.audio.file_objects import LARGEST_FILE_BYTES, TOO_LARGE, Watched, reading
from voice2face.audio.limits import check_channels, check_length
from voice2face.audio.media import OTHER_FORMATS, decode_media, reads_media
from voice2face.audio.mpeg_frames import goes_on
from voice2face.errors import AudioDecodeError, AudioFormatError, AudioNotFoundError

UNKNOWN_FRAMES = 1 << 62  # what libsndfile says where a header does not say the length
DECODED_AT_ONCE = 1 << 20  # samples a channel, brought to mono before more are read
# Of an MP3 without the Xing header, libsndfile guesses the length by the file's size.
GUESSED_WITHIN_SECONDS = 0.1


def decode_path(path: Path, max_seconds: float | None = None) -> tuple[NDArray[np.float32], float]:
    """Samples, ``(samples,)``, and rate of a file.

    Args:
        path: of the file.
        max_seconds: as of ``decode``.

    Raises:
        AudioNotFoundError: it does not exist, is a folder or cannot be read.
        AudioDecodeError: as of ``decode``.
        AudioFormatError: as there, or the file is too large.
    """
    try:
        if path.is_dir():
            raise AudioNotFoundError(f"{path} is a folder; name one audio file in it")
        if not path.exists():
            of_web = str(path).startswith(("http:/", "https:/"))
            advice = "download it first" if of_web else "check the path"
            raise AudioNotFoundError(f"{path} does not exist; {advice}")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise AudioFormatError(f"{path}: {TOO_LARGE}")
        with path.open("rb") as file:
            return decode(file, str(path), max_seconds)
    except OSError as error:
        raise AudioNotFoundError(f"{path} cannot be read: {error.strerror or error}") from error


def decode(
    file: Any, where: str, max_seconds: float | None = None
) -> tuple[NDArray[np.float32], float]:
    """Samples, ``(samples,)``, and rate of what a file object holds.

    Args:
        file: the file, or a pipe; read from the place where it is, or from its beginning where it
            is at its end.
        where: what it is called in messages.
        max_seconds: as of ``check_length``.

    Raises:
        AudioDecodeError: it is no audio, or truncated, or cannot be read.
        AudioFormatError: it is too long, or has too many channels, or gives no bytes.
    """
    with reading(file, where) as watched:
        if not watched.read(1):
            raise AudioDecodeError(f"{where}: it is empty; record it anew, or get the whole file")
        watched.seek(0)
        return _decode(watched, where, max_seconds)


def _decode(
    file: Watched, where: str, max_seconds: float | None
) -> tuple[NDArray[np.float32], float]:
    import soundfile

    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        decoded = decode_media(file, where, max_seconds) if reads_media() else None
        if decoded is None:
            raise _undecodable(where, error) from error
        return decoded
    try:
        with sound:
            check_channels(sound.channels, where)
            expected = sound.frames
            if expected >= UNKNOWN_FRAMES:
                raise AudioDecodeError(
                    f"{where}: its header does not say how long it is, as of a stream that was "
                    "not finished; save it again as FLAC or WAV"
                )
            check_length(expected, sound.samplerate, where, max_seconds, sound.channels)
            samples = mixed(lambda: _blocks(sound))
            rate = float(sound.samplerate)
            lacking = expected - len(samples)
            if sound.format == "MP3" and goes_on(file):
                raise AudioDecodeError(
                    f"{where}: there is more than its header says, as in a stream or in files that "
                    "were joined; save it again as FLAC or WAV"
                )
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        raise _undecodable(where, error) from error
    if lacking > (GUESSED_WITHIN_SECONDS * rate if sound.format == "MP3" else 0):
        raise AudioDecodeError(
            f"{where}: truncated, or its header misstates its length: {len(samples)} of "
            f"{expected} samples are there; get the whole file, or save it again as FLAC or WAV"
        )
    return samples, rate


def _undecodable(where: str, error: Exception) -> AudioDecodeError:
    reason = getattr(error, "error_string", error)  # without the file's name once more
    all_of_them = "MP3, AIFF, M4A and the sound of videos"
    read = all_of_them if reads_media() else f"MP3 and AIFF; {OTHER_FORMATS}"
    return AudioDecodeError(
        f"{where}: not audio that can be decoded, or cut off ({reason}); voice2face reads WAV, "
        f"FLAC, Ogg, {read}"
    )


def _blocks(sound: Any) -> Iterator[NDArray[np.float32]]:
    """Samples, ``(samples, channels)``, to the end and no further, as a header may claim."""
    if sound.tell():
        sound.seek(0)
    while len(block := sound.read(DECODED_AT_ONCE, dtype="float32", always_2d=True)):
        yield block
