"""LPIPS-style distance between pictures, over the features of SqueezeNet."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.errors import SettingError


class Fire(nn.Module):
    """SqueezeNet's squeeze and expand."""

    def __init__(self, channels_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(features))
        return F.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1))


class PerceptualLoss(nn.Module):
    """LPIPS-style distance (Zhang et al. 2018): squared difference of unit-normalised features.

    Args:
        weights: a safetensors file of ImageNet SqueezeNet 1.0 features, torchvision's names;
            ``None`` leaves the features random.

    Raises:
        SettingError: there is no such file, or it holds something else.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 96, 7, stride=2),
                "3": Fire(96, 16, 64),
                "4": Fire(128, 16, 64),
                "5": Fire(128, 32, 128),
                "7": Fire(256, 32, 128),
                "8": Fire(256, 48, 192),
                "9": Fire(384, 48, 192),
                "10": Fire(384, 64, 256),
                "12": Fire(512, 64, 256),
            }
        )
        if weights is not None and not weights.is_file():
            raise SettingError(f"there is no {weights}; docs/training.md says how to make it")
        if weights is not None:
            try:
                self.load_state_dict(load_file(weights))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise SettingError(
                    f"{weights} does not hold the features of SqueezeNet 1.0; docs/training.md "
                    "says how to make it"
                ) from error
        self.requires_grad_(False)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def maps(self, images: Tensor, depth: int | None = None) -> list[Tensor]:
        """Feature maps of RGB pictures in [-1, 1], each position of unit length.

        Args:
            images: ``(B, 3, H, W)``.
            depth: how many, from the finest on; all without it.
        """
        features = ((images + 1) / 2 - self.mean) / self.std
        collected = []
        for name, layer in self.features.items():
            if name in {"3", "7", "12"}:
                features = F.max_pool2d(features, 3, 2, ceil_mode=True)
            features = F.relu(layer(features)) if name == "0" else layer(features)
            if name in {"0", "4", "7", "9", "12"}:
                collected.append(F.normalize(features.float(), dim=1))
            if len(collected) == depth:
                break
        return collected

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Scalar distance between two batches of pictures ``(B, 3, H, W)`` in [-1, 1]."""
        with torch.no_grad():
            wanted = self.maps(target)
        distances = [
            (one - other).square().sum(1).mean()
            for one, other in zip(self.maps(images), wanted, strict=True)
        ]
        return torch.stack(distances).mean()
