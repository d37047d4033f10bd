"""Contact sheets of what training and evaluation draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


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
