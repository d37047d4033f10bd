"""Guiding away from what a weaker denoiser sees."""

from __future__ import annotations

import copy
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_components
from voice2face import Voice2FacePipeline
from voice2face.errors import SettingError
from voice2face.methods.guided_sampling import Autoguidance, DenoisingLoop, sample_guided
from voice2face.models import Denoiser
from voice2face.sampling import split_prediction
from voice2face.settings import Settings
from voice2face.training.distilled_denoiser import DistilledDenoiser
from voice2face.training.teacher_trajectories import autoguidance_of

SPEECH = torch.nn.functional.normalize(
    torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
)
QUALITY = torch.zeros(2, 6)


ONE_STEP = Settings(1, 3.0, 0.0, "tiny")
FOUR_STEPS = Settings(4, 2.0, 0.0, "tiny", sampler="unipc", guidance_every=2)


def draw(autoguidance: Autoguidance | None, settings: Settings) -> torch.Tensor:
    components = tiny_components("v_prediction")
    return sample_guided(
        DenoisingLoop(components["denoiser"]),
        components["scheduler"],
        SPEECH,
        QUALITY,
        [torch.Generator().manual_seed(seed) for seed in (7, 8)],
        settings,
        autoguidance=autoguidance,
    )


def weaker_denoiser() -> Denoiser:
    weaker = copy.deepcopy(tiny_components("v_prediction")["denoiser"])
    with torch.no_grad():
        weaker.unet.conv_out.weight.mul_(0.5)
    return weaker


def test_both_guidances_add_up() -> None:
    components, weaker = tiny_components("v_prediction"), weaker_denoiser()
    denoiser, schedule = components["denoiser"], components["scheduler"]
    noise = torch.stack(
        [torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
    )
    last = torch.full((2,), 999)
    with torch.no_grad():
        told, weaker_told = (
            network(noise, last, network.condition(SPEECH, QUALITY))
            for network in (denoiser, weaker)
        )
        untold = denoiser(noise, last, denoiser.condition(SPEECH, QUALITY, torch.zeros(2).bool()))
    guided = told + 2.0 * (told - untold) + 1.5 * (told - weaker_told)
    expected = split_prediction(guided, noise, schedule.alphas_cumprod[999], "v_prediction").clean
    torch.testing.assert_close(
        draw(Autoguidance(weaker, 2.5), ONE_STEP), expected, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(draw(None, ONE_STEP), expected, atol=1e-2)


def test_both_denoisers_are_told_the_same_of_a_voice() -> None:
    config = dict(tiny_components("v_prediction")["denoiser"].config)
    torch.manual_seed(0)
    denoiser = Denoiser.from_config(config, heard_attributes=2, attributes_emphasis=1.6).eval()
    less = Denoiser.from_config(config, heard_attributes=2).eval()
    less.load_state_dict(denoiser.state_dict())
    schedule = tiny_components("v_prediction")["scheduler"]
    drawn = [
        sample_guided(
            DenoisingLoop(denoiser),
            schedule,
            SPEECH,
            QUALITY,
            [torch.Generator().manual_seed(seed) for seed in (7, 8)],
            FOUR_STEPS,
            autoguidance=autoguidance,
        )
        for autoguidance in (None, Autoguidance(less, 3.0))
    ]
    torch.testing.assert_close(*drawn, atol=1e-4, rtol=1e-4)


def test_a_weaker_denoiser_predicts_the_same_of_the_same_latents(tmp_path: Path) -> None:
    components = tiny_components("v_prediction")
    pipe = Voice2FacePipeline(**components, output_size=48, name="tiny").to("cpu")
    original = DistilledDenoiser(pipe, "denoiser")
    arguments = Namespace(weaker=tmp_path, autoguidance=2.5)
    weaker_denoiser().save_pretrained(tmp_path / "denoiser")
    assert autoguidance_of(original, arguments) is not None, "which says nothing, as lowest_loss"
    components["scheduler"].save_pretrained(tmp_path / "scheduler")
    assert autoguidance_of(original, arguments) is not None
    tiny_components("epsilon")["scheduler"].save_pretrained(tmp_path / "scheduler")
    with pytest.raises(SettingError, match="learnt with --prediction-type epsilon, what is dist"):
        autoguidance_of(original, arguments)
    components["scheduler"].save_pretrained(tmp_path / "scheduler")
    for name, value in {"beside_channels": 4, "latent_size": 16, "latent_channels": 8}.items():
        other = Denoiser.from_config(dict(components["denoiser"].config), **{name: value})
        other.save_pretrained(tmp_path / "denoiser")
        with pytest.raises(SettingError, match=f"has a {name} of {value}"):
            autoguidance_of(original, arguments)


def test_a_scale_of_one_or_an_equal_denoiser_guides_nowhere() -> None:
    alone = draw(None, FOUR_STEPS)
    equal = tiny_components("v_prediction")["denoiser"]
    for autoguidance in (Autoguidance(weaker_denoiser(), 1.0), Autoguidance(equal, 3.0)):
        torch.testing.assert_close(draw(autoguidance, FOUR_STEPS), alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(
        draw(Autoguidance(weaker_denoiser(), 3.0), FOUR_STEPS), alone, atol=1e-2
    )
