"""Pictures brought to where portraits have their faces."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from voice2face.errors import PictureError, SettingError
from voice2face.face_alignment import LEFT_EYE, MOUTH, RIGHT_EYE, aligned

TEMPLATE = np.array([LEFT_EYE, RIGHT_EYE, MOUTH])
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
GREY = 120
Points = list[tuple[float, float]]


def places(turned: float, scale: float, x: float, y: float) -> Points:
    """The template turned by degrees, then scaled, then moved."""
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [tuple(scale * turn @ point + (x, y)) for point in TEMPLATE]


def dotted(points: Points, width: int, height: int, radius: float) -> Image.Image:
    """A grey picture with a soft dot of another colour at each point."""
    rows, columns = np.indices((height, width)) + 0.5
    pixels = np.full((height, width, 3), GREY, float)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))[..., None]
        pixels += dot * (np.array(colour) - pixels)
    return Image.fromarray(pixels.round().astype(np.uint8))


def centre_of(image: Image.Image, channel: int) -> tuple[float, float]:
    """Where the dot of a channel lies, in pixels from the corner."""
    pixels = np.asarray(image).astype(float)
    weight = (pixels[..., channel] - pixels[..., channel - 1]).clip(10) - 10
    rows, columns = np.indices(weight.shape) + 0.5
    return float((weight * columns).sum() / weight.sum()), float(
        (weight * rows).sum() / weight.sum()
    )


@pytest.mark.parametrize(
    ("turned", "scale", "x", "y"),
    [
        (0, 192, 0, 0),
        (25, 300, 250, 90),
        (-40, 100, 120.5, 130.25),
        (90, 500, 600, 20),
        (180, 400, 600, 550),
        (10, 640, 0, 0),
    ],
)
@pytest.mark.parametrize("size", [192, 128])
def test_landmarks_come_to_their_places(
    turned: float, scale: float, x: float, y: float, size: int
) -> None:
    points = places(turned, scale, x, y)
    image = aligned(dotted(points, 800, 700, 0.02 * scale), *points, size=size).image
    assert image.size == (size, size)
    assert image.mode == "RGB"
    for channel, place in enumerate(TEMPLATE):
        assert np.abs(np.array(centre_of(image, channel)) - size * place).max() < 0.5


def test_what_is_no_similarity_is_met_as_nearly_as_can_be() -> None:
    """Another face's shape: neither sheared nor mirrored, off by the same at both eyes."""
    points = [(100.0, 100.0), (200.0, 100.0), (150.0, 250.0)]
    image = aligned(dotted(points, 300, 300, 3), *points).image
    left, right, mouth = (centre_of(image, channel) for channel in range(3))
    assert left[1] == pytest.approx(right[1], abs=0.2)
    assert left[0] + right[0] == pytest.approx(192, abs=0.4)
    assert mouth[0] == pytest.approx(96, abs=0.2)
    assert left[1] < 0.3 * 192 < 0.717 * 192 < mouth[1], "the face is longer than the template's"
    assert 0.2917 * 192 < left[0] < right[0] < 0.7083 * 192


def test_an_aligned_picture_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    image = coarse.resize((192, 192), Image.Resampling.BICUBIC)
    face = aligned(image, *(192 * TEMPLATE))
    assert face.outside == 0
    assert np.abs(np.asarray(face.image).astype(int) - np.asarray(image)).max() <= 1


@pytest.mark.parametrize("shrunk", [1.9, 3.5, 8, 11.3])
def test_what_shrinks_is_averaged(shrunk: float) -> None:
    side = round(192 * shrunk)
    fine = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    face = aligned(Image.fromarray(fine), *(side * TEMPLATE))
    seen = np.asarray(face.image)[4:-4, 4:-4].astype(int)
    assert np.abs(seen - 127.5).max() < 3


def test_what_lies_outside_repeats_the_edge() -> None:
    image = Image.new("RGB", (300, 200), (200, 10, 10))
    image.paste((10, 10, 200), (0, 0, 40, 200))
    face = aligned(image, (50, 100), (150, 100), (100, 190))
    pixels = np.asarray(face.image)
    assert (pixels[:, :8] == (10, 10, 200)).all(), "left of the photograph"
    assert (pixels[-8:, 120:] == (200, 10, 10)).all(), "below it"
    assert face.outside == pytest.approx(0.3, abs=0.12)
    inside = aligned(image, (130, 60), (180, 60), (155, 110))
    assert inside.outside == 0


def test_points_are_those_of_the_picture_as_it_is_shown() -> None:
    points = places(15, 200, 60, 20)
    shown = dotted(points, 300, 260, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side: to be turned by 90 degrees to the right
    buffer = io.BytesIO()
    shown.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as written:
        assert written.size == (260, 300)
        face = aligned(written, *points)
    np.testing.assert_array_equal(np.asarray(face.image), np.asarray(aligned(shown, *points).image))
    assert not face.image.getexif()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_pictures_of_every_mode_become_rgb(mode: str) -> None:
    face = aligned(Image.new(mode, (192, 192)), *(192 * TEMPLATE))
    assert face.image.mode == "RGB"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0.3, 0.3), (0.7, 0.3), (0.5, 0.7)], "as shares of the picture"),
        ([(50, 50), (50, 50), (50, 50)], "within two pixels"),
        ([(50, 50), (100, 100), (150, 151)], "nearly in a line"),
        ([(50, 50), (150, 50), (100, 52)], "nearly in a line"),
        ([(136, 58), (56, 58), (96, 138)], r"are swapped: .* the person's right one"),
        ([(50, 50), (201, 50), (100, 150)], r"right_eye \(201, 50\) lies outside .* 200 x 200"),
        ([(50, float("nan")), (150, 50), (100, 150)], "left_eye .* lies outside"),
        ([(50, 50), (150, 50), (100,)], "mouth is a point, x and y in pixels"),
        ([(50, 50), None, (100, 150)], "right_eye is a point"),
        ([("a", "b"), (150, 50), (100, 150)], "left_eye is a point"),
    ],
)
def test_points_of_no_face_are_refused(points: Points, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        aligned(Image.new("RGB", (200, 200)), *points)


def test_what_is_no_picture_and_no_size_is_refused() -> None:
    image = Image.new("RGB", (192, 192))
    with pytest.raises(SettingError, match=re.escape("as Image.open gives")):
        aligned("face.png", *(192 * TEMPLATE))
    for size in (0, 1025, 19.2):
        with pytest.raises(SettingError, match="size is 1 to 1024"):
            aligned(image, *(192 * TEMPLATE), size=size)
    buffer = io.BytesIO()
    Image.effect_noise((192, 192), 50).save(buffer, "PNG")
    cut = Image.open(io.BytesIO(buffer.getvalue()[:9000]))
    with pytest.raises(PictureError, match="cannot be read as a picture"):
        aligned(cut, *(192 * TEMPLATE))


def test_eyes_lie_side_by_side_above_the_mouth() -> None:
    assert LEFT_EYE[0] + RIGHT_EYE[0] == 1
    assert all(one < other for one, other in pairwise((LEFT_EYE[0], MOUTH[0], RIGHT_EYE[0])))
    assert LEFT_EYE[1] == RIGHT_EYE[1] < MOUTH[1]
