"""What speech encoders have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from voice2face.models.attribute_heads import AttributeHeads


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
