"""Sampling of one denoiser, guided by the voice and away from a weaker denoiser.

The first is classifier-free guidance (Ho and Salimans 2022), the second autoguidance (Karras et al.
2024, arXiv 2406.02507).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from voice2face.models.denoiser import Condition, Denoiser
from voice2face.models.face_prior import FacePrior
from voice2face.sampling import (
    Prediction,
    ddim,
    dpm_solver,
    split_prediction,
    trailing_timesteps,
)
from voice2face.settings import DISTILLED, Settings

LatentCallback = Callable[[int, int, Tensor], Tensor]


class Autoguidance(NamedTuple):
    """What a denoiser makes better than a weaker one, exaggerated.

    Where the two differ, the weaker one is wrong in the same way and further: going on from its
    prediction through the better one leads away from what both do badly.

    Attributes:
        weaker: a denoiser for the same latents and conditions, trained for less long.
        scale: w in ``weaker + w (denoiser - weaker)``; 1 is the denoiser alone.
    """

    weaker: Denoiser
    scale: float


LEAST_NOISE = 0.9  # by which the first noise is multiplied without variety
MOST_STEPS_AS_ONE = 8  # of loops without guidance, which are recorded whole


class DenoisingLoop(nn.Module):
    """A denoiser's steps from noise to a clean latent; nothing in them is random if eta is 0.

    It is a module so that it can be recorded as one, as networks are; see ``cuda_graphs``.

    Args:
        denoiser: the trained UNet.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        first_noise: Tensor,
        speech: Tensor,
        quality: Tensor,
        beside: Tensor | None,
        prior: FacePrior | None,
        schedule: DDIMScheduler,
        settings: Settings,
        draw_noise: Callable[[], Tensor] | None = None,
        callback: LatentCallback | None = None,
        autoguidance: Autoguidance | None = None,
    ) -> Tensor:
        """Take all steps.

        Args:
            first_noise: Z^T, ``(batch, latent_channels, latent_size, latent_size)``, float32.
            speech: as of ``sample_guided``.
            quality: likewise.
            beside: likewise, of the denoiser's type.
            prior: likewise.
            schedule: likewise.
            settings: likewise; variety is in the first noise.
            draw_noise: makes noise like the first one; needed where eta is more than 0.
            callback: as of ``sample_guided``.
            autoguidance: likewise.

        Returns:
            Z^0, of the first noise's shape.
        """
        denoiser, dtype, batch = self.denoiser, self.denoiser.dtype, len(first_noise)
        conditional = denoiser.condition(speech, quality)._replace(beside=beside)
        guided = settings.guidance_scale != 1.0
        both_conditions = (
            with_unconditional(conditional, denoiser, speech, quality) if guided else conditional
        )
        if autoguidance is not None:
            attributes = (
                denoiser.default_attributes(speech) if denoiser.config.heard_attributes else None
            )
            weaker_condition = autoguidance.weaker.condition(speech, quality, attributes=attributes)
            weaker_condition = weaker_condition._replace(beside=beside)
        shift = None if prior is None else prior().float()
        alphas_cumprod = schedule.alphas_cumprod.tolist()
        calls = itertools.count()
        difference = torch.zeros(())

        def denoise(latents: Tensor, timestep: int) -> Prediction:
            nonlocal difference
            both = guided and next(calls) % settings.guidance_every == 0
            copies = 2 if both else 1
            shown = (latents if shift is None else latents + shift).to(dtype)
            shown = shown.repeat(copies, 1, 1, 1)
            timesteps = torch.full((copies * batch,), timestep, device=first_noise.device)
            output = denoiser(shown, timesteps, both_conditions if both else conditional).float()
            if both:
                output, without_voice = output.chunk(2)
                difference = output - without_voice
            added = (settings.guidance_scale - 1.0) * difference if guided else 0.0
            if autoguidance is not None:
                weaker = autoguidance.weaker(
                    shown[:batch], timesteps[:batch], weaker_condition
                ).float()
                added = added + (autoguidance.scale - 1.0) * (output - weaker)
            return split_prediction(
                output + added, latents, alphas_cumprod[timestep], schedule.config.prediction_type
            )

        steps = (
            denoise,
            first_noise,
            alphas_cumprod,
            trailing_timesteps(settings.num_inference_steps, schedule.config.num_train_timesteps),
        )
        if settings.sampler in ("dpm++", "unipc"):
            return dpm_solver(*steps, corrected=settings.sampler == "unipc", callback=callback)
        return ddim(*steps, eta=settings.eta, draw_noise=draw_noise, callback=callback)


