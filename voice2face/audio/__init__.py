"""Recordings: every way in ends as mono float32 at 16 kHz, in which speech is found."""

from voice2face.audio.loading import load_audio
from voice2face.audio.waveform import SAMPLE_RATE

__all__ = ["SAMPLE_RATE", "load_audio"]
