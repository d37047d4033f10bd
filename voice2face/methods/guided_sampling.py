"""Sampling with classifier-free guidance by the voice (Ho and Salimans 2022), of one denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.models.denoiser import Condition, Denoiser
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

    def draw_noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    first_noise = draw_noise()
    condition = told_and_untold(denoiser, speech, quality, beside)
    told = Condition(*(part if part is None else part[:batch] for part in condition))
    shift = torch.zeros(shape) if shift is None else shift
    shift = shift.to(device, torch.float32)
    alphas_cumprod = schedule.alphas_cumprod.tolist()
    train_steps = schedule.config.num_train_timesteps

    def denoise(latents: Tensor, timestep: int) -> Prediction:
        guided = settings.guides_at(timestep / train_steps)
        copies = 2 if guided else 1
        shown = (latents + shift).to(dtype).repeat(copies, 1, 1, 1)
        timesteps = torch.full((copies * batch,), timestep, device=device)
        output = denoiser(shown, timesteps, condition if guided else told).float()
        if guided:
            with_voice, without = output.chunk(2)
            output = without + settings.guidance_scale * (with_voice - without)
        return split_prediction(
            output, latents, alphas_cumprod[timestep], schedule.config.prediction_type
        )

    steps = (
        denoise,
        first_noise,
        alphas_cumprod,
        trailing_timesteps(settings.num_inference_steps, train_steps),
    )
    if settings.sampler == "dpm++":
        return dpm_solver(*steps, callback=callback)
    return ddim(*steps, eta=settings.eta, draw_noise=draw_noise, callback=callback)


def told_and_untold(
    denoiser: Denoiser, speech: Tensor, quality: Tensor, beside: Tensor | None
) -> Condition:
    """What the denoiser is told with the voice, and below it the same without.

    Args:
        denoiser: the trained UNet.
        speech: ``(batch, speech_dim)``.
        quality: ``(batch, 6)``.
        beside: ``(batch, beside_channels, size, size)``.

    Returns:
        A condition of ``2 * batch`` rows.
    """
    batch = len(speech)
    kept = torch.arange(2 * batch, device=denoiser.device) < batch
    condition = denoiser.condition(speech.repeat(2, 1), quality.repeat(2, 1), speech_kept=kept)
    if beside is None:
        return condition
    both = beside.to(denoiser.device, denoiser.dtype).repeat(2, 1, 1, 1)
    return condition._replace(beside=both)
