"""Face encoder and face decoder: pictures to latents Z^f and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.models.network import (
    CHANNELS,
    DIMENSION,
    LATENT_RANGES,
    Network,
    Ranges,
    register_to_config,
)

PICTURE_RANGES: Ranges = {
    "image_size": (8, 1024),
    "patch_size": (1, 32),
    "block_channels": CHANNELS,
    "blocks_per_level": (0, 16),
    "latent_channels": LATENT_RANGES["latent_channels"],
}


class ResidualBlock(nn.Module):
    """``x + conv(silu(conv(silu(norm(x)))))``, normalised over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        update = self.conv1(F.silu(normed))
        return hidden + self.conv2(F.silu(update))


def latent_size_of(config: Any) -> int:
    """Side of the square latent of an encoder or a decoder, in positions."""
    halvings = len(config.block_channels) - 1
    side: int = config.image_size // (config.patch_size * 2**halvings)
    return side


class FaceEncoder(Network):
    """A VGGFace-style CNN from an aligned face to its latent Z^f.

    Latent channels leave the network with zero mean and unit variance over the training faces
    (a batch normalisation without affine part, running statistics at inference), so a diffusion
    model can be trained on them as they are.

    Args:
        image_size: side of the square input in pixels.
        patch_size: side of the patches that the first convolution sees as one position.
        block_channels: width of each level; every level after the first halves the resolution.
        blocks_per_level: residual blocks at each level.
        latent_channels: channels of Z^f.
        embedding_dim: size of the vector that is compared with speech embeddings.
    """

    ranges: ClassVar[Ranges] = {**PICTURE_RANGES, "embedding_dim": DIMENSION}

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 2,
        block_channels: Sequence[int] = (64, 128, 256, 320),
        blocks_per_level: Sequence[int] = (0, 1, 1, 1),
        latent_channels: int = 16,
        embedding_dim: int = 256,
    ) -> None:
        super().__init__()
        self.patchify = nn.PixelUnshuffle(patch_size)
        layers: list[nn.Module] = [nn.Conv2d(3 * patch_size**2, block_channels[0], 3, padding=1)]
        for level, (channels, blocks) in enumerate(
            zip(block_channels, blocks_per_level, strict=True)
        ):
            if level > 0:
                layers.append(nn.Conv2d(block_channels[level - 1], channels, 3, 2, padding=1))
            layers.extend(ResidualBlock(channels) for _ in range(blocks))
        self.body = nn.Sequential(*layers)
        self.to_latent = nn.Conv2d(block_channels[-1], latent_channels, 1)
        self.standardise = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02)
        self.to_embedding = nn.Linear(latent_channels * self.latent_size**2, embedding_dim)

    @property
    def latent_size(self) -> int:
        """Side of the square latent in positions."""
        return latent_size_of(self.config)

    def forward(self, images: Tensor) -> Tensor:
        """Encode faces.

        Args:
            images: ``(batch, 3, image_size, image_size)``, RGB in [-1, 1].

        Returns:
            Z^f, ``(batch, latent_channels, latent_size, latent_size)``, unit variance a channel.
        """
        latents = self.to_latent(F.silu(self.body(self.patchify(images))))
        latents = latents.float()
        with torch.autocast(latents.device.type, enabled=False):
            if self.training:
                return self.standardise(latents)
            mean, variance = self.standardise.running_mean, self.standardise.running_var
            assert mean is not None
            assert variance is not None
            return F.batch_norm(latents, mean.float(), variance.float(), eps=self.standardise.eps)

    def embed(self, latents: Tensor) -> Tensor:
        """Project latents to unit vectors that lie in the space of the speech embeddings.

        Args:
            latents: Z^f, ``(batch, latent_channels, latent_size, latent_size)``.

        Returns:
            ``(batch, embedding_dim)``, each row of length one.
        """
        return F.normalize(self.to_embedding(latents.flatten(1)).float(), dim=-1)


class FaceDecoder(Network):
    """The encoder's mirror: from a latent Z^f back to a picture.

    Args:
        image_size: side of the square output in pixels.
        patch_size: side of the patches that the last convolution writes from one position.
        block_channels: width of each level, as in the encoder (last entry next to the latent).
        blocks_per_level: residual blocks at each level, as in the encoder.
        latent_channels: channels of Z^f.
    """

    ranges: ClassVar[Ranges] = PICTURE_RANGES

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 2,
        block_channels: Sequence[int] = (64, 128, 256, 320),
        blocks_per_level: Sequence[int] = (1, 2, 2, 2),
        latent_channels: int = 16,
    ) -> None:
        super().__init__()
        widths = list(reversed(block_channels))
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[0], 3, padding=1)]
        for level, (channels, blocks) in enumerate(
            zip(widths, reversed(blocks_per_level), strict=True)
        ):
            if level > 0:
                layers.append(nn.Conv2d(widths[level - 1], 4 * channels, 1))
                layers.append(nn.PixelShuffle(2))
            layers.extend(ResidualBlock(channels) for _ in range(blocks))
        self.body = nn.Sequential(*layers)
        self.to_pixels = nn.Conv2d(widths[-1], 3 * patch_size**2, 3, padding=1)
        self.unpatchify = nn.PixelShuffle(patch_size)

    @property
    def latent_size(self) -> int:
        """Side of the square latent in positions."""
        return latent_size_of(self.config)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents.

        Args:
            latents: Z^f, ``(batch, latent_channels, latent_size, latent_size)``.

        Returns:
            ``(batch, 3, image_size, image_size)``, RGB around [-1, 1], not clamped.
        """
        return self.unpatchify(self.to_pixels(F.silu(self.body(latents))))
