"""Recordings, as ``Voice2FacePipeline.map`` takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from voice2face.errors import AudioError, SettingError
from voice2face.listening import Speech, Voice, speech_of


def check_several(given: object) -> None:
    """Refuse what is no iterable of recordings: most of all, one recording.

    Raises:
        SettingError: says what to give.
    """
    if isinstance(given, Voice):
        raise SettingError("map takes recordings; pipe.draw([voice], [seed]) draws what was heard")
    if hasattr(given, "columns"):
        raise SettingError(
            f"map takes several recordings, not a {type(given).__name__}; give the column that "
            "holds them: table['path']"
        )
    if not isinstance(given, Iterable) or _is_one_recording(given):
        raise SettingError("map takes several recordings; give a list: [recording]")


def _is_one_recording(given: object) -> bool:
    if isinstance(given, tuple) and len(given) == 2 and any(isinstance(x, Real) for x in given):
        return True  # samples with their rate
    if isinstance(given, np.ndarray):
        return given.dtype.kind in "iuf"  # and not paths
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Tensor, Speech)
    return isinstance(given, kinds) or hasattr(given, "read")


def read_speech(recording: Any) -> Speech | AudioError:
    """The speech of a recording, or why there is none; what this returned stays as it is."""
    if isinstance(recording, AudioError):
        return recording
    try:
        return speech_of(recording)
    except AudioError as error:
        return error


def unshared(recording: Any) -> Any:
    """A recording to be read later, whatever becomes in the meantime of the one that is given.

    Samples are copied, as whoever gave them may use the buffer again. File objects are read at
    once, as they may be closed.
    """
    if hasattr(recording, "read"):
        return read_speech(recording)
    if isinstance(recording, tuple) and not isinstance(recording, (Speech, Voice)):
        return tuple(_copied(part) for part in recording)
    if isinstance(recording, Mapping):
        return {key: _copied(part) for key, part in recording.items()}
    return _copied(recording)


def _copied(samples: Any) -> Any:
    if isinstance(samples, Tensor):
        return samples.detach().clone()
    if isinstance(samples, (np.ndarray, bytearray)):
        return samples.copy()
    if isinstance(samples, list):
        return [_copied(part) for part in samples]
    return bytes(samples) if isinstance(samples, memoryview) else samples
