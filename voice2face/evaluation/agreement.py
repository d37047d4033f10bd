"""Shares of agreement with confidence intervals, resampled by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voice2face.training.tables import UNKNOWN

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


def share_of_known(
    right: np.ndarray, labels: np.ndarray, owners: Sequence[str] | np.ndarray
) -> Share | None:
    """As ``bootstrap_share``, of the entries whose label is known; ``None`` where none is."""
    known = labels != UNKNOWN
    return bootstrap_share(right[known], np.asarray(owners)[known]) if known.any() else None


def within_one_decade(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Whether a decade index is the true one or its neighbour."""
    return np.abs(said - true) <= 1
