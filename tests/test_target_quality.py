"""Which picture quality portraits are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from voice2face.data.quality_columns import QUALITY_COLUMNS
from voice2face.data.tables import FaceTable
from voice2face.training import target_quality
from voice2face.training.target_quality import ASKED_SHIFT, ASKED_SPREAD, quality_settings

SHARPNESS, YAW, PITCH, BRIGHTNESS, CONTRAST, OUTSIDE = range(len(QUALITY_COLUMNS))
FACES, SHARP = 100, slice(67, 100)
SPOILT = slice(70, 76)
OUT_OF_THE_WAY = 9.0


def qualities() -> np.ndarray:
    """Of faces that are ever sharper, the sharpest third of them good ones."""
    rng = np.random.default_rng(0)
    quality = np.zeros((FACES, 6), np.float32)
    quality[:, SHARPNESS] = np.linspace(3.0, 7.0, FACES)
    quality[:, YAW] = rng.uniform(-0.05, 0.05, FACES)
    quality[:, PITCH] = rng.uniform(0.4, 0.6, FACES)
    for column, middle, spread in ((BRIGHTNESS, 110.0, 40.0), (CONTRAST, 45.0, 20.0)):
        quality[:, column] = middle + spread * rng.choice([-1.0, 0.0, 1.0], FACES)
        quality[SHARP, column] = middle + rng.uniform(-4.0, 4.0, FACES)[SHARP]
    return quality


def settings_of(quality: np.ndarray) -> dict[str, np.ndarray]:
    unknown, images = np.full(len(quality), -1), np.zeros((len(quality), 1, 1, 3), np.uint8)
    faces = FaceTable(images, unknown, unknown, quality, [str(row) for row in range(len(quality))])
    return {name: np.array(values) for name, values in quality_settings(faces).items()}


def assert_asked_as(found: dict[str, np.ndarray], good: np.ndarray) -> None:
    middle, spread = good.astype(float).mean(0), good.astype(float).std(0)
    np.testing.assert_allclose(found["good_portrait"], middle + ASKED_SHIFT * spread, rtol=1e-6)
    np.testing.assert_allclose(found["good_portrait_std"], ASKED_SPREAD * spread, rtol=1e-6)


def test_portraits_are_asked_to_be_like_the_sharpest_third() -> None:
    quality = qualities()
    quality[: SHARP.start, PITCH] = OUT_OF_THE_WAY
    found = settings_of(quality)
    assert_asked_as(found, quality[SHARP])
    np.testing.assert_allclose(found["quality_mean"], quality.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["quality_std"], quality.std(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (BRIGHTNESS, 20.0),
        (BRIGHTNESS, 220.0),
        (CONTRAST, 5.0),
        (CONTRAST, 90.0),
        (YAW, 0.2),
        (YAW, -0.2),
        (OUTSIDE, 0.05),
    ],
)
def test_faces_that_are_badly_lit_turned_or_cropped_are_no_example(
    column: int, value: float
) -> None:
    quality = qualities()
    quality[SPOILT, PITCH] = OUT_OF_THE_WAY
    assert settings_of(quality)["good_portrait"][PITCH] > 1.0, "as well made as the others"
    quality[SPOILT, column] = value
    assert_asked_as(settings_of(quality), np.delete(quality[SHARP], np.s_[3:9], 0))


def test_what_is_asked_for_is_moved_and_spread_by_standard_deviations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ASKED_SHIFT.shape == ASKED_SPREAD.shape == (6,)
    quality = qualities()
    with monkeypatch.context() as patch:
        patch.setattr(target_quality, "ASKED_SHIFT", np.zeros(6))
        patch.setattr(target_quality, "ASKED_SPREAD", np.ones(6))
        plain = settings_of(quality)
    shift, spread = np.linspace(-1.0, 1.5, 6), np.linspace(0.5, 2.0, 6)
    monkeypatch.setattr(target_quality, "ASKED_SHIFT", shift)
    monkeypatch.setattr(target_quality, "ASKED_SPREAD", spread)
    found, deviation = settings_of(quality), plain["good_portrait_std"]
    good = quality[SHARP].astype(float)
    np.testing.assert_allclose(plain["good_portrait"], good.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, good.std(0), rtol=1e-6)
    np.testing.assert_allclose(found["good_portrait"] - plain["good_portrait"], shift * deviation)
    np.testing.assert_allclose(found["good_portrait_std"], spread * deviation)


def test_where_no_face_qualifies_all_are_examples() -> None:
    quality = qualities()
    quality[:, YAW] = 0.3
    assert_asked_as(settings_of(quality), quality)
