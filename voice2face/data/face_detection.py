"""Whether detectors find a face in an aligned picture."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

MARGIN = 64  # pixels repeated around an aligned face, for the detector
SMALLEST_FACE = 110  # pixels, of a face that fills 192
SIZE = 192
LEAST_BESIDE = 3

Cascade = Literal["default", "alt2"]


@lru_cache
def _detector(name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))


def face_detected(image: np.ndarray, cascade: Cascade) -> bool:
    """Whether one of OpenCV's frontal-face cascades finds a face.

    Training chooses faces by one and the evaluation counts portraits by another, so that what is
    measured is not what was trained for.

    Args:
        image: ``(H, W, 3)`` uint8.
        cascade: which of them.
    """
    return times_found(image, cascade, beside=LEAST_BESIDE) > 0


def times_found(image: np.ndarray, cascade: Cascade, *, beside: int = 1) -> int:
    """How often a cascade finds the face, at neighbouring places and sizes: the more, the surer.

    Args:
        image: ``(H, W, 3)`` uint8.
        cascade: which of them.
        beside: neighbours that a finding needs in order to count.

    Returns:
        0, or more than ``beside``.
    """
    grey = _grey(image)
    padded = cv2.copyMakeBorder(grey, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
    smallest = (SMALLEST_FACE, SMALLEST_FACE)
    _, times = _detector(f"frontalface_{cascade}").detectMultiScale2(
        padded, 1.05, beside, minSize=smallest
    )
    return int(max(times, default=0))


def _grey(image: np.ndarray) -> np.ndarray:
    resized = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY)