@torch.no_grad()
def sample_guided(
    loop: DenoisingLoop,
    schedule: DDIMScheduler,
    speech: Tensor,
    quality: Tensor,
    generators: Sequence[torch.Generator],
    settings: Settings,
    *,
    prior: FacePrior | None = None,
    beside: Tensor | None = None,
    callback: LatentCallback | None = None,
    autoguidance: Autoguidance | None = None,
) -> Tensor:
    """Draw one latent for each generator.

    Args:
        loop: of the denoiser that draws.
        schedule: abar_t and the prediction type; it is read, never changed.
        speech: Z^s, ``(batch, speech_dim)``, one row a picture.
        quality: picture quality to ask for, ``(batch, 6)``. Guidance does not exaggerate it.
        generators: one CPU generator a picture, for its noise; what it draws does not depend on
            the batch.
        settings: sampler, steps, guidance, eta and variety.
        prior: its shift is added to the latent that the denoiser is shown.
        beside: what the denoiser sees beside the latent, ``(batch, beside_channels, size, size)``.
        callback: see ``voice2face.sampling``; it sees Z^t without the shift.
        autoguidance: away from which denoiser to guide in every step, besides by the voice.

    Returns:
        ``(batch, latent_channels, latent_size, latent_size)``, float32.
    """
    if settings.sampler == DISTILLED:  # guidance is in its weights, and its steps are DDIM's
        settings = replace(settings, sampler="ddim", guidance_scale=1.0)
    config, device, dtype = loop.denoiser.config, loop.denoiser.device, loop.denoiser.dtype
    shape = (config.latent_channels, config.latent_size, config.latent_size)

    def draw_noise() -> Tensor:
        noise = [
            torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in generators
        ]
        return torch.stack(noise).to(device)

    first_noise = draw_noise() * noise_scale(settings.variety)
    beside = None if beside is None else beside.to(device, dtype)
    given = (first_noise, speech, quality, beside, prior, schedule)
    same_every_time = callback is None and autoguidance is None and settings.eta == 0.0
    few = settings.num_inference_steps <= MOST_STEPS_AS_ONE and settings.guidance_scale == 1.0
    if same_every_time and few:
        # without what makes no difference on the way, so that nothing is recorded twice
        bare = replace(settings, checkpoint="", watermark=True, variety=1.0)
        latents: Tensor = loop(*given, bare)
        return latents
    return loop.forward(*given, settings, draw_noise, callback, autoguidance)


def noise_scale(variety: float) -> float:
    """By what the first noise is multiplied: less noise leads to more typical faces.

    Args:
        variety: 0 to 1, see ``Settings``; 1 leaves the noise as it is.
    """
    return LEAST_NOISE + (1.0 - LEAST_NOISE) * variety


def with_unconditional(
    conditional: Condition, denoiser: Denoiser, speech: Tensor, quality: Tensor
) -> Condition:
    """Stack the condition on its unconditional copy, for one batched pass.

    Args:
        conditional: of ``batch`` rows.
        denoiser: which made it.
        speech: ``(batch, speech_dim)``, as it was made of.
        quality: ``(batch, 6)``, likewise.

    Returns:
        A condition of ``2 * batch`` rows.
    """
    none = torch.zeros(len(speech), dtype=torch.bool, device=denoiser.device)
    unconditional = denoiser.condition(speech, quality, speech_kept=none)
    return Condition(
        torch.cat([conditional.speech, unconditional.speech]),
        torch.cat([conditional.numbers, unconditional.numbers]),
        None if conditional.beside is None else conditional.beside.repeat(2, 1, 1, 1),
    )
