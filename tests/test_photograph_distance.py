"""How far pictures are from photographs: what is badly drawn is farther, light does not count."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from voice2face.errors import SettingError
from voice2face.training.photograph_distance import PARTS, PhotographDistance, PrincipalSpace

MOUTH, FACE = range(len(PARTS))


class Pixels:
    """In place of SqueezeNet: what is seen are 6x6 pixels at each of 3x4 places."""

    mean = torch.zeros(1)

    def maps(self, images: Tensor) -> list[Tensor]:
        small = F.interpolate(images, (18, 24), mode="area")
        return [images, images, F.pixel_unshuffle(small, 6)]


def drawing(rng: np.random.Generator) -> np.ndarray:
    """A face of 192 pixels: light skin, two eyes, and a mouth of some width and height."""
    image = np.full((192, 192, 3), rng.integers(150, 200), np.uint8)
    for column in (56, 136):
        cv2.circle(image, (column, 58), int(rng.integers(6, 12)), (40, 40, 40), -1)
    size = int(rng.integers(14, 34)), int(rng.integers(3, 14))
    cv2.ellipse(image, (96, 138), size, 0, 0, 360, (90, 50, 50), -1)
    return image


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([drawing(rng) for _ in range(308)])


@pytest.fixture(scope="module")
def distance(pictures: np.ndarray) -> PhotographDistance:
    torch.manual_seed(0)
    return PhotographDistance(Pixels(), pictures[:300])


def smeared(pictures: np.ndarray, row: int) -> np.ndarray:
    """Pictures over which a hand, or what looks like one, comes from a side."""
    broken = pictures.copy()
    for picture in broken:
        cv2.line(picture, (130, row + 20), (85, row), (240, 230, 220), 14)
    return broken


def test_too_few_photographs_are_an_error(pictures: np.ndarray) -> None:
    with pytest.raises(SettingError, match="only 4 photographs"):
        PhotographDistance(Pixels(), pictures[:4])


def test_a_broken_mouth_is_farther(distance: PhotographDistance, pictures: np.ndarray) -> None:
    whole, broken = distance(pictures[300:]), distance(smeared(pictures[300:], 138))
    assert whole.shape == (8, len(PARTS))
    assert (broken[:, MOUTH] > whole[:, MOUTH]).all()
    assert (broken[:, FACE] > whole[:, FACE]).all()


def test_the_mouth_does_not_hang_on_the_eyes(
    distance: PhotographDistance, pictures: np.ndarray
) -> None:
    whole, broken = distance(pictures[300:]), distance(smeared(pictures[300:], 58))
    torch.testing.assert_close(broken[:, MOUTH], whole[:, MOUTH])
    assert (broken[:, FACE] > whole[:, FACE]).all()


def test_colour_and_light_do_not_count(distance: PhotographDistance, pictures: np.ndarray) -> None:
    whole = distance(pictures[300:])
    grey = np.repeat(pictures[300:].mean(-1, keepdims=True).round().astype(np.uint8), 3, axis=-1)
    darker = (0.8 * pictures[300:]).astype(np.uint8)
    spread = float(whole.std())
    for changed in (grey, darker):
        assert float((distance(changed) - whole).abs().mean()) < 0.25 * spread


def test_a_photograph_is_nearer_to_its_like_than_a_stranger(distance: PhotographDistance) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 192, 192, 3), np.uint8)
    alike = distance(noise)
    among_noise = PhotographDistance(
        distance.network, np.random.default_rng(1).integers(0, 255, (100, 192, 192, 3), np.uint8)
    )
    assert (among_noise(noise) < alike).all()


def test_principal_space_keeps_distances_along_what_varies() -> None:
    torch.manual_seed(0)
    features = torch.randn(500, 3) * torch.tensor([4.0, 1.0, 0.25])
    places = PrincipalSpace(features)(features)
    assert places.std(0).sort().values.tolist() == pytest.approx([0.5, 1.0, 2.0], rel=0.1)
    assert places.mean(0).abs().max() < 1e-5
