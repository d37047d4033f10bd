"""The bottom face: what the paper found to follow the voice most (Fine-portraitist).

In the data's alignment the eyes lie at 0.30 of the picture's height and the mouth at 0.72. The
bottom face starts at 0.375, below the eyes, so that nose, mouth and jaw belong to it. With eight
rows of latents that is the third boundary: rows 3 to 7 of Z^f show the bottom face, rows 0 to 2
the rest, apart from what the encoder's convolutions see beyond the boundary.
"""

from __future__ import annotations

from torch import Tensor

BOTTOM_FROM = 0.375


def first_bottom_row(rows: int) -> int:
    """First row of a picture or latent of so many rows that belongs to the bottom face."""
    return round(BOTTOM_FROM * rows)


def bottom_face(images: Tensor) -> Tensor:
    """Faces ``(batch, 3, H, W)`` in [-1, 1], everything above the bottom face mid-grey."""
    masked = images.clone()
    masked[..., : first_bottom_row(images.shape[-2]), :] = 0.0
    return masked
