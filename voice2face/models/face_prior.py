"""Face prior: the mean face that every sampling starts from."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from voice2face.models.network import LATENT_RANGES, Network, Ranges, register_to_config


class FacePrior(Network):
    """Z^prior, the mean latent over sex-balanced faces (SCLDM, Eq. 3).

    Args:
        latent_channels: channels of the latent.
        latent_size: side of the square latent in positions.
        num_faces: N, the number of faces that the mean was taken over.
        weight: beta of Eq. 2, how far the prior shifts the noisy latents.
    """

    ranges: ClassVar[Ranges] = {**LATENT_RANGES, "num_faces": (0, 10**9), "weight": (0.0, 1.0)}

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        latent_size: int = 8,
        num_faces: int = 0,
        weight: float = 0.01,
    ) -> None:
        super().__init__()
        shape = (latent_channels, latent_size, latent_size)
        self.mean = nn.Parameter(torch.zeros(shape), requires_grad=False)

    @classmethod
    def from_latents(cls, latents: Tensor, *, weight: float = 0.01) -> FacePrior:
        """Average latents: ``Z^prior = 1/N sum_f E_face(f)`` (Eq. 3).

        Args:
            latents: ``(N, latent_channels, latent_size, latent_size)``.
            weight: beta of Eq. 2.
        """
        prior = cls(latents.shape[1], latents.shape[2], len(latents), weight)
        prior.mean.data = latents.float().mean(0)
        return prior

    def forward(self) -> Tensor:
        """``beta Z^prior``, the shift of Eq. 2, ``(latent_channels, size, size)``."""
        return self.config.weight * self.mean
