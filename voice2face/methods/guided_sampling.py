"""Sampling with classifier-free guidance by the voice (Ho and Salimans 2022), of one denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.models.denoiser import Denoiser
from voice2face.sampling import (
    Prediction,
    ddim,
    dpm_solver,
    split_prediction,
    trailing_timesteps,
)
from voice2face.settings import Settings

LatentCallback = Callable[[int, int, Tensor], Tensor]


@torch.no_grad()
def sample_guided(
    denoiser: Denoiser,
    schedule: DDIMScheduler,
    speech: Tensor,
    quality: Tensor,
    generators: Sequence[torch.Generator],
    settings: Settings,
    *,
    shift: Tensor | None = None,
    beside: Tensor | None = None,
    callback: LatentCallback | None = None,
) -> Tensor:
    """Draw one latent for each generator.

    Args:
        denoiser: the trained UNet.
        schedule: abar_t and the prediction type; it is read, never changed.
        speech: Z^s, ``(batch, speech_dim)``, one row a picture.
        quality: picture quality to ask for, ``(batch, 6)``. Guidance does not exaggerate it.
        generators: one CPU generator a picture, for its noise; what it draws does not depend on
            the batch.
        settings: sampler, steps, guidance and eta.
        shift: added to the latent that the denoiser is shown, ``(channels, size, size)``.
        beside: what the denoiser sees beside the latent, ``(batch, beside_channels, size, size)``.
        callback: see ``voice2face.sampling``; it sees Z^t without the shift.

    Returns:
        ``(batch, latent_channels, latent_size, latent_size)``, float32.
    """
    batch, device, dtype = len(speech), denoiser.device, denoiser.dtype
    config = denoiser.config
    shape = (config.latent_channels, config.latent_size, config.latent_size)
    scale = settings.guidance_scale

    def draw_noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    first_noise = draw_noise()
    guided = scale != 1.0
    copies = 2 if guided else 1
    told_the_voice = (torch.arange(copies * batch, device=device) < batch) if guided else None
    condition = denoiser.condition(
        speech.repeat(copies, 1), quality.repeat(copies, 1), speech_kept=told_the_voice
    )
    if beside is not None:
        condition = condition._replace(beside=beside.to(device, dtype).repeat(copies, 1, 1, 1))
    shift = torch.zeros(shape) if shift is None else shift
    shift = shift.to(device, torch.float32)
    alphas_cumprod = schedule.alphas_cumprod.tolist()

    def denoise(latents: Tensor, timestep: int) -> Prediction:
        shown = (latents + shift).to(dtype).repeat(copies, 1, 1, 1)
        timesteps = torch.full((copies * batch,), timestep, device=device)
        output = denoiser(shown, timesteps, condition).float()
        if guided:
            told, untold = output.chunk(2)
            output = untold + scale * (told - untold)
        return split_prediction(
            output, latents, alphas_cumprod[timestep], schedule.config.prediction_type
        )

    steps = (
        denoise,
        first_noise,
        alphas_cumprod,
        trailing_timesteps(settings.num_inference_steps, schedule.config.num_train_timesteps),
    )
    if settings.sampler == "dpm++":
        return dpm_solver(*steps, callback=callback)
    return ddim(*steps, eta=settings.eta, draw_noise=draw_noise, callback=callback)
