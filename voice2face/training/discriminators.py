"""What tells decoded pictures from photographs, patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
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
        layers.append(nn.Conv2d(4 * channels, 1, 3, padding=1))
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


class FeatureDiscriminator(nn.Module):
    """Says of every position in a network's feature maps whether the picture looks real.

    What a network has learnt of pictures tells decoded ones from photographs much sooner than a
    discriminator that has to learn to see (projected GANs: Sauer et al. 2021, arXiv 2111.01007).

    Args:
        widths: channels of each map.
        channels: of the layers between.
    """

    def __init__(self, widths: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(width, channels, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)),
                nn.LeakyReLU(0.2),
                nn.Conv2d(channels, 1, 1),
            )
            for width in widths
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Verdicts ``(B, 1, h, w)``, high for real, of maps of unit length, ``(B, C, h, w)``."""
        heads = zip(self.heads, maps, strict=True)
        return [head(features * features.shape[1] ** 0.5).float() for head, features in heads]

    def losses(self, real: list[Tensor], generated: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Hinge losses of what generated the pictures and of the discriminator, each apart."""
        of_generated = self([features.detach() for features in generated])
        return (
            generator_loss(frozen_verdicts(self, generated)),
            discriminator_loss(self(real), of_generated),
        )


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
