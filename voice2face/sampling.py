"""Samplers as pure functions: no state is shared between calls.

The schedulers of diffusers are not used. Where the number of steps does not divide that of training
timesteps, its DDIM steps to other timesteps than are visited next; and its UniPC corrects a step
from the latents before it, which loses part of what a callback changed in those after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    signal, spread = alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5
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
    """Denoise noise to a clean latent: DDIM (Song et al. 2021).

    Args:
        denoise: takes (Z^t, t), returns the clean latent and the noise it sees in it.
        latents: Z^T, standard normal.
        alphas_cumprod: abar_t for every training timestep.
        timesteps: the timesteps to visit, falling.
        eta: 0 is deterministic DDIM, 1 has the variance of DDPM.
        draw_noise: makes fresh standard-normal noise of the latents' shape; needed if eta > 0.
        callback: called with (index, timestep, Z^t) after each step, returns the Z^t to go on with.

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
    corrected: bool = False,
    callback: Callable[[int, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Denoise noise to a clean latent in fewer steps: DPM-Solver++(2M) (Lu et al. 2022).

    With signal ``a = sqrt(abar)``, spread ``s = sqrt(1 - abar)`` and ``h`` what a step adds to
    ``log(a / s)``, half the log SNR, a step is ``Z' = (s' / s) Z + a' (1 - exp(-h)) D``. DDIM takes
    for D the clean latent that is predicted; this solver goes on along the line through the last
    two predictions. The first and the last step are DDIM's.

    Corrected, this is UniPC-2 (Zhao et al. 2023): once the denoiser has looked at Z', the step that
    led there is taken again along a parabola through that prediction too, at no cost.

    Args:
        denoise: as of ``ddim``.
        latents: as of ``ddim``.
        alphas_cumprod: as of ``ddim``.
        timesteps: as of ``ddim``.
        corrected: whether each step is corrected, as by UniPC-2.
        callback: as of ``ddim``.

    Returns:
        Z^0, of the latents' shape.
    """
    following = [*timesteps[1:], None]
    last: Step | None = None
    for index, (timestep, next_timestep) in enumerate(zip(timesteps, following, strict=True)):
        clean, _ = denoise(latents, timestep)
        if corrected and last is not None:
            latents = latents + last.weight * (last.corrector_term(clean) - last.predictor_term)
        if next_timestep is None:
            latents = clean
        else:
            alpha_bar, next_alpha_bar = (
                float(alphas_cumprod[t]) for t in (timestep, next_timestep)
            )
            half_log_snr_step = half_log_snr(next_alpha_bar) - half_log_snr(alpha_bar)
            last = Step(
                clean,
                half_log_snr_step,
                weight=-(next_alpha_bar**0.5) * math.expm1(-half_log_snr_step),
                half_log_snr_step_before=0.0 if last is None else last.half_log_snr_step,
                change_before=torch.zeros_like(clean) if last is None else clean - last.clean,
            )
            shrunk = ((1.0 - next_alpha_bar) / (1.0 - alpha_bar)) ** 0.5
            latents = shrunk * latents + last.weight * (clean + last.predictor_term)
        if callback is not None:
            latents = callback(index, timestep, latents)
    return latents


@dataclass(frozen=True)
class Step:
    """A step of ``dpm_solver`` from one noise level to the next, ``h`` apart in ``log(a / s)``.

    Attributes:
        clean: the clean latent that was predicted where it began.
        half_log_snr_step: h.
        weight: of the clean latent where it ends, ``a' (1 - exp(-h))``.
        half_log_snr_step_before: h of the step before, 0 where there was none.
        change_before: how the prediction changed over the step before.
    """

    clean: Tensor
    half_log_snr_step: float
    weight: float
    half_log_snr_step_before: float
    change_before: Tensor

    @property
    def predictor_term(self) -> Tensor:
        """What a line through the last two predictions adds to the last."""
        if self.half_log_snr_step_before == 0.0:
            return self.change_before
        return self.half_log_snr_step / (2.0 * self.half_log_snr_step_before) * self.change_before

    def corrector_term(self, next_clean: Tensor) -> Tensor:
        """What a curve through the prediction where the step ends adds (UniPC, B(h) = e^h - 1)."""
        change = next_clean - self.clean
        step, step_before = self.half_log_snr_step, self.half_log_snr_step_before
        if step_before == 0.0:
            return 0.5 * change
        shrinking = math.expm1(-step)
        first = -shrinking / step - 1.0
        second = -first / step - 0.5
        of_both, of_second = first / shrinking, 2.0 * second / shrinking
        before = (of_both - of_second) / (1.0 + step_before / step)
        slope = step / step_before * self.change_before
        return before * slope + (of_both - before) * change


def half_log_snr(alpha_bar: float) -> float:
    """``log(sqrt(abar) / sqrt(1 - abar))``, half the logarithm of the signal-to-noise ratio."""
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))
