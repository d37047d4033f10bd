"""Contact sheets that say what they show: a caption under each picture, or a label at each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from voice2face.data.contact_sheets import contact_sheet

FONT_SIZE = 14
SMALLEST_FONT_SIZE = 6
LINE_HEIGHT = 18
MARGIN = 4


def captioned_sheet(
    pictures: np.ndarray, captions: Sequence[str], *, columns: int, size: int
) -> Image.Image:
    """Lay pictures out row by row, each with its caption below.

    Args:
        pictures: ``(N, H, W, 3)`` uint8.
        captions: a line or more each; what is too wide is written smaller.
        columns: pictures in a row.
        size: side of a picture on the sheet in pixels.
    """
    rows = max(1, -(-len(pictures) // columns))
    below = LINE_HEIGHT * max((1 + caption.count("\n") for caption in captions), default=1)
    sheet = Image.new("RGB", (columns * size, rows * (size + below)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * size, number // columns * (size + below)
        image = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top))
        middle = (left + size / 2, top + size + below / 2)
        font = font_within(caption, size - 2 * MARGIN)
        draw.multiline_text(middle, caption, "black", font, anchor="mm", align="center")
    return sheet


def font_within(text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font up to ``FONT_SIZE`` in which no line of a text is wider than so."""
    for size in range(FONT_SIZE, SMALLEST_FONT_SIZE, -1):
        font = ImageFont.load_default(size)
        if all(font.getlength(line) <= width for line in text.splitlines()):
            return font
    return ImageFont.load_default(SMALLEST_FONT_SIZE)


def labelled_sheet(rows: Mapping[str, np.ndarray]) -> Image.Image:
    """Put rows of pictures, ``(N, H, W, 3)`` uint8, below one another, each with its label at left.

    Raises:
        ValueError: there is no picture.
    """
    pictures = contact_sheet(list(rows.values()))
    height = pictures.height // len(rows)
    font = ImageFont.load_default(max(FONT_SIZE, height // 7))
    left = round(max(font.getlength(label) for label in rows)) + 4 * MARGIN
    sheet = Image.new("RGB", (left + pictures.width, pictures.height), "white")
    sheet.paste(pictures, (left, 0))
    draw = ImageDraw.Draw(sheet)
    for number, label in enumerate(rows):
        draw.text((left / 2, (number + 0.5) * height), label, "black", font, anchor="mm")
    return sheet
