"""Contact sheets with a caption under each picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 18


def captioned_sheet(
    pictures: np.ndarray, captions: Sequence[str], *, columns: int, size: int
) -> Image.Image:
    """Lay pictures out row by row, each with its caption below.

    Args:
        pictures: ``(N, H, W, 3)`` uint8.
        captions: one line each.
        columns: pictures in a row.
        size: side of a picture on the sheet in pixels.
    """
    rows = max(1, -(-len(pictures) // columns))
    sheet = Image.new("RGB", (columns * size, rows * (size + CAPTION_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * size, number // columns * (size + CAPTION_HEIGHT)
        image = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top))
        middle = (left + size // 2, top + size + CAPTION_HEIGHT // 2)
        draw.text(middle, caption, fill="black", font=font, anchor="mm")
    return sheet
