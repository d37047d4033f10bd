"""How near a set of pictures comes to real ones, over features that are given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from voice2face.errors import SettingError

SUBSETS, SUBSET_SIZE = 100, 200
NEIGHBOUR = 3  # whose distance is the radius around a picture


class Estimate(NamedTuple):
    """A mean over random subsets with its standard deviation over them."""

    value: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.deviation:.3f}"


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance between normal distributions fitted to features (Heusel et al. 2017).

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)``.

    Args:
        one: ``(N, dim)`` features.
        other: ``(M, dim)`` features.

    Raises:
        SettingError: one of them is of a single picture, which has no spread.
    """
    if min(len(one), len(other)) < 2:
        raise SettingError("a Fréchet distance is of two pictures or more; measure more of them")
    difference = one.mean(0) - other.mean(0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0.0)).sum()
    distance = difference @ difference + np.trace(first) + np.trace(second) - 2.0 * shared
    return float(max(0.0, distance))


def kernel_distance(one: np.ndarray, other: np.ndarray) -> Estimate | None:
    """Unbiased squared maximum mean discrepancy, cubic kernel (Binkowski et al. 2018), times 1000.

    The mean over random subsets, of no more than half of either set, so that subsets differ.

    Args:
        one: ``(N, dim)`` features.
        other: ``(M, dim)`` features.

    Returns:
        ``None`` of fewer than four pictures, of which no half holds a pair.
    """
    size = min(SUBSET_SIZE, len(one) // 2, len(other) // 2)
    if size < 2:
        return None
    rng = np.random.default_rng(0)
    dim = one.shape[1]
    values = []
    for _ in range(SUBSETS):
        x = one[rng.choice(len(one), size, replace=False)]
        y = other[rng.choice(len(other), size, replace=False)]
        xx, yy, xy = ((a @ b.T / dim + 1.0) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        pairs = size * (size - 1)
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / pairs
        values.append(within - 2.0 * xy.mean())
    return Estimate(float(1000 * np.mean(values)), float(1000 * np.std(values)))


def precision_and_recall(real: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """Shares of made pictures near real ones and of real near made (Kynkaanniemi et al. 2019).

    Args:
        real: ``(N, dim)`` features.
        made: ``(M, dim)`` features.
    """
    return float(covered_by(made, real).mean()), float(covered_by(real, made).mean())


def covered_by(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which points lie in the manifold of others: no farther from one than its neighbours do.

    Args:
        points: ``(N, dim)`` features.
        others: ``(M, dim)`` features.

    Returns:
        ``(N,)`` boolean.
    """
    nearest = min(NEIGHBOUR, len(others) - 1)
    radius = np.sort(_distances(others, others), 1)[:, nearest]
    return np.asarray((_distances(points, others) <= radius[None]).any(1))


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1)[None] - 2.0 * one @ other.T
    return np.sqrt(squares.clip(0.0))
