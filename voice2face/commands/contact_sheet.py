"""Portraits of a folder in one picture."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from voice2face.errors import OutputError, PictureError
from voice2face.picture_files import open_picture, save_marked, side_by_side

SHEET_PICTURES = 400
SHEET_COLUMNS = 16
SHEET_PICTURE_SIZE = 128


def write_sheet(paths: Iterable[Path], file: Path) -> None:
    """Write the first portraits side by side; of those that cannot be read, print why.

    Raises:
        OutputError: there is no portrait, or the sheet cannot be written.
    """
    pictures = list(islice(small_pictures(paths), SHEET_PICTURES))
    if not pictures:
        raise OutputError("there is no portrait, so there is no contact sheet")
    save_marked(side_by_side(pictures, min(SHEET_COLUMNS, len(pictures))), file, {})


def small_pictures(paths: Iterable[Path]) -> Iterator[Image.Image]:
    """The portraits that can be read, in the size that they have on the sheet."""
    size = (SHEET_PICTURE_SIZE, SHEET_PICTURE_SIZE)
    for path in paths:
        try:
            picture = open_picture(path)
        except PictureError as error:
            print(f"voice2face: left out of the contact sheet: {error}", file=sys.stderr)
        else:
            yield picture.resize(size, Image.Resampling.LANCZOS)
