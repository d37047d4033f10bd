"""Faces brought to where portraits have theirs, by three landmarks that the caller knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from voice2face.argument_checks import check_whole
from voice2face.errors import SettingError
from voice2face.picture_files import upright_rgb

# where portraits have them, as shares of width and height; left and right of the picture
LEFT_EYE = (0.2917, 0.300)
RIGHT_EYE = (0.7083, 0.300)
MOUTH = (0.5, 0.717)

MOST_PIXELS_WIDE = 1024
SMALLEST_SPREAD = 2.0  # pixels
LEAST_HEIGHT = 0.1  # of the triangle's area to its spread; 0 of points in a line, 0.86 of portraits
ALMOST = 1e-6
REACH = 3  # pixels around a point that its interpolation may read


class AlignedFace(NamedTuple):
    """A face where portraits have theirs.

    Attributes:
        image: a square, RGB.
        outside: share of it that lay outside the photograph, and repeats its edge.
    """

    image: Image.Image
    outside: float


def aligned(
    image: Image.Image,
    left_eye: Sequence[float],
    right_eye: Sequence[float],
    mouth: Sequence[float],
    size: int = 192,
) -> AlignedFace:
    """Turn, scale and move a picture so that its face lies where portraits have theirs.

    No face is looked for: any detector of landmarks, or a mouse, gives the points. The similarity
    that brings them nearest to their places, in least squares, neither shears nor mirrors.

    Args:
        image: a picture, which is turned as its EXIF says.
        left_eye: middle of the eye on the left of the picture (of the face, upright), which is the
            person's right one: x and y in pixels from the upper left corner of the picture as it is
            shown, that is turned as its EXIF says.
        right_eye: likewise, on the right.
        mouth: middle between the corners of the mouth.
        size: side of the result, 1 to 1024 pixels.

    Raises:
        PictureError: the picture cannot be read to its end.
        SettingError: it is no picture of Pillow's, the size is out of range, or a point is none of
            the picture; the points lie together or nearly in a line, or the eyes are swapped.
    """
    if not isinstance(image, Image.Image):
        raise SettingError("aligned takes a picture as Image.open gives")
    size = check_whole("size", size, MOST_PIXELS_WIDE)
    picture = upright_rgb(image)
    named = {"left_eye": left_eye, "right_eye": right_eye, "mouth": mouth}
    points = np.array([place_of(name, point, picture) for name, point in named.items()])
    check_triangle(points)
    turn, shift = similarity(size * on_plane(np.array([LEFT_EYE, RIGHT_EYE, MOUTH])), points)
    centres = np.arange(size) + 0.5
    seen = turn * (centres + 1j * centres[:, None]) + shift
    beside = (seen.real < 0) | (seen.real > picture.width)
    beyond = (seen.imag < 0) | (seen.imag > picture.height)
    outside = float((beside | beyond).mean())
    return AlignedFace(resampled(picture, turn, shift, size), outside)


def on_plane(points: np.ndarray) -> np.ndarray:
    """Points ``(N, 2)`` as complex numbers, of which a similarity is a multiple and a sum."""
    return np.asarray(points[:, 0] + 1j * points[:, 1])


def place_of(name: str, point: Sequence[float], picture: Image.Image) -> tuple[float, float]:
    """A point of the picture.

    Raises:
        SettingError: it is none.
    """
    try:
        x, y = (float(number) for number in point)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{name} is a point, x and y in pixels, not {point!r:.80}") from error
    if not (0 <= x <= picture.width and 0 <= y <= picture.height):
        raise SettingError(
            f"{name} ({x:g}, {y:g}) lies outside the picture, which has {picture.width} x "
            f"{picture.height} pixels as it is shown"
        )
    return x, y


def check_triangle(points: np.ndarray) -> None:
    """Refuse left eye, right eye and mouth, ``(3, 2)`` in pixels, where they make no face.

    Raises:
        SettingError: says why.
    """
    spread = float(np.square(points - points.mean(0)).sum())
    if math.sqrt(spread) < SMALLEST_SPREAD:
        raise SettingError(
            "eyes and mouth lie within two pixels: give their places in pixels, not as shares of "
            "the picture"
        )
    along, down = points[1] - points[0], points[2] - points[0]
    height = float(along[0] * down[1] - along[1] * down[0]) / spread
    if abs(height) < LEAST_HEIGHT:
        raise SettingError("eyes and mouth lie nearly in a line, which tells no face's place")
    if height < 0:
        raise SettingError(
            "left_eye and right_eye are swapped: left_eye is the eye on the left of the upright "
            "picture, which is the person's right one"
        )


def similarity(template: np.ndarray, points: np.ndarray) -> tuple[complex, complex]:
    """What takes places in the aligned picture to the given one, by which to multiply and to add.

    Of all similarities it brings the points nearest to the template (Umeyama 1991, of the plane).

    Args:
        template: three places in the aligned picture, on the complex plane.
        points: ``(3, 2)``, the same in the given one.
    """
    given = on_plane(points)
    off, wanted = given - given.mean(), template - template.mean()
    inverse = (off.conj() @ wanted) / np.square(np.abs(off)).sum()
    turn = 1 / inverse
    return complex(turn), complex(given.mean() - turn * template.mean())


def resampled(picture: Image.Image, turn: complex, shift: complex, size: int) -> Image.Image:
    """Read a square out of a picture, whose edges go on; averaged where it shrinks.

    Args:
        picture: RGB.
        turn: by which places in the square are multiplied,
        shift: and what is added, for places in the picture.
        size: side of the square.
    """
    corners = turn * np.array([0, size, 1j * size, size + 1j * size]) + shift
    reach = REACH * max(1, math.ceil(abs(turn)))
    left, right = math.floor(corners.real.min()) - reach, math.ceil(corners.real.max()) + reach
    top, bottom = math.floor(corners.imag.min()) - reach, math.ceil(corners.imag.max()) + reach
    columns = np.arange(left, right).clip(0, picture.width - 1)
    rows = np.arange(top, bottom).clip(0, picture.height - 1)
    part = Image.fromarray(np.asarray(picture)[rows[:, None], columns])
    shift -= complex(left, top)

    shrunk = max(1, int(abs(turn) / 2))
    turn, shift = turn / shrunk, shift / shrunk
    finer = max(1, math.ceil(abs(turn) - ALMOST))
    turn /= finer
    affine = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    bands = [
        band.convert("F")  # of bytes, Pillow rounds what it interpolates down
        .transform(
            (size * finer, size * finer),
            Image.Transform.AFFINE,
            affine,
            Image.Resampling.BICUBIC,
        )
        .resize((size, size), Image.Resampling.LANCZOS)
        for band in part.reduce(shrunk).split()
    ]
    return Image.fromarray(
        np.dstack([np.asarray(band) for band in bands]).round().clip(0, 255).astype(np.uint8)
    )
