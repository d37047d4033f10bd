"""The denoiser that learns to draw in a few steps, as it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from voice2face.models import Denoiser
from voice2face.pipeline import Voice2FacePipeline
from voice2face.sampling import split_prediction, trailing_timesteps


class Student:
    """The changed denoiser, whose few steps are DDIM's without guidance.

    Args:
        teacher: the checkpoint; its noise schedule, prior and speech encoder's heads are used.
        steps: to take.
    """

    def __init__(self, teacher: Voice2FacePipeline, steps: int) -> None:
        schedule = teacher.scheduler
        self.kind = schedule.config.prediction_type
        timesteps = trailing_timesteps(steps, schedule.config.num_train_timesteps)
        self.timesteps = torch.tensor(timesteps, device=teacher.device)
        self.alpha_bar = schedule.alphas_cumprod[timesteps].to(teacher.device)
        angles = torch.acos(self.alpha_bar.sqrt())
        self.turns = angles - torch.cat([angles[1:], torch.zeros_like(angles[:1])])
        self.shift = teacher.method.parts()["face_prior"]().detach()

    def velocity(
        self, denoiser: Denoiser, speech: Tensor, quality: Tensor, noisy: Tensor, parts: Tensor
    ) -> Tensor:
        """The velocity seen in Z^t ``(N, C, H, W)`` before each row's step, by its number."""
        condition = denoiser.condition(speech, quality)
        output = denoiser(noisy + self.shift, self.timesteps[parts], condition)
        alpha_bar = self.alpha_bar[parts][:, None, None, None]
        seen = split_prediction(output.float(), noisy, alpha_bar, self.kind)
        return alpha_bar.sqrt() * seen.noise - (1.0 - alpha_bar).sqrt() * seen.clean

    def leading(self, start: Tensor, end: Tensor, parts: Tensor) -> Tensor:
        """The velocity that leads from one end of each row's step to the other.

        DDIM turns (Z^t, v) by the angle between the noise levels, so
        ``Z^s = cos(turn) Z^t - sin(turn) v``.
        """
        turn = self.turns[parts][:, None, None, None]
        return (turn.cos() * start - end) / turn.sin()

    def draw(
        self,
        denoiser: Denoiser,
        speech: Tensor,
        quality: Tensor,
        noise: Tensor,
        learning_steps: int = 0,
    ) -> Tensor:
        """All steps, from noise to Z^f; gradients flow through the last ``learning_steps``."""
        latents = noise
        for part, turn in enumerate(self.turns):
            parts = torch.full((len(noise),), part, device=noise.device)
            if part == len(self.turns) - learning_steps:
                # older versions of PyTorch would go on with casts that know no gradient
                torch.clear_autocast_cache()
            with torch.set_grad_enabled(part >= len(self.turns) - learning_steps):
                velocity = self.velocity(denoiser, speech, quality, latents, parts)
            latents = turn.cos() * latents - turn.sin() * velocity
        return latents
