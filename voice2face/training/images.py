"""Pictures as training needs them: arrays to tensors and back, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_model_range(images: np.ndarray) -> Tensor:
    """``(B, H, W, 3)`` uint8 to ``(B, 3, H, W)`` float in [-1, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> np.ndarray:
    """``(B, 3, H, W)`` in [-1, 1] to ``(B, H, W, 3)`` uint8."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def contact_sheet(rows: Sequence[np.ndarray]) -> Image.Image:
    """Put rows of pictures, each ``(N, H, W, 3)`` uint8, below one another; short ones end black.

    Raises:
        ValueError: there is no picture.
    """
    rows = [row for row in rows if len(row)]
    if not rows:
        raise ValueError("a contact sheet needs at least one picture")
    width = max(len(row) for row in rows)
    padded = [np.pad(row, ((0, width - len(row)), (0, 0), (0, 0), (0, 0))) for row in rows]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in padded], 0))
