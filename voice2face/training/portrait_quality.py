"""How well portraits are drawn, by what detectors see in them and how like photographs they are.

Detectors miss dark faces more often than light ones. So each score is compared with a quantile that
depends on how light the face is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.data.face_detection import times_eyes_found, times_found
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.photograph_distance import PhotographDistance

BRIGHTNESS_BINS = 16
SPREAD_QUANTILES = 0.3  # between the quantiles whose distance is a bin's spread
LEAST_EXCESS, MOST_EXCESS = -2.0, 3.0  # in spreads; how far beyond does not count


class MeasuredPortraits(NamedTuple):
    """Portraits, what detectors see in their pictures, and how like photographs these are.

    Attributes:
        latents: Z^f, ``(N, C, H, W)``.
        face_detections: how often the face is found, ``(N,)``.
        eye_detections: how often the eyes are, see ``times_eyes_found``, ``(N,)``.
        brightness: mean of the middle of the picture, 0 to 255, ``(N,)``.
        mouth_distance: the mouth's ``PhotographDistance``, ``(N,)``.
        face_distance: that of the whole face, ``(N,)``.
    """

    latents: Tensor
    face_detections: Tensor
    eye_detections: Tensor
    brightness: Tensor
    mouth_distance: Tensor
    face_distance: Tensor

    @property
    def quality_scores(self) -> list[Tensor]:
        """How clearly face and eyes are found, how near the mouth and the face are, ``(N,)``."""
        detections = self.face_detections.log1p() + self.eye_detections.log1p()
        return [detections, -self.mouth_distance, -self.face_distance]


def measure(latents: Tensor, pipe: Voice2FacePipeline, distance: PhotographDistance) -> Tensor:
    """What ``MeasuredPortraits`` holds beside each latent, in its order, ``(5, N)``."""
    seen, distances = [], []
    for part in tqdm(latents.split(64), desc="face detection", unit="batch"):
        pictures = pipe.decode(part.to(pipe.device), watermark=False)
        distances.append(distance(pictures))
        for picture in pictures:
            quarter = len(picture) // 4
            middle = picture[quarter:-quarter, quarter:-quarter]
            seen.append((times_found(picture, "alt2"), times_eyes_found(picture), middle.mean()))
    return torch.cat([torch.tensor(seen, dtype=torch.float32), torch.cat(distances)], 1).T


class BrightnessQuantile:
    """A quantile of a score as a function of the face's brightness, interpolated between bins.

    Args:
        score: to find the quantiles of, ``(N,)``.
        brightness: of the same portraits, ``(N,)``.
        share: of portraits below the quantile.
    """

    def __init__(self, score: Tensor, brightness: Tensor, share: float) -> None:
        bins = [rows for rows in brightness.argsort().chunk(BRIGHTNESS_BINS) if len(rows)]
        self.brightness = [float(brightness[rows].mean()) for rows in bins]
        of_bins = [score[rows] for rows in bins]
        self.quantile = [float(of_bin.quantile(share)) for of_bin in of_bins]
        upper = [float(of_bin.quantile(share + SPREAD_QUANTILES)) for of_bin in of_bins]
        self.spread = np.subtract(upper, self.quantile).clip(1e-3)

    def excess(self, score: Tensor, brightness: Tensor) -> Tensor:
        """How far each portrait lies above it, ``(N,)``, in spreads at its brightness."""
        quantile, spread = (
            torch.from_numpy(np.interp(brightness.numpy(), self.brightness, of)).float()
            for of in (self.quantile, self.spread)
        )
        return (score - quantile) / spread


class BrightnessQuantiles:
    """The quantile of each quality score.

    Args:
        portraits: to find the quantiles of.
        share: of portraits below each.
    """

    def __init__(self, portraits: MeasuredPortraits, share: float) -> None:
        self.quantiles = [
            BrightnessQuantile(score, portraits.brightness, share)
            for score in portraits.quality_scores
        ]

    def least_excess(self, portraits: MeasuredPortraits) -> Tensor:
        """How far each portrait lies above the quantile that it is least above, ``(N,)``."""
        excesses = [
            quantile.excess(score, portraits.brightness)
            for quantile, score in zip(self.quantiles, portraits.quality_scores, strict=True)
        ]
        return torch.stack(excesses).amin(0).clamp(LEAST_EXCESS, MOST_EXCESS)
