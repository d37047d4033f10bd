"""Which aligned faces hide their eyes, behind sunglasses or in deep shadow.

A denoiser that learns from such faces draws sunglasses more often than they occur.
"""

from __future__ import annotations

import cv2
import numpy as np

from voice2face.face_alignment import LEFT_EYE, RIGHT_EYE

# centre and size of what is compared, as shares of the picture
EYES = ((LEFT_EYE[0], 0.325), (RIGHT_EYE[0], 0.325))
CHEEKS = ((0.27, 0.54), (0.73, 0.54))
NOSE = (0.5, 0.5)
EYE_SIZE, CHEEK_SIZE, NOSE_SIZE = (0.22, 0.15), (0.14, 0.10), (0.10, 0.12)

DARK = 0.55  # of the skin's brightness
HIDDEN_SHARE = 0.7  # of the pixels around an eye, in the eye that shows more


def hidden_eyes(images: np.ndarray) -> np.ndarray:
    """Whether most of both eyes' surroundings is much darker than the skin beneath.

    The comparison is with the face's own skin, whatever its tone and the light.

    Args:
        images: ``(N, size, size, 3)`` uint8, aligned.

    Returns:
        ``(N,)`` boolean.
    """
    return np.array([dark_share(image) > HIDDEN_SHARE for image in images], bool)


def dark_share(image: np.ndarray) -> float:
    """Share of the pixels around an eye that are much darker than the skin, in the lighter eye.

    Args:
        image: ``(size, size, 3)`` uint8, aligned.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    nose = _part(grey, NOSE, NOSE_SIZE)
    shares = []
    for eye, cheek in zip(EYES, CHEEKS, strict=True):
        skin = np.median(np.concatenate([_part(grey, cheek, CHEEK_SIZE), nose]))
        shares.append((_part(grey, eye, EYE_SIZE) < DARK * skin).mean())
    return float(min(shares))


def _part(grey: np.ndarray, centre: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    height, width = grey.shape
    left, right = (round((centre[0] + side * size[0] / 2) * width) for side in (-1, 1))
    top, bottom = (round((centre[1] + side * size[1] / 2) * height) for side in (-1, 1))
    return grey[top:bottom, left:right].ravel()
