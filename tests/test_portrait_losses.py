"""Whole portraits in the distillation: what they are asked for with, and who judges them."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import tiny_components
from voice2face.models import Denoiser
from voice2face.models.denoiser import Condition
from voice2face.models.heard_attributes import heard_attributes
from voice2face.training.attribute_reader import AttributeReader
from voice2face.training.latent_discriminator import DenoiserFeatures, LatentDiscriminator
from voice2face.training.latent_pairs import Batch
from voice2face.training.portrait_losses import PortraitLosses
from voice2face.training.trajectories import Trajectories

FOUND = 2.0


def told_denoiser() -> Denoiser:
    config = tiny_components("v_prediction")["denoiser"].config
    denoiser = Denoiser.from_config(config, heard_attributes=2)
    nn.init.normal_(denoiser.no_speech)
    return denoiser


def real_faces(count: int) -> Batch:
    return Batch(
        clean=torch.randn(count, 4, 8, 8),
        quality=torch.randn(count, 6) + FOUND,
        speech=nn.functional.normalize(torch.randn(count, 16), dim=1),
        attributes=torch.zeros(count, 2),
    )


def portrait_losses(**parts: Any) -> PortraitLosses:
    usual = {"count": 4, "learning_steps": 2, "adversarial": True}
    missing = [field.name for field in fields(PortraitLosses) if field.name not in usual]
    return PortraitLosses(**dict.fromkeys(missing) | usual | parts)


@pytest.mark.parametrize("beside_channels", [0, 8])
@pytest.mark.parametrize(("count", "compared"), [(2, 1), (3, 2), (4, 2), (7, 4)])
def test_the_first_half_of_portraits_is_asked_for_as_the_real_faces_are(
    count: int, compared: int, beside_channels: int
) -> None:
    calls = []

    def draw(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return torch.full((count, 4, 8, 8), 3.0)

    denoiser, faces, sampled = told_denoiser(), real_faces(compared), []
    if beside_channels:
        faces = faces._replace(beside=torch.randn(compared, beside_channels, 8, 8))
    others = real_faces(9)
    train = Trajectories(
        others.speech,
        torch.linspace(-1.0, 1.0, 9)[:, None].expand(-1, 6),
        torch.randn(9, beside_channels, 8, 8).half(),
        torch.zeros(9, 5, 4, 8, 8).half(),
    )
    portraits = portrait_losses(
        denoiser=denoiser,
        student=SimpleNamespace(draw=draw),
        faces=SimpleNamespace(sample=lambda _, wanted: sampled.append(wanted) or faces),
        train=train,
        count=count,
    )
    found, speech, drawn = portraits.draw(np.random.default_rng(0))
    ((by, told, noise, learning_steps),) = calls
    assert sampled == [compared]
    assert (by, learning_steps) == (denoiser, 2)
    assert torch.equal(speech[:compared], faces.speech)
    rows = [int((train.speech == one).all(1).nonzero()) for one in speech[compared:]]
    quality = torch.cat([faces.quality, train.quality[rows]])
    expected = denoiser.condition(speech, quality)
    assert torch.equal(told.speech, expected.speech)
    assert torch.equal(told.numbers, expected.numbers)
    if beside_channels:
        assert torch.equal(told.beside, torch.cat([faces.beside, train.beside[rows].float()]))
    else:
        assert told.beside is None
    assert noise.shape == (count, 4, 8, 8)
    assert 0.7 < float(noise.std()) < 1.3
    assert torch.equal(found.clean, faces.clean)
    assert torch.equal(drawn, torch.full_like(drawn, 3.0))


class Seen:
    """Features that are the latents themselves, and a note of what was shown."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.shown: list[tuple[torch.Tensor, Condition]] = []

    def __call__(self, latents: torch.Tensor, condition: Condition) -> list[torch.Tensor]:
        self.shown.append((latents, condition))
        return [latents]


