"""What is wrong with a recording that can be used all the same.

The thresholds were set on people who took no part in any training, so that hardly a clean recording
is complained of. Noise 10 dB below the speech and clipping at half the peak are noticed nearly
always, and two people nearly always if they are a woman and a man, mostly if they are of one sex.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from voice2face.audio.voice_activity import energies, frames_of
from voice2face.audio.waveform import Waveform

SMALLEST_RANGE_DB = 18.0  # between the loud and the quiet frames of a clean recording
MOST_AT_PEAK = 2e-4  # share of a recording's samples that lie at its peak

CLIPPED = "clipped: the recording level was too high"
NOISY = "very noisy: the portrait may follow the noise"
SEVERAL_SPEAKERS = "several speakers? parts of the recording sound like different people"


def is_clipped(waveform: Waveform) -> bool:
    """Whether the loudest samples of ``(samples,)`` were cut off."""
    level = np.abs(waveform)
    return bool((level >= 0.999 * level.max()).mean() > MOST_AT_PEAK)


def is_noisy(waveform: Waveform) -> bool:
    """Whether the quiet moments of ``(samples,)``, mono at 16 kHz, are nearly as loud as speech."""
    energy_db = 10.0 * np.log10(energies(frames_of(waveform)) + 1e-12)
    quiet, loud = np.percentile(energy_db, [5, 95])
    return bool(loud - quiet < SMALLEST_RANGE_DB)


def least_likeness_of(speakers: Tensor) -> Tensor:
    """Cosine of those two windows that sound least like one person, a scalar.

    Args:
        speakers: what tells speakers apart in each window, ``(windows, dim)``, unit length.
    """
    return (speakers @ speakers.T).min()
