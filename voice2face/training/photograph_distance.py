"""How far the mouth, or the whole face, of a picture is from those of photographs.

A mouth that is smeared, or that a hand grows out of, is like nothing in a photograph. So the
distance to the nearest photographs, in what a network sees, tells it from one that is drawn well;
Sun et al. 2022 (arXiv 2204.06507) tell in this way what a classifier has not learnt.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.errors import SettingError

SIZE = 192
# rows and columns of an aligned face of that size
PARTS = {
    "mouth": (slice(112, 184), slice(48, 144)),
    "face": (slice(16, 184), slice(32, 160)),
}
PART_SIZE = (112, 144)
DEEPER_MAPS = slice(2, None)  # of ``PerceptualLoss.maps``; those before see edges
PLACES = (3, 4)  # of each map, over which it is averaged
COMPONENTS = 128
NEIGHBOUR = 5


class PhotographDistance:
    """Distances of pictures to the ``NEIGHBOUR``-th nearest photograph, part by part.

    Colour, brightness and contrast do not count: each part is made grey and standardised.

    Args:
        network: SqueezeNet's features.
        photographs: ``(N, H, W, 3)`` uint8, aligned faces, at least ``NEIGHBOUR`` of them. Where
            the pictures come from a decoder, these should, too, or its blur is what is measured.

    Raises:
        SettingError: there are too few photographs.
    """

    def __init__(self, network: PerceptualLoss, photographs: np.ndarray) -> None:
        if len(photographs) < NEIGHBOUR:
            raise SettingError(
                f"portraits are compared with their {NEIGHBOUR}th nearest photograph, but there "
                f"are only {len(photographs)} photographs"
            )
        self.network = network
        self.spaces: list[PrincipalSpace] = []
        self.photographs: list[Tensor] = []
        for part in PARTS:
            features = self._features(photographs, part)
            space = PrincipalSpace(features)
            self.spaces.append(space)
            self.photographs.append(space(features))

    def __call__(self, pictures: np.ndarray) -> Tensor:
        """Distances of ``(N, H, W, 3)`` uint8, in the order of ``PARTS``, ``(N, 2)``."""
        distances = []
        for part, space, photographs in zip(PARTS, self.spaces, self.photographs, strict=True):
            among = torch.cdist(space(self._features(pictures, part)), photographs)
            distances.append(among.topk(NEIGHBOUR, largest=False).values[:, -1])
        return torch.stack(distances, 1)

    @torch.inference_mode()
    def _features(self, pictures: np.ndarray, part: str) -> Tensor:
        collected = []
        device = self.network.mean.device
        batches = range(0, len(pictures), 64)
        for start in tqdm(batches, desc=f"{part} features", unit="batch", disable=len(batches) < 4):
            seen = _standardised(pictures[start : start + 64], part).to(device)
            maps = self.network.maps(seen)[DEEPER_MAPS]
            places = [F.adaptive_avg_pool2d(features, PLACES).flatten(1) for features in maps]
            collected.append(torch.cat(places, 1).cpu())
        return torch.cat(collected)


class PrincipalSpace:
    """Principal components, each divided by the root of its spread: a half-whitened space.

    Args:
        features: to find them in, ``(N, D)``, N at least 2.
    """

    def __init__(self, features: Tensor) -> None:
        self.mean = features.mean(0)
        centred = features - self.mean
        count = min(COMPONENTS, len(features) - 1, features.shape[1])
        self.directions = torch.pca_lowrank(centred, count, center=False)[2]
        self.scale = (centred @ self.directions).std(0).clamp(min=1e-6).rsqrt()

    def __call__(self, features: Tensor) -> Tensor:
        """Places of features ``(N, D)``, ``(N, COMPONENTS)`` or as many as vary."""
        return (features - self.mean) @ self.directions * self.scale


def _standardised(pictures: np.ndarray, part: str) -> Tensor:
    """A part of pictures as the network sees it, ``(N, 3, height, width)`` in [-1, 1]."""
    grey = [
        cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[PARTS[part]].mean(-1)
        for picture in pictures
    ]
    values = torch.from_numpy(np.stack(grey)).float()[:, None]
    spread, mean = torch.std_mean(values, (2, 3), correction=0, keepdim=True)
    standardised = (0.45 * (values - mean) / (spread + 4.0)).clamp(-1.0, 1.0)
    resized = F.interpolate(standardised, PART_SIZE, mode="bilinear")
    return resized.expand(-1, 3, -1, -1)
