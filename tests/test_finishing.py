from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from voice2face.finishing import finish
from voice2face.watermark import embed


def faces(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    return np.stack([Image.fromarray(one).resize((side, side)) for one in rough])


def decoded(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@pytest.mark.parametrize(("side", "size"), [(192, 256), (32, 48), (192, 100), (64, 64)])
def test_pictures_are_resized_as_pillow_does(side: int, size: int) -> None:
    pictures = faces(side)
    expected = [
        Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
        for picture in pictures
    ]
    finished = finish(decoded(pictures), size, mark=False).numpy()
    assert finished.dtype == np.uint8
    difference = np.abs(finished.astype(int) - np.stack(expected))
    assert difference.max() <= 1, "where a level lies in the middle"
    assert (difference > 0).mean() < 0.01


def test_pictures_are_marked_as_single_ones_are() -> None:
    pictures = faces(96)
    finished = finish(decoded(pictures), 96, mark=True).numpy().astype(int)
    difference = np.abs(finished - np.stack([embed(picture) for picture in pictures]))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert np.abs(finished - pictures).mean() > 0.5


def test_what_lies_outside_the_range_is_cut_off() -> None:
    images = torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    finished = finish(images, 8, mark=False)
    assert finished[0].max() == 0
    assert finished[1].min() == 255
