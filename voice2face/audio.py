"""Every way in ends as mono float32 at 16 kHz; speech is found and cut to windows."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voice2face.errors import (
    AudioDecodeError,
    AudioFormatError,
    AudioNotFoundError,
    NoSpeechError,
)
from voice2face.paths import expanded

logger = logging.getLogger("voice2face")

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000  # samples a second
LOWEST_RATE = 4_000  # samples a second
HIGHEST_RATE = 768_000  # samples a second
LONGEST_SECONDS = 4 * 3600.0
MOST_SAMPLES = 1 << 29  # a channel
MOST_FILTERS = 1000  # that torchaudio may lay out to resample
UNKNOWN_FRAMES = 1 << 62  # what libsndfile says where a header does not say the length
DECODED_AT_ONCE = 1 << 20  # samples a channel, averaged to mono before more are read
MOST_CHANNELS = 64
LARGEST_FILE_BYTES = 4 << 30
WINDOW_SECONDS = 6.0
LEAST_SPEECH_SECONDS = 1.0
LOUD_SHARE = 0.05  # of the frames, at least, are speech
LOUD_SECONDS = 3.0  # are speech in a long recording, where that share would be more
FRAME_SECONDS = 0.02  # energy is measured over frames of this length
SPEECH_RANGE_DB = 35.0  # frames this far below the loud frames are pauses
SILENCE_DB = -70.0  # recordings whose loud frames stay below this are silent
PAUSE_KEPT_SECONDS = 0.2  # of every pause around speech
LARGEST_SAMPLE = 1e6  # floating-point samples beyond this are no audio

_TOO_LARGE = f"files over {LARGEST_FILE_BYTES >> 30} GiB are not read; cut out a part"
_DECODE_HINT = "voice2face reads WAV, FLAC, Ogg, MP3 and AIFF; convert other formats first"


def load_audio(source: Any, sample_rate: int | None = None) -> Waveform:
    """Read a recording, whatever it comes as.

    Args:
        source: a path; the bytes of a file; a binary file object, a pipe for one; a NumPy array or
            torch tensor of shape ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``
            together with ``sample_rate``; a ``(waveform, sample_rate)`` pair as torchaudio gives
            it; or what Hugging Face's datasets hold: ``{"array": ..., "sampling_rate": ...}``,
            ``{"bytes": ..., "path": ...}``, or torchcodec's ``AudioDecoder``. Integer samples are
            scaled by their type's range; those of 64 bits are refused. Any rate from 4 to 768 kHz
            and up to 64 channels.
        sample_rate: samples a second, for arrays and tensors only.

    Returns:
        ``(samples,)`` float32, mono at 16 kHz.

    Raises:
        AudioNotFoundError: the path does not exist or is a folder.
        AudioDecodeError: the data is no audio, or a FLAC or MP3 that is truncated. Of half a WAV,
            half is heard.
        AudioFormatError: NaN or infinite samples, an absurd rate, length or shape, the rate is
            missing, or the memory does not suffice.
        NoSpeechError: there are no samples.
    """
    with memory_for(source):
        return _load(source, sample_rate)


@contextmanager
def memory_for(recording: Any) -> Iterator[None]:
    """Turn running out of memory while a recording is read into an error that says what to do.

    Raises:
        AudioFormatError: the code inside ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from voice2face.devices import lacks_memory

        if not lacks_memory(error):
            raise
        raise AudioFormatError(
            f"{name_of(recording) or 'the recording'} is too long for this machine's memory; cut "
            "out a part"
        ) from error


def name_of(recording: Any) -> str | None:
    """What a file is called, or a file object says that it is; ``None`` for samples."""
    of_path = isinstance(recording, (str, os.PathLike))
    return os.fspath(recording) if of_path else getattr(recording, "name", None)


def _load(source: Any, sample_rate: int | None) -> Waveform:
    samples, rate, where = _read(source, sample_rate)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioFormatError(
            f"{where}: a sample rate of {rate} Hz is not between {LOWEST_RATE} and "
            f"{HIGHEST_RATE} Hz; check the rate that came with the samples"
        )
    mono = _to_mono(samples, where)
    if len(mono) == 0:
        raise NoSpeechError(
            f"{where}: the recording is empty; record at least one second of speech"
        )
    _check_length(len(mono), rate, where)
    if not np.isfinite(mono).all():
        raise AudioFormatError(
            f"{where}: samples are NaN or infinite; look at what produced the recording"
        )
    if np.abs(mono).max() > LARGEST_SAMPLE:
        raise AudioFormatError(
            f"{where}: floating-point samples should lie in [-1, 1], the largest here is "
            f"{np.abs(mono).max():.3g}; divide by the full scale"
        )
    return resample(mono, round(rate))


