"""What speech encoders have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from voice2face.models.attribute_heads import AttributeHeads
from voice2face.models.network import DIMENSION, Ranges

SPEECH_RANGES: Ranges = {
    "sample_rate": (8_000, 48_000),
    "window_seconds": (0.5, 30.0),
    "embedding_dim": DIMENSION,
    "dropout": (0.0, 0.9),
}


class WindowedSpeechEncoder(AttributeHeads):
    """An encoder of windows of speech: their length, and the heads.

    Attributes:
        least_likeness: cosine of ``SpeechEncoding.speaker`` that two windows of one person exceed.
    """

    config: Any
    least_likeness: ClassVar[float] = 0.8

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.config.sample_rate * self.config.window_seconds)
