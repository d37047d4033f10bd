from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from voice2face.sampling import (
    Prediction,
    ddim,
    dpm_solver,
    split_prediction,
    trailing_timesteps,
)

uni_pc = partial(dpm_solver, corrected=True)
ALPHAS = DDIMScheduler(beta_schedule="scaled_linear").alphas_cumprod.tolist()


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 25, 30, 50, 333, 999, 1000])
def test_any_number_of_steps_starts_at_the_noisiest_and_falls(steps: int) -> None:
    timesteps = trailing_timesteps(steps, 1000)
    assert len(timesteps) == steps
    assert timesteps[0] == 999
    assert timesteps[-1] >= 0
    assert all(a > b for a, b in pairwise(timesteps))
    gaps = {a - b for a, b in pairwise(timesteps)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_step_counts_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        trailing_timesteps(steps, 1000)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_prediction_takes_a_noisy_latent_apart(prediction_type: str) -> None:
    schedule = DDIMScheduler(prediction_type=prediction_type)
    clean, noise = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([400, 400, 400])
    noisy = schedule.add_noise(clean, noise, t)
    output = noise if prediction_type == "epsilon" else schedule.get_velocity(clean, noise, t)
    found = split_prediction(output, noisy, float(schedule.alphas_cumprod[400]), prediction_type)
    torch.testing.assert_close(found.clean, clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.noise, noise, atol=1e-4, rtol=1e-4)


def test_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        split_prediction(torch.zeros(1), torch.zeros(1), 0.5, "sample")


@pytest.mark.parametrize("sampler", [ddim, dpm_solver, uni_pc])
@pytest.mark.parametrize("steps", [1, 4, 25, 1000])
def test_a_perfect_denoiser_leads_back_to_the_clean_latent(sampler, steps: int) -> None:
    clean = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))

    def denoise(latents: torch.Tensor, timestep: int) -> Prediction:
        alpha_bar = ALPHAS[timestep]
        noise = (latents - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5
        return Prediction(clean, noise)

    start = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    found = sampler(denoise, start, ALPHAS, trailing_timesteps(steps, 1000))
    torch.testing.assert_close(found, clean)


@pytest.mark.parametrize("steps", [2, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_are_those_of_diffusers(steps: int, eta: float) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True
    )
    noises = torch.randn(steps, 1, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    timesteps = trailing_timesteps(steps, 1000)

    def network(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return 0.5 * latents + timestep / 4000

    fresh = iter(noises)
    ours = ddim(
        lambda z, t: split_prediction(network(z, t), z, ALPHAS[t], "epsilon"),
        torch.ones(1, 2, 4, 4),
        ALPHAS,
        timesteps,
        eta=eta,
        draw_noise=lambda: next(fresh),
    )
    scheduler.set_timesteps(steps)
    # diffusers steps by a fixed stride, which is ours where the count divides 1000
    theirs = torch.ones(1, 2, 4, 4)
    for timestep, noise in zip(timesteps, noises, strict=True):
        theirs = scheduler.step(
            network(theirs, timestep), timestep, theirs, eta=eta, variance_noise=noise
        ).prev_sample
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


DIFFUSERS = {
    dpm_solver: DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
        euler_at_final=True,
    ),
    uni_pc: UniPCMultistepScheduler(
        beta_schedule="scaled_linear", final_sigmas_type="zero", timestep_spacing="trailing"
    ),
}


@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("sampler", DIFFUSERS)
def test_steps_of_the_solvers_are_those_of_diffusers(sampler, steps: int) -> None:
    scheduler = copy.deepcopy(DIFFUSERS[sampler])
    timesteps = trailing_timesteps(steps, 1000)

    def network(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return 0.5 * latents + timestep / 4000

    ours = sampler(
        lambda z, t: split_prediction(network(z, t), z, ALPHAS[t], "epsilon"),
        torch.ones(1, 2, 4, 4),
        ALPHAS,
        timesteps,
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == timesteps
    theirs = torch.ones(1, 2, 4, 4)
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, int(timestep)), timestep, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_solver_needs_fewer_steps_than_ddim() -> None:
    alphas = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.tolist()
    spread = 0.7  # of normal latents, for which the best denoiser and the whole path are known

    def denoise(latents: torch.Tensor, timestep: int) -> Prediction:
        alpha_bar = alphas[timestep]
        power = alpha_bar * spread**2 + 1 - alpha_bar
        clean = latents * alpha_bar**0.5 * spread**2 / power
        return Prediction(clean, (latents - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5)

    start = torch.ones(1, 1, 2, 2)

    def error(sampler, steps: int) -> float:
        found = sampler(denoise, start, alphas, trailing_timesteps(steps, 1000))
        return float((found - spread).abs().max())

    assert error(dpm_solver, 100) < 0.001
    assert error(dpm_solver, 10) < 0.3 * error(ddim, 10)
    assert error(dpm_solver, 10) < error(ddim, 30)
    assert error(uni_pc, 10) < 0.5 * error(dpm_solver, 10)


@pytest.mark.parametrize("sampler", [ddim, dpm_solver, uni_pc])
def test_callback_sees_every_step_and_may_change_the_latents(sampler) -> None:
    seen = []

    def callback(index: int, timestep: int, latents: torch.Tensor) -> torch.Tensor:
        seen.append((index, timestep))
        return torch.zeros_like(latents)

    found = sampler(
        lambda z, t: Prediction(z, z), torch.ones(1, 1, 2, 2), ALPHAS, [999, 499], callback=callback
    )
    assert seen == [(0, 999), (1, 499)]
    assert not found.any()


def test_eta_needs_noise() -> None:
    with pytest.raises(ValueError, match="draw_noise"):
        ddim(lambda z, t: Prediction(z, z), torch.ones(1, 1, 2, 2), ALPHAS, [999], eta=1.0)
