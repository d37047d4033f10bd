"""Which latents of a way from noise to portrait are kept."""

from __future__ import annotations

from itertools import pairwise

import torch

from tests.conftest import tiny_components
from voice2face.methods.guided_sampling import DenoisingLoop, sample_guided
from voice2face.models import FacePrior
from voice2face.settings import Settings
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.trajectories import draw_trajectories


def test_the_ends_of_the_parts_of_the_way_are_kept() -> None:
    components = tiny_components("v_prediction")
    denoiser, schedule = components["denoiser"], components["scheduler"]
    denoiser.register_to_config(good_portrait_std=[1.0] * 6)
    prior = FacePrior.from_latents(torch.randn(2, 4, 8, 8), weight=0.5)
    settings = Settings(6, 2.0, 0.0, "tiny", sampler="ddim", variety=0.5)
    speech = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    seeds = [7, 8, 9]
    kept = draw_trajectories(
        denoiser=denoiser,
        prior=prior,
        schedule=schedule,
        speech=speech,
        seeds=seeds,
        settings=settings,
        steps=3,
    )
    passed: list[torch.Tensor] = []

    def note(_index: int, _timestep: int, latents: torch.Tensor) -> torch.Tensor:
        passed.append(latents.half())
        return latents

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    quality = denoiser.good_portraits(generators, settings.variety)
    with mixed_precision(torch.device("cpu")):
        sample_guided(
            DenoisingLoop(denoiser),
            schedule,
            speech,
            quality,
            generators,
            settings,
            prior=prior,
            callback=note,
        )
    assert torch.equal(kept.speech, speech)
    assert torch.equal(kept.quality, quality)
    assert kept.latents.shape == (3, 4, 4, 8, 8)
    for number, index in ((1, 1), (2, 3), (3, 5)):
        torch.testing.assert_close(kept.latents[:, number], passed[index], atol=2e-3, rtol=2e-3)
    for one, other in pairwise(passed):
        assert float((one - other).abs().mean()) > 0.05, "a neighbour would be noticed"
