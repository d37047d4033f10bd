"""How well portraits are drawn: whether face and eyes are seen, how like photographs they are.

A detector misses dark faces more often than light ones, and no portrait is to be refused for its
skin. So what it says, and how like photographs a portrait is, are compared with quantiles that
depend on how light the face is. Eyes are compared with the skin beneath them to begin with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.data.face_detection import times_found
from voice2face.data.hidden_eyes import HIDDEN_SHARE, dark_share
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.photograph_distance import PhotographDistance

BRIGHTNESS_BINS = 16
MOST_DETECTIONS = 40  # a face that is found more often is found
SPREAD_QUANTILES = 0.3  # between the quantiles whose distance is a bin's spread
DARK_SPREAD = 0.3  # the same of the shares of dark pixels around the eyes
LEAST_EXCESS, MOST_EXCESS = -2.0, 3.0  # in spreads; how far beyond does not count
EYES = 1  # which of the merits


class MeasuredPortraits(NamedTuple):
    """Portraits, what is seen in their pictures, and how like photographs these are.

    Attributes:
        latents: Z^f, ``(N, C, H, W)``.
        face_detections: how often the face is found, ``(N,)``.
        dark_eyes: share of dark pixels around the eyes, see ``dark_share``, ``(N,)``.
        brightness: mean of the middle of the picture, 0 to 255, ``(N,)``.
        mouth_distance: the mouth's ``PhotographDistance``, ``(N,)``.
        face_distance: that of the whole face, ``(N,)``.
    """

    latents: Tensor
    face_detections: Tensor
    dark_eyes: Tensor
    brightness: Tensor
    mouth_distance: Tensor
    face_distance: Tensor

    @property
    def scores(self) -> list[Tensor]:
        """How clearly the face is found, how near the mouth and the face are, each ``(N,)``."""
        detections = self.face_detections.clamp(max=MOST_DETECTIONS).sqrt()
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
            seen.append((times_found(picture, "alt2"), dark_share(picture), middle.mean()))
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


class Merits:
    """How far portraits lie above the bar of each merit: face found, eyes shown, mouth, face.

    Args:
        portraits: to find the quantiles of, which are the bars of all but the eyes.
        share: of portraits below each quantile.
    """

    def __init__(self, portraits: MeasuredPortraits, share: float) -> None:
        self.quantiles = [
            BrightnessQuantile(score, portraits.brightness, share) for score in portraits.scores
        ]

    def __call__(self, portraits: MeasuredPortraits) -> Tensor:
        """Distances above the bars, ``(N, 4)``, below 0 where a merit is missing."""
        found, mouth, face = (
            quantile.excess(score, portraits.brightness)
            for quantile, score in zip(self.quantiles, portraits.scores, strict=True)
        )
        shown = (HIDDEN_SHARE - portraits.dark_eyes) / DARK_SPREAD
        return torch.stack([found, shown, mouth, face], 1).clamp(LEAST_EXCESS, MOST_EXCESS)
