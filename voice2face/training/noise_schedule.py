"""How noisy the latents are that a denoiser learns from."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

LOG_NOISE_MEAN, LOG_NOISE_STD = 0.3, 1.0  # about EDM2's, at latents of unit variance


def noise_schedule(prediction_type: str) -> DDIMScheduler:
    """The forward process: latent diffusion's betas for epsilon, a cosine for velocity.

    With velocity prediction the last step may be pure noise, so the cosine's vanishing abar_T
    does no harm; epsilon prediction divides by sqrt(abar_T) and needs one that does not vanish.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2" if prediction_type == "v_prediction" else "scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        clip_sample=False,
        timestep_spacing="trailing",
    )


def draw_timesteps(schedule: DDIMScheduler, count: int, lognormal: float) -> Tensor:
    """Noise levels to learn from, as ``(count,)`` steps of the schedule.

    The paper draws every step alike. EDM (Karras et al. 2022, arXiv 2206.00364) draws the noise,
    as a share of the signal, lognormally: ``ln(sigma) ~ N(mean, std)``, where
    ``sigma_t = sqrt((1 - abar_t) / abar_t)``. That teaches most at the levels at which a face takes
    shape, and least where little can be seen or little is left to do.

    Args:
        schedule: of the noise.
        count: of levels.
        lognormal: share of them, 0 to 1, that is drawn so; the others are drawn as in the paper.
    """
    alpha_bar = schedule.alphas_cumprod.double().cpu()  # diffusers moves it where it was last used
    log_noise = 0.5 * torch.log((1.0 - alpha_bar) / alpha_bar)
    wanted = LOG_NOISE_MEAN + LOG_NOISE_STD * torch.randn(count, dtype=torch.float64)
    nearest = torch.searchsorted(log_noise, wanted).clamp(max=len(log_noise) - 1)
    alike = torch.randint(0, len(log_noise), (count,))
    return torch.where(torch.rand(count) < lognormal, nearest, alike)
