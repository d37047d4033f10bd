"""Shares of agreement with confidence intervals, resampled by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voice2face.data.tables import UNKNOWN

RESAMPLES = 1000


class Share(NamedTuple):
    """A share with its 95 % interval and the number of cases.

    The interval is that of the owners' draws; where all entries agree, which tells draws nothing,
    it is the exact one (Clopper and Pearson 1934) of as many independent cases as there are owners.
    """

    value: float
    low: float
    high: float
    cases: int

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%}, n={self.cases})"


class Difference(NamedTuple):
    """A difference of two shares over the same people, with its 95 % interval.

    The interval is that of people's draws; where it is the same for all people, it is as far around
    it as one of them may be without showing in that many (Clopper and Pearson 1934).
    """

    value: float
    low: float
    high: float
    people: int

    def __str__(self) -> str:
        return f"{self.value:+.1%} ({self.low:+.1%} to {self.high:+.1%}, n={self.people})"


def bootstrap_share(right: np.ndarray, owners: Sequence[str] | np.ndarray) -> Share:
    """Share of true entries, its interval found by drawing owners with replacement.

    Args:
        right: ``(N,)`` boolean, or what share of each entry counts, from 0 to 1.
        owners: the speaker of each entry; entries of one speaker are drawn together.

    Raises:
        ValueError: there are no entries.
    """
    if len(right) == 0:
        raise ValueError("there is nothing to take a share of")
    names, index = np.unique(np.asarray(owners), return_inverse=True)
    hits = np.bincount(index, weights=right)
    counts = np.bincount(index)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    shares = hits[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    least = 0.025 ** (1 / len(names))
    if (right == 1).all():
        low, high = least, 1.0
    elif not right.any():
        low, high = 0.0, 1.0 - least
    return Share(float(right.mean()), float(low), float(high), len(right))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Difference | None:
    """Mean of ours minus theirs, its interval found by drawing people with replacement.

    Args:
        ours: ``(N,)``, a number from 0 to 1 for each person; NaN where there is none.
        theirs: ``(N,)``, of the same people.

    Returns:
        Over the people who have both numbers; ``None`` where nobody has.
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    if count == 0:
        return None
    value = float(differences.mean())
    if (differences == differences[0]).all():
        unseen = 1.0 - 0.025 ** (1 / count)
        return Difference(value, max(value - unseen, -1.0), min(value + unseen, 1.0), count)
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    low, high = np.percentile(differences[drawn].mean(1), [2.5, 97.5])
    return Difference(value, float(low), float(high), count)


def share_of_known(
    right: np.ndarray, labels: np.ndarray, owners: Sequence[str] | np.ndarray
) -> Share | None:
    """As ``bootstrap_share``, of the entries whose label is known; ``None`` where none is."""
    known = labels != UNKNOWN
    return bootstrap_share(right[known], np.asarray(owners)[known]) if known.any() else None


def within_one_decade(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Whether a decade index is the true one or its neighbour."""
    return np.abs(said - true) <= 1
