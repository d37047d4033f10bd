"""Pictures as arrays, and as the networks see them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_model_range(images: NDArray[np.uint8]) -> Tensor:
    """``(B, H, W, 3)`` uint8 to ``(B, 3, H, W)`` float in [-1, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """``(B, 3, H, W)`` in [-1, 1] to ``(B, H, W, 3)`` uint8."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    pictures: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return pictures
