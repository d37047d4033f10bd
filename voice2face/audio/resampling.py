"""Resampling to 16 kHz, by torchaudio or by the SoX resampler."""

from __future__ import annotations

import logging
import math
from functools import lru_cache

import numpy as np

from voice2face.audio.waveform import SAMPLE_RATE, Waveform

logger = logging.getLogger("voice2face")

MOST_FILTERS = 1000  # that torchaudio may lay out


def resample(waveform: Waveform, rate: int) -> Waveform:
    """Bring ``(samples,)`` from ``rate`` to 16 kHz, in a new array.

    torchaudio does it where it can be imported. It lays out 16000 / gcd(rate, 16000) filters, which
    take gigabytes at odd rates: beyond ``MOST_FILTERS``, soxr resamples.
    """
    if rate == SAMPLE_RATE:
        return waveform.copy()
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
