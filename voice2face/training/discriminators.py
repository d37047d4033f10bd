"""What tells decoded pictures from photographs, patch by patch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SCALES = 2


class PatchDiscriminator(nn.Module):
    """Says of every patch of a picture whether it looks real (Isola et al. 2017)."""

    def __init__(self, patch_size: int, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(patch_size),
            spectral_norm(nn.Conv2d(3 * patch_size**2, channels, 3, padding=1)),
            nn.LeakyReLU(0.2),
        ]
        for width in (channels, 2 * channels):
            layers += [
                spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.2),
            ]
        layers.append(spectral_norm(nn.Conv2d(4 * channels, 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Verdicts ``(B, 1, h, w)``, high for real, of pictures ``(B, 3, H, W)`` in [-1, 1]."""
        verdict: Tensor = self.layers(images)
        return verdict


class Discriminators(nn.Module):
    """Patch discriminators of pictures at full, half, ... size, which see ever larger parts.

    Args:
        patch_size: of the decoder.
        scales: how many.
    """

    def __init__(self, patch_size: int, scales: int = SCALES) -> None:
        super().__init__()
        self.members = nn.ModuleList(PatchDiscriminator(patch_size) for _ in range(scales))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Verdicts of each, of pictures ``(B, 3, H, W)`` in [-1, 1]."""
        verdicts = []
        for member in self.members:
            verdicts.append(member(images).float())
            images = F.avg_pool2d(images, 2)
        return verdicts

    def loss(self, real: Tensor, generated: Tensor) -> Tensor:
        """Hinge loss of the discriminators; no gradient reaches the pictures."""
        return discriminator_loss(self(real), self(generated.detach()))

    def generator_loss(self, generated: Tensor) -> Tensor:
        """Hinge loss of what generated the pictures; no gradient reaches the discriminators."""
        return generator_loss(frozen_verdicts(self, generated))


def discriminator_loss(real: list[Tensor], generated: list[Tensor]) -> Tensor:
    """Hinge loss of what gave these verdicts on real and on generated things."""
    opinions = zip(real, generated, strict=True)
    losses = [F.relu(1 - one).mean() + F.relu(1 + other).mean() for one, other in opinions]
    return torch.stack(losses).mean()


def generator_loss(generated: list[Tensor]) -> Tensor:
    """Hinge loss of what generated the things that these are the verdicts on."""
    return -torch.stack([verdict.mean() for verdict in generated]).mean()


def frozen_verdicts(discriminator: nn.Module, generated: Any) -> list[Tensor]:
    """A discriminator's verdicts, through which no gradient reaches the discriminator."""
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
    verdicts: list[Tensor] = functional_call(discriminator, {**frozen, **buffers}, (generated,))
    return verdicts
