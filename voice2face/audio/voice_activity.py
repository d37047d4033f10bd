"""Speech is found by its energy, and cut to windows of equal length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voice2face.audio.waveform import SAMPLE_RATE, Waveform
from voice2face.errors import NoSpeechError

WINDOW_SECONDS = 6.0
LEAST_SPEECH_SECONDS = 1.0
LOUD_SHARE = 0.05  # of the frames, at least, are speech
LOUD_SECONDS = 3.0  # are speech in a long recording, where that share would be more
FRAME_SECONDS = 0.02  # energy is measured over frames of this length
SPEECH_RANGE_DB = 35.0  # frames this far below the loud frames are pauses
SILENCE_DB = -70.0  # recordings whose loud frames stay below this are silent
PAUSE_KEPT_SECONDS = 0.2  # of every pause around speech
# A constant offset within this share of the speech's RMS is left: hardly a microphone has more, and
# the speech encoders hear nearly the same voice.
LARGEST_OFFSET = 0.5


def speech_frames(waveform: Waveform) -> NDArray[np.bool_]:
    """Which frames of a recording are speech, by their energy, or the short rest around it.

    Args:
        waveform: ``(samples,)`` float32, mono at 16 kHz.

    Returns:
        ``(frames,)``, of ``FRAME_SECONDS`` each; ``join_frames`` cuts the others away.

    Raises:
        NoSpeechError: silent, or less than one second of speech.
    """
    frames = frames_of(waveform)
    count = len(frames)
    if count == 0:
        raise NoSpeechError(_too_little(len(waveform) / SAMPLE_RATE))
    energy_db = 10.0 * np.log10(energies(frames) + 1e-20)
    loud_share = min(LOUD_SHARE, LOUD_SECONDS / (count * FRAME_SECONDS))
    loud_db = np.quantile(energy_db, 1.0 - loud_share)
    if loud_db < SILENCE_DB:
        raise NoSpeechError(
            "the recording is silent, or far too quiet; check the microphone and that the right "
            "track was saved"
        )
    speech = energy_db > max(loud_db - SPEECH_RANGE_DB, SILENCE_DB)
    if speech.sum() * FRAME_SECONDS < LEAST_SPEECH_SECONDS:
        raise NoSpeechError(_too_little(float(speech.sum() * FRAME_SECONDS)))
    rest = round(PAUSE_KEPT_SECONDS / FRAME_SECONDS)
    kept: NDArray[np.bool_] = np.convolve(speech, np.ones(2 * rest + 1), "same") > 0
    return kept


def join_frames(waveform: Waveform, kept: NDArray[np.bool_]) -> Waveform:
    """The frames of a recording that are kept, joined together, ``(samples,)``.

    An offset that would change the voice is taken off.

    Args:
        waveform: ``(samples,)``, mono at 16 kHz.
        kept: which of its frames, ``(frames,)``, as ``speech_frames`` says.
    """
    speech = frames_of(waveform)[kept].reshape(-1)
    offset = speech.mean(dtype=np.float64)
    if abs(offset) > LARGEST_OFFSET * speech.std(dtype=np.float64):
        return speech - np.float32(offset)
    return speech


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