@pytest.mark.parametrize(("count", "compared"), [(2, 1), (5, 3), (6, 3)])
def test_the_discriminator_sees_the_half_with_real_qualities_and_hears_no_voice(
    count: int, compared: int
) -> None:
    features, judged = Seen(told_denoiser()), []

    def losses(real: list[torch.Tensor], generated: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        judged.append((*real, *generated))
        return torch.tensor(2.0), torch.tensor(3.0)

    portraits = portrait_losses(features=features, discriminator=SimpleNamespace(losses=losses))
    faces, drawn = real_faces(compared), torch.randn(count, 4, 8, 8)
    speech = torch.cat([faces.speech, real_faces(count - compared).speech])
    losses_of_portraits = portraits.losses(faces, speech, drawn)
    found = {name: float(loss) for name, loss in losses_of_portraits.items()}
    assert found == {"attributes": 0.0, "doubt": 0.0, "adversarial": 2.0, "discriminator": 3.0}
    ((real, generated),) = judged
    assert torch.equal(real, faces.clean)
    assert torch.equal(generated, drawn[:compared])
    assert len(features.shown) == 2
    for _, condition in features.shown:
        silence = features.denoiser.no_speech.to(condition.speech.dtype)
        assert torch.equal(condition.speech, silence.expand(compared, -1, -1))
        qualities, attributes = condition.numbers[:, :7].float(), condition.numbers[:, 7:]
        flagged = nn.functional.pad(faces.quality.clamp(-3.0, 3.0), (0, 1), value=1.0)
        torch.testing.assert_close(qualities, flagged, atol=0.02, rtol=0.0)
        assert not attributes.any(), "sex and age would tell of the voice"


def test_verdicts_move_the_portraits_that_were_judged_and_no_others() -> None:
    denoiser = told_denoiser().requires_grad_(False)
    schedule = tiny_components("v_prediction")["scheduler"]
    features = DenoiserFeatures(denoiser, schedule, torch.zeros(4, 8, 8))
    portraits = portrait_losses(
        features=features, discriminator=LatentDiscriminator(features.widths)
    )
    faces, drawn = real_faces(3), torch.randn(5, 4, 8, 8, requires_grad=True)
    portraits.losses(faces, real_faces(5).speech, drawn)["adversarial"].backward()
    moved = drawn.grad.flatten(1).any(1)
    assert moved.tolist() == [True, True, True, False, False]


def test_without_a_weight_no_discriminator_looks() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked in vain")

    features = Seen(told_denoiser())
    portraits = portrait_losses(
        features=features,
        discriminator=SimpleNamespace(losses=refuse),
        doubt=lambda latents: latents.square().mean(),
        adversarial=False,
    )
    faces = real_faces(4)
    losses = portraits.losses(faces, faces.speech, torch.full((4, 4, 8, 8), 2.0))
    found = {name: float(loss) for name, loss in losses.items()}
    assert found == {"attributes": 0.0, "doubt": 4.0, "adversarial": 0.0, "discriminator": 0.0}
    assert features.shown == []


class Legible(nn.Module):
    """Reads what two numbers of each latent say."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :2, 0, 0]


def test_a_portrait_that_reads_as_its_voice_sounds_costs_nothing() -> None:
    speech_encoder = tiny_components()["speech_encoder"].eval()
    reader = AttributeReader([Legible()])
    reader.slope.copy_(torch.tensor([0.5, 2.0]))
    reader.offset.copy_(torch.tensor([0.1, -1.0]))
    faces = real_faces(4)
    with torch.no_grad():
        heard = heard_attributes(speech_encoder.describe(faces.speech))
    latents = torch.randn(4, 4, 8, 8)
    latents[:, :2, 0, 0] = torch.tensor([0.5, 2.0]) * heard + torch.tensor([0.1, -1.0])
    portraits = portrait_losses(
        speech_encoder=speech_encoder,
        reader=reader,
        adversarial=False,
    )
    assert float(portraits.misread(latents, faces.speech)) == pytest.approx(0.0, abs=1e-10)
    misread = latents.clone()
    misread[3, 1] += 4.0
    misread.requires_grad_()
    losses = portraits.losses(faces, faces.speech, misread)
    assert losses["attributes"].item() == pytest.approx(16.0 / 8), "the last counts as the first"
    losses["attributes"].backward()
    assert misread.grad.flatten(1).any(1).tolist() == [False, False, False, True]
    assert all(parameter.grad is None for parameter in speech_encoder.parameters())
