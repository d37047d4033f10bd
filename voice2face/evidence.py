"""What a recording told: the likely sex and age of its speaker, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


class RetrievedFace(NamedTuple):
    """An entry of the retriever's that a portrait was drawn from.

    Attributes:
        id: the entry's name.
        score: cosine of its voice's embedding to the recording's, -1 to 1.
    """

    id: str
    score: float


@dataclass(frozen=True)
class Evidence:
    """What the recording told, before anything was invented.

    Attributes:
        speech_seconds: length of the speech found, in seconds.
        windows: six-second windows that were averaged.
        male_probability: 0 … 1; how far the voice sounds like a man's.
        age_probabilities: 0 … 1 for each decade, ``"20-29"`` to ``"70+"``, summing to one.
        warnings: what is wrong with the recording, in words: clipped, noisy, of a telephone,
            several speakers.
        retrieved: the faces a method with a retriever drew from, nearest voice first.
    """

    speech_seconds: float
    windows: int
    male_probability: float
    age_probabilities: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    retrieved: tuple[RetrievedFace, ...] = ()

    @property
    def sex(self) -> str:
        """The likelier of ``"female"`` and ``"male"``."""
        return "male" if self.male_probability >= 0.5 else "female"

    @property
    def age(self) -> str:
        """The likeliest decade."""
        return max(self.age_probabilities, key=self.age_probabilities.__getitem__)

    def as_dict(self) -> dict[str, Any]:
        """All of it, sex and age too, as JSON can hold it."""
        return {
            "sex": self.sex,
            "age": self.age,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "age_probabilities": dict(self.age_probabilities),
            "warnings": list(self.warnings),
            "retrieved": [face._asdict() for face in self.retrieved],
        }
