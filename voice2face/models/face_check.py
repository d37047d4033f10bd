"""The face check: how well the face in the picture of a latent is drawn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from voice2face.models.network import LATENT_RANGES, Network, Ranges, register_to_config

GROUPS = 8


class FaceCheck(Network):
    """A small convolutional network that has learnt from detectors and from photographs.

    It looks at Z^f, before anything is decoded; neither the detector of faces nor the photographs,
    whose mouths and faces those of portraits are to be near, are needed any more.

    Args:
        latent_channels: channels of the latent.
        latent_size: side of the square latent in positions.
        width: channels at full resolution; twice as many at half of it; a multiple of 8.
        least_confidence: below it a latent is refused.
        merits: how many things it tells apart that a portrait is to have.
    """

    ranges: ClassVar[Ranges] = {
        **LATENT_RANGES,
        "width": (8, 1024),
        "least_confidence": (-1e3, 1e3),
        "merits": (1, 64),
    }

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        latent_size: int = 8,
        width: int = 24,
        least_confidence: float = 0.0,
        merits: int = 1,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *convolution_block(latent_channels, width),
            *convolution_block(width, width),
            *convolution_block(width, 2 * width, stride=2),
            *convolution_block(2 * width, 2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * ((latent_size + 1) // 2) ** 2, merits),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Confidence that the face is drawn well, ``(batch,)``, of no unit: more is surer.

        It is that in the merit which a portrait has least of.

        Args:
            latents: Z^f, ``(batch, latent_channels, latent_size, latent_size)``.
        """
        return self.merits(latents).amin(1)

    def merits(self, latents: Tensor) -> Tensor:
        """Confidence in each merit, ``(batch, merits)``.

        Args:
            latents: as of ``forward``.
        """
        merits: Tensor = self.layers(latents)
        return merits

    @torch.no_grad()
    def raise_bars(self, bars: Tensor) -> None:
        """Take a number off the confidence in each merit from now on.

        Args:
            bars: ``(merits,)``.
        """
        self.layers[-1].get_parameter("bias").sub_(bars)

    @torch.no_grad()
    def confidences(self, latents: Tensor) -> list[float]:
        """Confidences as of ``forward``.

        Args:
            latents: as of ``forward``, of any type and on any device.
        """
        return self(latents.to(self.device, self.dtype)).tolist()


def convolution_block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Layers of a 3x3 convolution, normalised by groups, with SiLU.

    Args:
        inputs: channels that it takes.
        outputs: channels that it gives; a multiple of 8.
        stride: of the convolution.
    """
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return [convolution, nn.GroupNorm(GROUPS, outputs), nn.SiLU()]
