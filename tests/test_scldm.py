from __future__ import annotations

import pytest
import torch

from tests.conftest import tiny_components
from voice2face.methods.scldm import SCLDM, denoising_loss, shifted_noising
from voice2face.models import Denoiser, FacePrior
from voice2face.models.denoiser import Condition
from voice2face.settings import Settings


def test_prior_is_the_mean_latent() -> None:
    latents = torch.randn(10, 4, 8, 8)
    prior = FacePrior.from_latents(latents, weight=0.5)
    assert prior.config.num_faces == 10
    torch.testing.assert_close(prior(), 0.5 * latents.mean(0))


def test_noising_is_equation_4_shifted_by_equation_2() -> None:
    parts = tiny_components()
    schedule, prior = parts["scheduler"], parts["face_prior"]
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    timesteps = torch.tensor([0, 500, 999])
    alpha_bar = schedule.alphas_cumprod[timesteps].view(3, 1, 1, 1)
    expected = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise + 0.01 * prior.mean
    torch.testing.assert_close(shifted_noising(clean, noise, timesteps, schedule, prior), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_is_equation_6(prediction_type: str) -> None:
    parts = tiny_components(prediction_type)
    schedule, prior = parts["scheduler"], parts["face_prior"]
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    timesteps = torch.tensor([10, 500, 900])
    seen = {}

    def denoiser(latents: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        seen["latents"] = latents
        return torch.full_like(latents, 0.25)

    loss = denoising_loss(denoiser, prior, schedule, clean, noise, timesteps, None)
    torch.testing.assert_close(
        seen["latents"], shifted_noising(clean, noise, timesteps, schedule, prior)
    )
    target = noise
    if prediction_type == "v_prediction":
        alpha_bar = schedule.alphas_cumprod[timesteps].view(3, 1, 1, 1)
        target = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    torch.testing.assert_close(loss, (0.25 - target).square().mean((1, 2, 3)))


class _Oracle(torch.nn.Module):
    """Predicts the velocity towards one fixed latent, and remembers what it was shown."""

    def __init__(self, parts: dict, goal: torch.Tensor) -> None:
        super().__init__()
        self.config = parts["denoiser"].config
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.schedule, self.prior, self.goal = parts["scheduler"], parts["face_prior"], goal
        self.shown: list[torch.Tensor] = []

    def good_portraits(self, generators: list[torch.Generator], _: float) -> torch.Tensor:
        return torch.zeros(len(generators), 6)

    def condition(self, speech: torch.Tensor, *_: object, **__: object) -> Condition:
        return Condition(speech, speech)

    def forward(self, latents: torch.Tensor, t: torch.Tensor, _: object) -> torch.Tensor:
        self.shown.append(latents)
        alpha_bar = self.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        plain = latents - self.prior()
        noise = (plain - alpha_bar.sqrt() * self.goal) / (1 - alpha_bar).sqrt()
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * self.goal


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_sampling_starts_around_the_prior_and_leaves_without_it(steps: int) -> None:
    parts = tiny_components("v_prediction")
    parts["face_prior"].register_to_config(weight=100.0)
    goal = torch.randn(4, 8, 8)
    oracle = _Oracle(parts, goal)
    found = SCLDM(parts["face_prior"], oracle).sample(
        torch.zeros(2, 16),
        [torch.Generator().manual_seed(k) for k in range(2)],
        parts["scheduler"],
        Settings(steps, 2.0, 0.0, "oracle"),
    )
    first = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(oracle.shown[0][0], first + 100.0 * parts["face_prior"].mean)
    torch.testing.assert_close(found.latents, goal.expand(2, -1, -1, -1), atol=1e-3, rtol=1e-3)


def test_guidance_extrapolates_from_no_voice_to_the_voice() -> None:
    parts = tiny_components("v_prediction")
    speech = torch.nn.functional.normalize(torch.randn(1, 16), dim=1)

    def sample(scale: float) -> torch.Tensor:
        method = SCLDM(parts["face_prior"], parts["denoiser"])
        generators = [torch.Generator().manual_seed(0)]
        settings = Settings(1, scale, 0.0, "tiny")
        return method.sample(speech, generators, parts["scheduler"], settings).latents

    ignored, followed, doubled = sample(0.0), sample(1.0), sample(2.0)
    assert not torch.allclose(ignored, followed)
    torch.testing.assert_close(doubled, 2 * followed - ignored, atol=1e-4, rtol=1e-4)


def test_good_portraits_vary_with_the_seed_alone() -> None:
    denoiser = tiny_components()["denoiser"]
    denoiser.register_to_config(
        good_portrait=[5.0, 0.0, 0.5, 100.0, 40.0, 0.0],
        good_portrait_std=[0.0, 0.1, 0.0, 20.0, 0.0, 0.0],
    )
    seeds = range(200)
    drawn = denoiser.good_portraits([torch.Generator().manual_seed(seed) for seed in seeds])
    again = denoiser.good_portraits([torch.Generator().manual_seed(7)])
    assert torch.equal(drawn[7], again[0])
    torch.testing.assert_close(drawn.mean(0)[3], torch.tensor(100.0), atol=5.0, rtol=0.0)
    torch.testing.assert_close(drawn.std(0)[3], torch.tensor(20.0), atol=4.0, rtol=0.0)
    assert (drawn[:, 0] == 5.0).all()
    less = denoiser.good_portraits([torch.Generator().manual_seed(7)], variety=0.25)
    torch.testing.assert_close(less[0, 3] - 100.0, 0.25 * (again[0, 3] - 100.0))


@pytest.mark.parametrize("attributes", [0, 2])
def test_guidance_exaggerates_the_voice_and_not_the_quality(attributes: int) -> None:
    parts = tiny_components("v_prediction")
    denoiser = Denoiser.from_config(parts["denoiser"].config, heard_attributes=attributes).eval()
    torch.nn.init.normal_(denoiser.no_speech)
    told = []

    def remember(_: object, arguments: tuple) -> None:
        told.append(arguments[2])

    denoiser.register_forward_pre_hook(remember)
    SCLDM(parts["face_prior"], denoiser).sample(
        torch.nn.functional.normalize(torch.randn(3, 16), dim=1),
        [torch.Generator().manual_seed(k) for k in range(3)],
        parts["scheduler"],
        Settings(1, 2.0, 0.0, "tiny"),
    )
    with_voice, without = told[0].speech.chunk(2)
    assert torch.equal(without, denoiser.no_speech.expand(3, -1, -1))
    assert not torch.allclose(with_voice, without)
    numbers, heard = told[0].numbers[:, :7], told[0].numbers[:, 7:]
    assert torch.equal(*numbers.chunk(2))
    assert (numbers[:, -1] == 1.0).all()
    assert bool(heard[:3].any()) == bool(attributes)
    assert not heard[3:].any(), "nor are sex and age told, without the voice that tells them"