def resample(waveform: Waveform, rate: int) -> Waveform:
    """Bring ``(samples,)`` from ``rate`` to 16 kHz, by torchaudio where it can be imported.

    torchaudio lays out 16000 / gcd(rate, 16000) filters, which take gigabytes at odd rates: beyond
    ``MOST_FILTERS``, soxr resamples.
    """
    if rate == SAMPLE_RATE:
        return waveform
    places = SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE)
    if places <= MOST_FILTERS and torchaudio_available():
        return resample_with_torchaudio(waveform, rate)
    return resample_with_soxr(waveform, rate)


@lru_cache(maxsize=1)
def torchaudio_available() -> bool:
    """Whether torchaudio imports here; its wheels refuse beside some builds of torch."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        logger.info("torchaudio cannot be imported (%s): resampling with soxr", error)
        return False
    return True


def resample_with_torchaudio(waveform: Waveform, rate: int) -> Waveform:
    """Windowed-sinc resampling to 16 kHz by torchaudio."""
    import torch
    import torchaudio.functional

    resampled: Waveform = torchaudio.functional.resample(
        torch.from_numpy(waveform), rate, SAMPLE_RATE, lowpass_filter_width=64
    ).numpy()
    return resampled


def resample_with_soxr(waveform: Waveform, rate: int) -> Waveform:
    """Band-limited resampling to 16 kHz by the SoX resampler."""
    import soxr

    resampled: Waveform = soxr.resample(waveform, rate, SAMPLE_RATE).astype(np.float32)
    return resampled


def find_speech(waveform: Waveform) -> Waveform:
    """Cut pauses away by their energy, keeping a short rest around each stretch of speech.

    Args:
        waveform: ``(samples,)`` float32, mono at 16 kHz.

    Returns:
        ``(samples,)`` float32, the stretches of speech joined together.

    Raises:
        NoSpeechError: silent, or less than one second of speech.
    """
    return frames_of(waveform)[speech_frames(waveform)].reshape(-1)


def speech_frames(waveform: Waveform) -> NDArray[np.bool_]:
    """Which frames of a recording ``find_speech`` keeps, ``(frames,)``; it raises the same."""
    frames = frames_of(waveform)
    count = len(frames)
    if count == 0:
        raise NoSpeechError(_too_little(len(waveform) / SAMPLE_RATE))
    energy_db = 10.0 * np.log10(energies(frames) + 1e-20)
    loud_share = min(LOUD_SHARE, LOUD_SECONDS / (count * FRAME_SECONDS))
    loud_db = np.quantile(energy_db, 1.0 - loud_share)
    if loud_db < SILENCE_DB:
        raise NoSpeechError(
            "the recording is silent; check the microphone and that the right track was saved"
        )
    speech = energy_db > max(loud_db - SPEECH_RANGE_DB, SILENCE_DB)
    if speech.sum() * FRAME_SECONDS < LEAST_SPEECH_SECONDS:
        raise NoSpeechError(_too_little(float(speech.sum() * FRAME_SECONDS)))
    rest = round(PAUSE_KEPT_SECONDS / FRAME_SECONDS)
    kept: NDArray[np.bool_] = np.convolve(speech, np.ones(2 * rest + 1), "same") > 0
    return kept


def frames_of(waveform: Waveform) -> Waveform:
    """Cut ``(samples,)`` to ``(frames, 320)`` of ``FRAME_SECONDS`` each; the rest is left off."""
    frame = round(FRAME_SECONDS * SAMPLE_RATE)
    count = len(waveform) // frame
    return waveform[: count * frame].reshape(count, frame)


def energies(frames: Waveform) -> NDArray[np.float64]:
    """Mean power of each frame about its mean, ``(frames,)``: a microphone's offset is no sound."""
    exact = frames.astype(np.float64)
    power = np.einsum("ij,ij->i", exact, exact) / exact.shape[1]
    return np.maximum(power - np.square(exact.mean(1)), 0.0)


