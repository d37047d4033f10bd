"""Samplers as pure functions: no state is shared between calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Prediction(NamedTuple):
    """A noisy latent taken apart: ``Z^t = sqrt(abar_t) clean + sqrt(1 - abar_t) noise``."""

    clean: Tensor
    noise: Tensor


def split_prediction(
    output: Tensor, latents: Tensor, alpha_bar: Tensor | float, prediction_type: str
) -> Prediction:
    """Read a network's output as a clean latent and its noise.

    Args:
        output: what the network said of ``latents``.
        latents: Z^t without the prior's shift.
        alpha_bar: abar_t, broadcastable to the latents.
        prediction_type: ``"epsilon"`` (the noise, Eq. 6) or ``"v_prediction"``
            (``v = sqrt(abar_t) noise - sqrt(1 - abar_t) clean``, Salimans and Ho 2022).

    Raises:
        ValueError: unknown prediction type.
    """
    alpha_bar = torch.as_tensor(alpha_bar, dtype=latents.dtype, device=latents.device)
    signal, spread = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
    if prediction_type == "epsilon":
        return Prediction((latents - spread * output) / signal, output)
    if prediction_type == "v_prediction":
        return Prediction(signal * latents - spread * output, signal * output + spread * latents)
    raise ValueError(f"prediction_type is epsilon or v_prediction, not {prediction_type!r}")


def trailing_timesteps(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """Evenly spaced timesteps from the noisiest on, for any count from 1 to all of them.

    Raises:
        ValueError: the count is out of range.
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(
            f"num_inference_steps is 1 to {num_train_timesteps}, not {num_inference_steps}"
        )
    return [
        num_train_timesteps * (num_inference_steps - k) // num_inference_steps - 1
        for k in range(num_inference_steps)
    ]


def ddim(
    denoise: Callable[[Tensor, int], Prediction],
    latents: Tensor,
    alphas_cumprod: Sequence[float],
    timesteps: Sequence[int],
    *,
    eta: float = 0.0,
    draw_noise: Callable[[], Tensor] | None = None,
    callback: Callable[[int, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Walk from noise to a clean latent (Song et al. 2021).

    Args:
        denoise: takes (Z^t, t), returns the clean latent and the noise it sees in it.
        latents: Z^T, standard normal.
        alphas_cumprod: abar_t for every training timestep.
        timesteps: the timesteps to visit, falling.
        eta: 0 is deterministic DDIM, 1 has the variance of DDPM.
        draw_noise: makes fresh standard-normal noise of the latents' shape; needed if eta > 0.
        callback: after each step told (index, timestep, Z^t), returns the Z^t to go on with.

    Returns:
        Z^0, of the latents' shape.
    """
    if eta > 0 and draw_noise is None:
        raise ValueError("eta > 0 needs draw_noise")
    following = [*timesteps[1:], None]
    for index, (timestep, next_timestep) in enumerate(zip(timesteps, following, strict=True)):
        clean, noise = denoise(latents, timestep)
        alpha_bar = float(alphas_cumprod[timestep])
        next_alpha_bar = 1.0 if next_timestep is None else float(alphas_cumprod[next_timestep])
        sigma = (
            eta
            * ((1 - next_alpha_bar) / (1 - alpha_bar)) ** 0.5
            * max(0.0, 1 - alpha_bar / next_alpha_bar) ** 0.5
        )
        direction = max(0.0, 1 - next_alpha_bar - sigma**2) ** 0.5
        latents = next_alpha_bar**0.5 * clean + direction * noise
        if sigma > 0 and draw_noise is not None:
            latents = latents + sigma * draw_noise()
        if callback is not None:
            latents = callback(index, timestep, latents)
    return latents


def dpm_solver(
    denoise: Callable[[Tensor, int], Prediction],
    latents: Tensor,
    alphas_cumprod: Sequence[float],
    timesteps: Sequence[int],
    *,
    callback: Callable[[int, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Walk from noise to a clean latent in fewer steps: DPM-Solver++(2M) (Lu et al. 2022).

    With signal ``a = sqrt(abar)``, spread ``s = sqrt(1 - abar)`` and ``h`` the rise of
    ``log(a / s)`` over a step, a step is ``Z' = (s' / s) Z + a' (1 - exp(-h)) D``. DDIM takes for D
    the clean latent that is predicted; this solver goes on along the line through the last two
    predictions. The first and the last step are DDIM's.

    Args:
        denoise: as of ``ddim``.
        latents: as of ``ddim``.
        alphas_cumprod: as of ``ddim``.
        timesteps: as of ``ddim``.
        callback: as of ``ddim``.

    Returns:
        Z^0, of the latents' shape.
    """
    following = [*timesteps[1:], None]
    last_clean, last_rise = None, 0.0
    for index, (timestep, next_timestep) in enumerate(zip(timesteps, following, strict=True)):
        clean, _ = denoise(latents, timestep)
        if next_timestep is None:
            latents = clean
        else:
            alpha_bar, next_alpha_bar = (
                float(alphas_cumprod[t]) for t in (timestep, next_timestep)
            )
            rise = log_signal_to_noise(next_alpha_bar) - log_signal_to_noise(alpha_bar)
            direction = clean
            if last_clean is not None:
                direction = clean + rise / (2.0 * last_rise) * (clean - last_clean)
            shrunk = ((1.0 - next_alpha_bar) / (1.0 - alpha_bar)) ** 0.5
            latents = shrunk * latents - next_alpha_bar**0.5 * math.expm1(-rise) * direction
            last_clean, last_rise = clean, rise
        if callback is not None:
            latents = callback(index, timestep, latents)
    return latents


def log_signal_to_noise(alpha_bar: float) -> float:
    """``log(sqrt(abar) / sqrt(1 - abar))``."""
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))
