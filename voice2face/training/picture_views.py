"""How a decoder's pictures are looked at: in part, reduced, or for their colours alone."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

VIEW = 128
COARSE = 24


def coarse_difference(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of pictures ``(B, 3, H, W)`` reduced to ``COARSE`` pixels."""
    return (F.adaptive_avg_pool2d(one, COARSE) - F.adaptive_avg_pool2d(other, COARSE)).abs().mean()


def random_views(rng: np.random.Generator, *pictures: Tensor) -> list[Tensor]:
    """Batches of pictures as ``VIEW`` pixels: the same square of each, or all of them reduced."""
    if rng.random() < 0.5:
        size = (VIEW, VIEW)
        return [F.interpolate(p, size, mode="bilinear", antialias=True) for p in pictures]
    return random_square(rng, *pictures)


def random_square(rng: np.random.Generator, *pictures: Tensor) -> list[Tensor]:
    """The same square of ``VIEW`` pixels of batches of pictures, all of what is smaller."""
    room = max(0, pictures[0].shape[2] - VIEW)
    top, left = rng.integers(room + 1, size=2)
    return [p[:, :, top : top + VIEW, left : left + VIEW] for p in pictures]
