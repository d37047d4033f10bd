"""Every way in ends as mono float32 at 16 kHz."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voice2face.argument_checks import check_number
from voice2face.audio.channels import to_mono
from voice2face.audio.decoding import decode, decode_path
from voice2face.audio.limits import MOST_CHANNELS, check_length
from voice2face.audio.resampling import resample
from voice2face.audio.waveform import Waveform
from voice2face.errors import (
    AudioDecodeError,
    AudioFormatError,
    AudioNotFoundError,
    NoSpeechError,
)
from voice2face.paths import expanded

LOWEST_RATE = 4_000  # samples a second
HIGHEST_RATE = 768_000  # samples a second
LONGEST_PATH = 32_767  # characters, of Windows; others take fewer
LARGEST_SAMPLE = 1e6  # floating-point samples beyond this are no audio
LARGEST_OF_16_BITS = 1 << 15  # as good as silent among integers of 32 bits


def load_audio(
    source: Any, sample_rate: int | None = None, *, max_seconds: float | None = None
) -> Waveform:
    """Read a recording, whatever it comes as.

    Args:
        source: a path; the bytes of a file; a binary file object, a pipe for one, read from where
            it is, or from its beginning where it is at its end; a NumPy array or torch tensor of
            shape ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)`` together with
            ``sample_rate``; a ``(waveform, sample_rate)`` pair as torchaudio gives it, or the other
            way round, as SciPy and Gradio do; or what Hugging Face's datasets hold:
            ``{"array": ..., "sampling_rate": ...}``, ``{"bytes": ..., "path": ...}``, or
            torchcodec's ``AudioDecoder``. Integer samples are scaled by their type's range; those
            of 64 bits are refused, and so are those of int32 that may be int16's. Any rate from 4
            to 768 kHz and up to 64 channels, which are averaged; where they cancel each other out,
            the loudest is taken.
        sample_rate: samples a second, for arrays and tensors only: files say their own.
        max_seconds: the most that is taken, of what strangers send say. A file that is longer is
            refused before it is decoded, as compressed hours are small; one with more samples than
            so many seconds have at 48 kHz in stereo, too.

    Returns:
        ``(samples,)`` float32, mono at 16 kHz; a new array.

    Raises:
        AudioNotFoundError: the path does not exist or is a folder.
        AudioDecodeError: the data is no audio, or a FLAC or MP3 that is truncated, or a file
            object that cannot be read. Of half a WAV, half is heard.
        AudioFormatError: NaN or infinite samples, int32 within the range of int16, an absurd rate,
            length or shape, the rate is missing or contradicts what came with the source, or the
            memory does not suffice.
        NoSpeechError: there are no samples.
        SettingError: ``max_seconds`` is no number, or a negative one.
    """
    if max_seconds is not None:
        max_seconds = check_number("max_seconds", max_seconds, math.inf)
    with memory_for(source):
        return _load(source, sample_rate, max_seconds)


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
    """What a file is called, or a file object says that it is; ``None`` where that is no path."""
    given = isinstance(recording, (str, os.PathLike))
    name = recording if given else getattr(recording, "name", None)
    return os.fsdecode(name) if isinstance(name, (str, os.PathLike)) else None


def _load(source: Any, sample_rate: int | None, max_seconds: float | None) -> Waveform:
    samples, rate, where = _read(source, sample_rate, max_seconds)
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
    check_length(len(mono), rate, where, max_seconds)
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


def _read(
    source: Any, sample_rate: int | None, max_seconds: float | None
) -> tuple[NDArray[Any], float, str]:
    """Samples, rate and a name for error messages."""
    if sample_rate is None and isinstance(source, (list, tuple)) and len(source) > 0:
        kinds = (str, os.PathLike, bytes, Mapping, tuple)
        if all(isinstance(one, kinds) for one in source):
            raise AudioFormatError("one recording is expected; pipe.map takes several")
    source, own_rate = _unpacked(source)
    path_or_bytes = (str, os.PathLike, bytes, bytearray, memoryview)
    if isinstance(source, path_or_bytes) or hasattr(source, "read"):
        if sample_rate is not None or own_rate is not None:
            raise AudioFormatError(
                f"{name_of(source) or 'the recording'}: a file says its own sample rate; leave "
                "sample_rate out (raw samples are given as an array)"
            )
        return _of_file(source, max_seconds)
    try:
        if hasattr(source, "detach") and hasattr(source, "cpu"):
            source = source.detach().cpu()
            source = (source.float() if str(source.dtype) == "torch.bfloat16" else source).numpy()
        if isinstance(source, (list, np.ndarray)):
            rate = _one_rate(own_rate, sample_rate)
            return _scaled(np.asarray(source)), rate, "the given samples"
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise AudioFormatError(f"the given samples cannot be used: {error}") from error
    raise AudioFormatError(
        f"audio cannot be read from {type(source).__name__}; give a path, bytes, a file object, "
        "an array with its sample_rate, a (waveform, sample_rate) pair or a dictionary"
    )


def _unpacked(source: Any) -> tuple[Any, Any]:
    """A file or samples, and the rate that came with them, ``None`` where none did."""
    if isinstance(source, Mapping):
        if "array" in source and "sampling_rate" in source:
            return source["array"], source["sampling_rate"]
        for key in ("bytes", "path"):
            if source.get(key) is not None:
                return source[key], None
        raise AudioFormatError(
            "a dictionary of audio needs 'array' and 'sampling_rate', or 'bytes' or 'path'; "
            f"this one has the keys {sorted(map(str, source))}"
        )
    if hasattr(source, "get_all_samples"):
        return _decoded_by(source)
    if isinstance(source, tuple):
        if len(source) != 2:
            raise AudioFormatError(
                f"a pair (waveform, sample_rate) is expected, not a tuple of {len(source)}"
            )
        first, second = source
        return (second, first) if isinstance(first, Real) else (first, second)
    return source, None


def _of_file(source: Any, max_seconds: float | None) -> tuple[NDArray[Any], float, str]:
    if isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):
            raise AudioNotFoundError("an empty name; name a recording")
        if len(os.fspath(source)) > LONGEST_PATH:
            raise AudioNotFoundError(
                f"a text of {len(os.fspath(source))} characters is no path; of base64, give the "
                "bytes: base64.b64decode(text)"
            )
        path = expanded(source)
        return *decode_path(path, max_seconds), str(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        where = "the given bytes"
        return *decode(io.BytesIO(source), where, max_seconds), where
    where = name_of(source) or "the given file object"
    return *decode(source, where, max_seconds), where


def _one_rate(own: Any, given: Any) -> float:
    """The rate that came with the samples, or the one given with them."""
    if own is None and given is None:
        raise AudioFormatError("an array of samples needs its sample_rate (samples a second)")
    if own is None or given is None:
        return float(given if own is None else own)
    if float(own) != float(given):
        raise AudioFormatError(
            f"sample_rate={given} contradicts {own}, which came with the samples; leave it out"
        )
    return float(own)


def _decoded_by(decoder: Any) -> tuple[Any, Any]:
    """What torchcodec's ``AudioDecoder``, or what behaves like it, makes of its file."""
    try:
        decoded = decoder.get_all_samples()
    except MemoryError:
        raise
    except Exception as error:  # torchcodec passes on whatever FFmpeg finds
        raise AudioDecodeError(f"the decoder cannot read its audio: {error}") from error
    return decoded.data, decoded.sample_rate


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
        if samples.dtype.itemsize == 4 and samples.any():
            largest = max(int(samples.max()), -int(samples.min()))
            if largest <= LARGEST_OF_16_BITS:
                raise ValueError(
                    f"integers of 32 bits up to {2**31 - 1} are expected, the largest here is "
                    f"{largest}; if these are 16-bit samples, give them as int16"
                )
        return samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    if samples.dtype.kind != "f":
        raise ValueError(f"samples of type {samples.dtype}")
    return samples


def _to_mono(samples: NDArray[Any], where: str) -> Waveform:
    """Bring channels to one; the longer axis of a two-dimensional array is time."""
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
        if samples.size:
            channels = samples if channel_axis == 0 else samples.T
            samples = to_mono(channels, samples.mean(channel_axis))
        else:
            samples = samples.reshape(-1)
    return np.ascontiguousarray(samples, dtype=np.float32)
