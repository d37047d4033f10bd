"""The denoiser that learns to draw in a few steps, as it draws."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.models import Denoiser
from voice2face.models.denoiser import Condition
from voice2face.sampling import split_prediction, trailing_timesteps


class Student:
    """The changed denoiser, whose few steps are DDIM's without guidance.

    Args:
        schedule: noise levels.
        steps: to take.
        shift: of the face prior, added to what the denoiser is shown; zeros where there is none.
    """

    def __init__(self, schedule: DDIMScheduler, steps: int, shift: Tensor) -> None:
        self.kind = schedule.config.prediction_type
        timesteps = trailing_timesteps(steps, schedule.config.num_train_timesteps)
        self.timesteps = torch.tensor(timesteps, device=shift.device)
        self.alpha_bar = schedule.alphas_cumprod[timesteps].to(shift.device)
        angles = torch.acos(self.alpha_bar.sqrt())
        self.angle_steps = angles - torch.cat([angles[1:], torch.zeros_like(angles[:1])])
        self.shift = shift

    def velocity(
        self, denoiser: Denoiser, condition: Condition, noisy: Tensor, parts: Tensor
    ) -> Tensor:
        """The velocity seen in Z^t ``(N, C, H, W)`` before each row's step, by its number."""
        output = denoiser(noisy + self.shift, self.timesteps[parts], condition)
        alpha_bar = self.alpha_bar[parts][:, None, None, None]
        seen = split_prediction(output.float(), noisy, alpha_bar, self.kind)
        return alpha_bar.sqrt() * seen.noise - (1.0 - alpha_bar).sqrt() * seen.clean

    def target_velocity(self, start: Tensor, end: Tensor, parts: Tensor) -> Tensor:
        """The velocity that leads from one end of each row's step to the other.

        DDIM turns (Z^t, v) by the angle between the noise levels (Salimans and Ho 2022), so
        ``Z^s = cos(angle) Z^t - sin(angle) v``.
        """
        angle = self.angle_steps[parts][:, None, None, None]
        return (angle.cos() * start - end) / angle.sin()

    def draw(
        self,
        denoiser: Denoiser,
        condition: Condition,
        noise: Tensor,
        learning_steps: int = 0,
    ) -> Tensor:
        """All steps, from noise to Z^f; gradients flow through the last ``learning_steps``."""
        latents = noise
        for part, angle in enumerate(self.angle_steps):
            parts = torch.full((len(noise),), part, device=noise.device)
            if part == len(self.angle_steps) - learning_steps:
                # older versions of PyTorch would go on with casts that know no gradient
                torch.clear_autocast_cache()
            with torch.set_grad_enabled(part >= len(self.angle_steps) - learning_steps):
                velocity = self.velocity(denoiser, condition, latents, parts)
            latents = angle.cos() * latents - angle.sin() * velocity
        return latents
