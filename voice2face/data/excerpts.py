"""Excerpts of recordings, all of one length."""

from __future__ import annotations

import numpy as np


def random_crop(waveform: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A float32 excerpt of exactly ``samples``; short recordings are repeated."""
    if len(waveform) < samples:
        waveform = np.tile(waveform, -(-samples // len(waveform)))
    start = int(rng.integers(len(waveform) - samples + 1))
    return waveform[start : start + samples].astype(np.float32) / 32768.0
