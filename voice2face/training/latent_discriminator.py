"""What tells drawn latents from those of faces, by what a frozen denoiser sees in them.

A denoiser knows what faces look like at every noise level, from a whole head down to an eyelid.
Latent adversarial diffusion distillation (Sauer et al. 2024, arXiv 2403.12015) therefore looks at
noisy latents through the teacher, and only the small heads upon its features are trained.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from voice2face.models import Denoiser
from voice2face.models.denoiser import Condition
from voice2face.training.discriminators import discriminator_loss, frozen_verdicts, generator_loss

CHANNELS = 64
LEAST_NOISE, MOST_NOISE = 0.05, 0.75  # as shares of the schedule's steps


class LatentDiscriminator(nn.Module):
    """One head for each group of a denoiser's features.

    Args:
        widths: channels of each group.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width, affine=False),
                spectral_norm(nn.Conv2d(width, CHANNELS, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(CHANNELS, 1, 3, padding=1)),
            )
            for width in widths
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Verdicts ``(B, 1, h, w)``, high for real, of features ``(B, width, h, w)``."""
        return [head(part).float() for head, part in zip(self.heads, features, strict=True)]

    def losses(self, real: list[Tensor], generated: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Hinge losses of what drew the latents and of the heads, each without the other."""
        heads = discriminator_loss(self(real), self([part.detach() for part in generated]))
        return generator_loss(frozen_verdicts(self, generated)), heads


class DenoiserFeatures:
    """What a frozen denoiser sees in latents that are made noisy for it.

    Args:
        denoiser: whose parameters take no gradient.
        schedule: of the noise.
        shift: of the face prior, added to what the denoiser is shown.
    """

    def __init__(self, denoiser: Denoiser, schedule: DDIMScheduler, shift: Tensor) -> None:
        self.denoiser, self.schedule, self.shift = denoiser, schedule, shift
        unet = denoiser.unet
        self.blocks = [unet.mid_block, *unet.up_blocks]
        widths = unet.config.block_out_channels
        self.widths = [widths[-1], *reversed(widths)]

    def __call__(self, latents: Tensor, condition: Condition) -> list[Tensor]:
        """Features ``(B, width, h, w)`` of ``blocks``, of clean latents ``(B, C, H, W)``."""
        seen: list[Tensor] = []
        steps = self.schedule.config.num_train_timesteps
        timesteps = torch.randint(
            int(LEAST_NOISE * steps),
            int(MOST_NOISE * steps),
            (len(latents),),
            device=latents.device,
        )
        noisy = self.schedule.add_noise(latents, torch.randn_like(latents), timesteps)
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
            for block in self.blocks
        ]
        try:
            self.denoiser(noisy + self.shift, timesteps, condition)
        finally:
            for hook in hooks:
                hook.remove()
        return seen
