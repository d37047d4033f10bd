"""What is wrong with a recording that can be used all the same.

The thresholds were set on people who took no part in any training, so that hardly a clean recording
is complained of. Noise 10 dB below the speech and clipping at half the peak are noticed nearly
always, and two people nearly always if they are a woman and a man, mostly if they are of one sex.
A telephone's band (300 to 3400 Hz) is mostly noticed where its lower edge is steep, where women are
taken for men more often. Sound at 8 kHz that has its deep tones is heard as well as other sound.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from voice2face.audio.voice_activity import energies, frames_of
from voice2face.audio.waveform import SAMPLE_RATE, Waveform

SMALLEST_RANGE_DB = 18.0  # between the loud and the quiet frames of a clean recording
MOST_AT_PEAK = 2e-4  # share of a recording's samples that lie at its peak
SPECTRUM_SAMPLES = 512
SPECTRA_AT_ONCE = 1 << 12
DEEP_HZ, MIDDLE_HZ, HIGH_HZ = (90, 220), (400, 3000), (4300, 7500)
LEAST_DEEP_DB = -15.0  # of the strongest deep tones, beside those of the middle
LEAST_HIGH_DB = -55.0  # of the high ones

CLIPPED = "clipped: the recording level was too high"
NOISY = "very noisy: the portrait may follow the noise"
TELEPHONE = "a telephone's narrow band: without deep tones, a woman may be taken for a man"
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


def is_of_telephone(speech: Waveform) -> bool:
    """Whether speech, ``(samples,)`` at 16 kHz, lacks deep tones as well as high ones."""
    count = len(speech) // SPECTRUM_SAMPLES
    frames = speech[: count * SPECTRUM_SAMPLES].reshape(count, SPECTRUM_SAMPLES)
    window = np.hanning(SPECTRUM_SAMPLES).astype(np.float32)
    power = np.zeros(SPECTRUM_SAMPLES // 2 + 1)
    for start in range(0, count, SPECTRA_AT_ONCE):
        spectra = np.fft.rfft(frames[start : start + SPECTRA_AT_ONCE] * window)
        power += np.square(np.abs(spectra)).sum(0)
    hertz = np.fft.rfftfreq(SPECTRUM_SAMPLES, 1.0 / SAMPLE_RATE)
    deep, middle, high = (
        10.0 * np.log10(power[(hertz >= low) & (hertz <= top)].max() + 1e-20)
        for low, top in (DEEP_HZ, MIDDLE_HZ, HIGH_HZ)
    )
    return bool(deep - middle < LEAST_DEEP_DB and high - middle < LEAST_HIGH_DB)


def least_likeness_of(speakers: Tensor) -> Tensor:
    """Cosine of those two windows that sound least like one person, a scalar.

    Args:
        speakers: what tells speakers apart in each window, ``(windows, dim)``, unit length.
    """
    return (speakers @ speakers.T).min()
