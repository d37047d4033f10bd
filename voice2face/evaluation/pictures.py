"""What can be said of pictures by themselves: is there a face, is it sharp, do they differ."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from voice2face.data.face_detection import face_detected
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.pixels import to_model_range


def face_found(image: np.ndarray) -> bool:
    """Whether OpenCV's frontal-face cascade finds a face in ``(H, W, 3)`` uint8."""
    return face_detected(image, "default")


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture at 128 pixels."""
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


@torch.inference_mode()
def picture_features(images: np.ndarray, network: PerceptualLoss) -> np.ndarray:
    """Last SqueezeNet features of ``(N, H, W, 3)`` uint8, averaged over positions, ``(N, 512)``.

    Each position has length one and the mean is scaled by the root of the width, so that a
    feature is of the order of one.
    """
    features = []
    for start in range(0, len(images), 32):
        batch = np.stack([cv2.resize(i, (128, 128)) for i in images[start : start + 32]])
        features.append(network.maps(to_model_range(batch))[-1].mean((2, 3)))
    stacked = torch.cat(features).numpy()
    return stacked * stacked.shape[1] ** 0.5


@torch.inference_mode()
def perceptual_spread(images: np.ndarray, network: PerceptualLoss) -> float:
    """Mean perceptual distance between neighbours in ``(N, H, W, 3)`` uint8, N at least 2."""
    batch = to_model_range(np.stack([cv2.resize(image, (128, 128)) for image in images]))
    return float(network(batch[:-1], batch[1:]))
