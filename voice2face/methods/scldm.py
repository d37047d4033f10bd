"""SCLDM (Wang, Liu, Wang, Cheng 2023, arXiv 2310.03363) in the paper's own terms.

The forward process is the standard variance-preserving one, shifted by the face prior:

    Z^t  = sqrt(abar_t) Z^0 + sqrt(1 - abar_t) eps        (Eq. 4, which the paper abbreviates)
    Z^t* = Z^t + beta Z^prior                             (Eq. 2)

and the denoiser is trained on ``|| eps - eps_theta(Z^t*, t, Z^s) ||^2`` (Eq. 6). Sampling starts
from ``N(beta Z^prior, I)`` and takes DDIM steps on Z^t, showing the denoiser Z^t*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.models.denoiser import Condition, Denoiser
from voice2face.models.face_prior import FacePrior
from voice2face.sampling import Prediction, ddim, split_prediction, trailing_timesteps


def shifted_noising(
    clean: Tensor, noise: Tensor, timesteps: Tensor, schedule: DDIMScheduler, prior: FacePrior
) -> Tensor:
    """Z^t* of Eq. 2 and Eq. 4 for clean latents and noise ``(B, C, H, W)``, timesteps ``(B,)``."""
    return schedule.add_noise(clean, noise, timesteps) + prior()


def denoising_loss(
    denoiser: Denoiser,
    prior: FacePrior,
    schedule: DDIMScheduler,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Condition,
) -> Tensor:
    """Mean squared error of Eq. 6, for each row ``(B,)``.

    With ``prediction_type="v_prediction"`` the network is written in terms of the velocity, and
    the same error of eps is weighted by ``1 / abar_t``.
    """
    noisy = shifted_noising(clean, noise, timesteps, schedule, prior)
    output = denoiser(noisy, timesteps, condition).float()
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(clean, noise, timesteps)
    else:
        target = noise
    return (output - target).square().mean((1, 2, 3))


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser,
    prior: FacePrior,
    schedule: DDIMScheduler,
    speech: Tensor,
    generators: Sequence[torch.Generator],
    *,
    num_inference_steps: int = 25,
    guidance_scale: float = 2.0,
    eta: float = 0.0,
    callback: Callable[[int, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Draw one face latent for each generator.

    Args:
        denoiser: the trained UNet.
        prior: the face prior.
        schedule: abar_t and the prediction type; it is read, never changed.
        speech: Z^s, ``(batch, speech_dim)``, one row a picture.
        generators: one CPU generator a picture, for its noise and the quality that is asked for;
            what it draws does not depend on the batch.
        num_inference_steps: DDIM steps, 1 to 1000.
        guidance_scale: 1 follows the voice as trained, more exaggerates it, 0 ignores it
            (classifier-free guidance by the voice alone: the quality asked for is not
            exaggerated).
        eta: 0 is deterministic after the first noise, 1 has the variance of DDPM.
        callback: see ``voice2face.sampling.ddim``; it sees Z^t without the prior's shift.

    Returns:
        Z^f, ``(batch, latent_channels, latent_size, latent_size)``, float32.
    """
    batch, device, dtype = len(speech), denoiser.device, denoiser.dtype
    config = denoiser.config
    shape = (config.latent_channels, config.latent_size, config.latent_size)

    def draw_noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    first_noise = draw_noise()
    quality = denoiser.good_portraits(generators)
    guided = guidance_scale != 1.0
    copies = 2 if guided else 1
    told_the_voice = (torch.arange(copies * batch, device=device) < batch) if guided else None
    condition = denoiser.condition(
        speech.repeat(copies, 1), quality.repeat(copies, 1), speech_kept=told_the_voice
    )
    shift = prior().to(device, torch.float32)
    alphas_cumprod = schedule.alphas_cumprod.tolist()

    def denoise(latents: Tensor, timestep: int) -> Prediction:
        shown = (latents + shift).to(dtype).repeat(copies, 1, 1, 1)
        timesteps = torch.full((copies * batch,), timestep, device=device)
        output = denoiser(shown, timesteps, condition).float()
        if guided:
            told, untold = output.chunk(2)
            output = untold + guidance_scale * (told - untold)
        return split_prediction(
            output, latents, alphas_cumprod[timestep], schedule.config.prediction_type
        )

    timesteps = trailing_timesteps(num_inference_steps, schedule.config.num_train_timesteps)
    return ddim(
        denoise,
        first_noise,
        alphas_cumprod,
        timesteps,
        eta=eta,
        draw_noise=draw_noise,
        callback=callback,
    )
