"""How near portraits come to the true faces, and whether the true face is found among others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Nearness(NamedTuple):
    """Mean distances between features of portraits and of true faces, times 100 but for L1.

    Attributes:
        cosine: 100 (1 - cosine similarity).
        l1: sum of absolute differences.
        l2: 100 times the root of the summed squared differences.
    """

    cosine: float
    l1: float
    l2: float


def nearness(portraits: np.ndarray, faces: np.ndarray) -> Nearness:
    """Distances row by row between unit-length features ``(N, dim)``."""
    difference = portraits - faces
    return Nearness(
        float(100 * (1 - (portraits * faces).sum(1)).mean()),
        float(np.abs(difference).sum(1).mean()),
        float(100 * np.sqrt(np.square(difference).sum(1)).mean()),
    )


def ranks(portraits: np.ndarray, faces: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Rank of each portrait's own face among all faces, or among those of its group.

    Ties count half, so that the same portrait for everybody ranks in the middle.

    Args:
        portraits: ``(N, dim)`` unit-length features.
        faces: ``(N, dim)``; row k is the true face of portrait k.
        groups: ``(N,)`` labels; only faces of the same label compete.

    Returns:
        ``(N,)`` from 0 (first) to 1 (last), 0.5 by chance; NaN where nobody competes.
    """
    likeness = portraits @ faces.T
    own = np.diagonal(likeness)[:, None]
    rivals = ~np.eye(len(faces), dtype=bool)
    if groups is not None:
        rivals &= groups[:, None] == groups[None]
    before = ((likeness > own) & rivals).sum(1) + 0.5 * ((likeness == own) & rivals).sum(1)
    counts = rivals.sum(1)
    return np.where(counts > 0, before / np.maximum(counts, 1), np.nan)


def recalled(portraits: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Whether each portrait's own face is among the ``count`` most alike; R@K is the mean."""
    likeness = portraits @ faces.T
    own = np.diagonal(likeness)[:, None]
    return (likeness > own).sum(1) < count