def speech_windows(speech: Waveform, *, seconds: float = WINDOW_SECONDS) -> Waveform:
    """Cut speech to windows of equal length.

    Shorter speech is repeated to fill one window. Longer speech gives evenly placed windows that
    cover it, overlapping as little as they can.

    Args:
        speech: ``(samples,)`` float32 at 16 kHz, at least one sample.
        seconds: length of a window.

    Returns:
        ``(windows, seconds * 16000)`` float32.
    """
    length = round(seconds * SAMPLE_RATE)
    if len(speech) <= length:
        return np.resize(speech, (1, length))
    count = -(-len(speech) // length)
    starts = np.linspace(0, len(speech) - length, count).round().astype(int)
    return np.stack([speech[start : start + length] for start in starts])


def _too_little(seconds: float) -> str:
    return (
        f"only {seconds:.2f} s of speech were found; "
        f"at least {LEAST_SPEECH_SECONDS:.0f} s is needed, and 6 s or more is better"
    )


def _read(source: Any, sample_rate: int | None) -> tuple[NDArray[Any], float, str]:
    """Samples, rate and a name for error messages."""
    if sample_rate is None and isinstance(source, (list, tuple)) and len(source) > 0:
        kinds = (str, os.PathLike, bytes, Mapping, tuple)
        if all(isinstance(one, kinds) for one in source):
            raise AudioFormatError("one recording is expected; pipe.map takes several")
    if isinstance(source, Mapping):
        if "array" in source and "sampling_rate" in source:
            source, sample_rate = source["array"], source["sampling_rate"]
        elif source.get("bytes") is not None or source.get("path") is not None:
            source = source["path"] if source.get("bytes") is None else source["bytes"]
        else:
            raise AudioFormatError(
                "a dictionary of audio needs 'array' and 'sampling_rate', or 'bytes' or 'path'; "
                f"this one has the keys {sorted(map(str, source))}"
            )
    elif hasattr(source, "get_all_samples"):
        source, sample_rate = _decoded_by(source)
    elif isinstance(source, tuple):
        if len(source) != 2:
            raise AudioFormatError(
                f"a pair (waveform, sample_rate) is expected, not a tuple of {len(source)}"
            )
        source, sample_rate = source
    if isinstance(source, (str, os.PathLike)):
        return _read_path(expanded(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "the given bytes")
    if hasattr(source, "read"):
        where = str(getattr(source, "name", "the given file object"))
        if isinstance(source, io.TextIOBase):
            raise AudioFormatError(f"{where} is open as text; open it as bytes, with mode 'rb'")
        return _decode(source, where)
    try:
        if hasattr(source, "detach") and hasattr(source, "cpu"):
            source = source.detach().cpu()
            source = (source.float() if str(source.dtype) == "torch.bfloat16" else source).numpy()
        if isinstance(source, (list, np.ndarray)):
            if sample_rate is None:
                raise AudioFormatError(
                    "an array of samples needs its sample_rate (samples a second)"
                )
            return _scaled(np.asarray(source)), float(sample_rate), "the given samples"
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise AudioFormatError(f"the given samples cannot be used: {error}") from error
    raise AudioFormatError(
        f"audio cannot be read from {type(source).__name__}; give a path, bytes, a file object, "
        "an array with its sample_rate, a (waveform, sample_rate) pair or a dictionary"
    )


def _decoded_by(decoder: Any) -> tuple[Any, Any]:
    """What torchcodec's ``AudioDecoder``, or what behaves like it, makes of its file."""
    try:
        decoded = decoder.get_all_samples()
    except MemoryError:
        raise
    except Exception as error:  # torchcodec passes on whatever FFmpeg finds
        raise AudioDecodeError(f"the decoder cannot read its audio: {error}") from error
    return decoded.data, decoded.sample_rate


def _read_path(path: Path) -> tuple[NDArray[Any], float, str]:
    try:
        if path.is_dir():
            raise AudioNotFoundError(f"{path} is a folder; name one audio file in it")
        if not path.exists():
            of_web = str(path).startswith(("http:/", "https:/"))
            advice = "download it first" if of_web else "check the path"
            raise AudioNotFoundError(f"{path} does not exist; {advice}")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise AudioFormatError(f"{path}: {_TOO_LARGE}")
        with path.open("rb") as file:
            return _decode(file, str(path))
    except OSError as error:
        raise AudioNotFoundError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(file: IO[bytes], where: str) -> tuple[NDArray[Any], float, str]:
    import soundfile

    file = _seekable(file, where)
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.channels > MOST_CHANNELS:
                raise AudioFormatError(
                    f"{where}: {sound.channels} channels are over {MOST_CHANNELS}"
                )
            expected = sound.frames
            if expected >= UNKNOWN_FRAMES:
                raise AudioDecodeError(
                    f"{where}: its header does not say how long it is, as of a stream that was "
                    "not finished; save it again as FLAC or WAV"
                )
            _check_length(expected, sound.samplerate, where)
            parts = []
            # SoundFile.blocks() would go on to the length that the header claims
            while len(block := sound.read(DECODED_AT_ONCE, dtype="float32", always_2d=True)):
                parts.append(block[:, 0] if sound.channels == 1 else block.mean(1))
            rate = float(sound.samplerate)
            # libsndfile reads no further than it guesses where an MP3 lacks the Xing header
            if sound.format == "MP3" and _goes_on(file):
                raise AudioDecodeError(
                    f"{where}: there is more than its header says, as in a stream or in files that "
                    "were joined; save it again as FLAC or WAV"
                )
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", error)  # without the file's name once more
        raise AudioDecodeError(
            f"{where}: not audio that can be decoded, or cut off ({reason}); {_DECODE_HINT}"
        ) from error
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(samples) < expected:
        raise AudioDecodeError(
            f"{where}: truncated, or its header misstates its length: {len(samples)} of "
            f"{expected} samples are there; get the whole file, or save it again as FLAC or WAV"
        )
    return samples, rate, where


def _seekable(file: IO[bytes], where: str) -> IO[bytes]:
    """The file, or what a pipe or a connection holds, as libsndfile goes back and forth."""
    if not hasattr(file, "seekable") or file.seekable():
        return file
    data = file.read(LARGEST_FILE_BYTES + 1)
    if len(data) > LARGEST_FILE_BYTES:
        raise AudioFormatError(f"{where}: {_TOO_LARGE}")
    return io.BytesIO(data)


def _goes_on(file: IO[bytes]) -> bool:
    """Whether another frame of an MP3 follows, and not a tag or the end."""
    sync = file.read(2)
    return len(sync) == 2 and sync[0] == 0xFF and sync[1] >= 0xE0


def _check_length(count: int, rate: float, where: str) -> None:
    if count > min(LONGEST_SECONDS * rate, MOST_SAMPLES):
        raise AudioFormatError(
            f"{where}: {count / rate / 3600:.1f} hours at {rate:.0f} Hz are more than are read "
            f"({LONGEST_SECONDS / 3600:.0f} hours, {MOST_SAMPLES >> 20} million samples); "
            "cut out a part with one speaker"
        )


def _scaled(samples: NDArray[Any]) -> NDArray[Any]:
    """Integers to [-1, 1) by their type's range; unsigned ones are centred first.

    Lists of integers become integers of 64 bits, whose range says nothing.
    """
    if samples.dtype.kind in "ui" and samples.dtype.itemsize == 8:
        raise ValueError("integers of 64 bits; give int16, int32, or floats in [-1, 1]")
    if samples.dtype.kind == "u":
        half = float(np.iinfo(samples.dtype).max // 2 + 1)
        return (samples.astype(np.float64) - half) / half
    if samples.dtype.kind == "i":
        return samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    if samples.dtype.kind != "f":
        raise ValueError(f"samples of type {samples.dtype}")
    return samples


def _to_mono(samples: NDArray[Any], where: str) -> Waveform:
    """Average channels; the longer axis of a two-dimensional array is time."""
    if samples.ndim not in (1, 2):
        raise AudioFormatError(
            f"{where}: samples of shape {samples.shape}; give (samples,) or (channels, samples)"
        )
    if samples.ndim == 2:
        channel_axis = 0 if samples.shape[0] <= samples.shape[1] else 1
        if samples.size and samples.shape[channel_axis] > MOST_CHANNELS:
            raise AudioFormatError(
                f"{where}: samples of shape {samples.shape} have over {MOST_CHANNELS} channels"
            )
        samples = samples.mean(channel_axis) if samples.size else samples.reshape(-1)
    return np.ascontiguousarray(samples, dtype=np.float32)
