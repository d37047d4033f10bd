"""Few-step distillation: the update, the sampler that uses it, and the command that trains it."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

from tests.conftest import (
    BIAS,
    WEIGHT,
    preset_of,
    tiny_components,
    tiny_portraitist,
    tiny_update,
    tiny_updates,
)
from voice2face import Voice2FacePipeline
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable
from voice2face.errors import ArchitectureError, SettingError
from voice2face.methods.guided_sampling import DenoisingLoop, sample_guided
from voice2face.models import FaceCheck, FaceRetriever, FewStepUpdate
from voice2face.models.few_step_update import FORMAT, UPDATE_FILE
from voice2face.replay import read_portrait, replay
from voice2face.settings import UNDISTILLED, Preset, Settings
from voice2face.training import __main__ as command
from voice2face.training.attribute_reader import EMPHASIS, AttributeReader
from voice2face.training.distillation import critic_of
from voice2face.training.distillation_training import (
    ADVERSARIAL_FROM,
    DistillationOptions,
    DistillationTraining,
)
from voice2face.training.distilled_denoiser import BOTTOM_SEEDS, DistilledDenoiser
from voice2face.training.exemplary_faces import LIKE_PORTRAITS, exemplary_faces
from voice2face.training.face_doubt import CONFIDENT, LATENT_NOISE, FaceDoubt
from voice2face.training.few_step_student import Student
from voice2face.training.kept_files import fingerprint
from voice2face.training.latent_discriminator import DenoiserFeatures, LatentDiscriminator
from voice2face.training.latent_reader import LatentReader
from voice2face.training.low_rank import make_low_rank, update_of
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.picture_reader import PictureReader
from voice2face.training.trajectories import Trajectories, draw_trajectories


@pytest.fixture
def distilled() -> Voice2FacePipeline:
    components = tiny_components("v_prediction")
    update = tiny_update(components["denoiser"])
    pipe = Voice2FacePipeline(**components, few_step_update=update, output_size=48, name="tiny")
    return pipe.to("cpu")


def student_of(pipe: Voice2FacePipeline) -> Student:
    return Student(pipe.scheduler, 4, pipe.method.face_prior().detach())


def test_an_update_changes_the_weights_it_names_and_no_others() -> None:
    denoiser = tiny_components()["denoiser"]
    update = tiny_update(denoiser)
    before, after = denoiser.state_dict(), update.applied_to(denoiser).state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {WEIGHT, BIAS}
    up, down = (update.tensors[f"{WEIGHT}.{part}"].float() for part in ("up", "down"))
    change = (after[WEIGHT] - before[WEIGHT]).flatten(1)
    torch.testing.assert_close(change, up @ down, atol=1e-4, rtol=1e-4)
    added = update.tensors[f"{BIAS}.added"].float()
    torch.testing.assert_close(after[BIAS] - before[BIAS], added, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda t: {"unet.nothing.weight.up": t[f"{WEIGHT}.up"]}, "is missing"),
        (lambda t: {f"{WEIGHT}.up": t[f"{WEIGHT}.up"]}, "few-step update of"),
        (lambda t: t | {f"{WEIGHT}.down": t[f"{WEIGHT}.down"][:, :-1]}, "the denoiser's weight"),
        (lambda t: t | {f"{WEIGHT}.down": t[f"{WEIGHT}.down"][:1]}, "few-step update of"),
        (lambda t: t | {f"{BIAS}.added": torch.zeros(3)}, "the denoiser's weight"),
    ],
)
def test_an_update_of_another_denoiser_is_refused(spoil, complaint: str) -> None:
    denoiser = tiny_components()["denoiser"]
    update = tiny_update(denoiser)
    with pytest.raises(ArchitectureError, match=complaint):
        replace(update, tensors=spoil(update.tensors)).applied_to(denoiser)


def test_a_checkpoint_keeps_its_update(distilled: Voice2FacePipeline, tmp_path: Path) -> None:
    folder = distilled.save_pretrained(tmp_path / "saved")
    again = Voice2FacePipeline.from_pretrained(folder, device="cpu")
    update = again.method.distilled
    assert update is not None
    assert (update.steps, update.guidance_scale) == (4, 2.0)
    speech = torch.randn(16_000).numpy() * 0.1 + np.sin(np.arange(16_000) / 20.0)
    one, other = (
        pipe(speech.astype(np.float32), 16_000, seed=1, preset="fast", output_type="latent")
        for pipe in (distilled, again)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("content", "metadata", "complaint"),
    [
        ({"a.added": torch.zeros(2)}, {}, "of this version"),
        ({"a.added": torch.zeros(2)}, {"format": FORMAT}, "0 steps"),
        ({"a.added": torch.tensor([float("nan")])}, None, "no finite numbers"),
        ({"a.added": torch.zeros(2, dtype=torch.int64)}, None, "no finite numbers"),
        ({"a.added": torch.zeros(2, dtype=torch.float8_e4m3fn)}, None, "no finite numbers"),
    ],
)
def test_a_damaged_update_is_refused(
    content: dict[str, torch.Tensor],
    metadata: dict[str, str] | None,
    complaint: str,
    tmp_path: Path,
) -> None:
    if metadata is None:
        metadata = {"format": FORMAT, "steps": "4", "guidance_scale": "2.0"}
    save_file(content, tmp_path / UPDATE_FILE, metadata)
    with pytest.raises(ArchitectureError, match=complaint):
        FewStepUpdate.load(tmp_path)
    (tmp_path / UPDATE_FILE).write_bytes(b"no safetensors")
    with pytest.raises(ArchitectureError, match="cannot be read"):
        FewStepUpdate.load(tmp_path)


def test_distilled_steps_are_plain_ddim_of_the_changed_denoiser(
    distilled: Voice2FacePipeline, tone: np.ndarray
) -> None:
    method, voice = distilled.method, distilled.listen(tone, 16_000)
    asked = {"preset": "fast", "variety": 1.0, "output_type": "latent"}
    drawn = distilled(tone, 16_000, seed=5, **asked)
    generators = [torch.Generator().manual_seed(5)]
    changed = method.few_step_update.applied_to(method.denoiser)
    quality = changed.good_portraits(generators)
    expected = sample_guided(
        DenoisingLoop(changed),
        distilled.scheduler,
        voice.embedding[None],
        quality,
        generators,
        Settings(4, 1.0, 0.0, "tiny"),
        prior=method.face_prior,
    )
    assert torch.equal(drawn, expected)


def portraitist_asked_for_light(**updates: FewStepUpdate) -> Voice2FacePipeline:
    """Denoisers that ask for other pictures each, and not for the same light in all of them."""
    components = tiny_portraitist("v_prediction")
    for number, half in enumerate(("bottom", "upper")):
        components[f"{half}_denoiser"].register_to_config(
            good_portrait=[2.0 * number] * 6, good_portrait_std=[0.5 + number] * 6
        )
    return Voice2FacePipeline(**components, **updates, output_size=48, name="fine").to("cpu")


def test_fine_portraitist_draws_both_stages_in_few_steps(tone: np.ndarray, tmp_path: Path) -> None:
    updates = tiny_updates()
    fine = portraitist_asked_for_light(**updates)
    components = fine.method.parts()
    voice = fine.listen(tone, 16_000)
    asked = {"preset": "fast", "variety": 1.0, "output_type": "latent"}
    drawn = fine(tone, 16_000, seed=5, **asked)
    generators = [torch.Generator().manual_seed(5)]
    changed = {
        half: updates[f"{half}_few_step_update"].applied_to(components[f"{half}_denoiser"])
        for half in ("bottom", "upper")
    }
    quality = changed["upper"].good_portraits(generators)
    found = components["retriever"].retrieve(voice.embedding[None])
    told = (fine.scheduler, voice.embedding[None], quality, generators)
    settings = Settings(4, 1.0, 0.0, "fine")
    bottom = sample_guided(DenoisingLoop(changed["bottom"]), *told, settings, beside=found.bottoms)
    beside = torch.cat([bottom, found.faces], 1)
    expected = sample_guided(DenoisingLoop(changed["upper"]), *told, settings, beside=beside)
    assert torch.equal(drawn, expected)
    again = Voice2FacePipeline.from_pretrained(
        fine.save_pretrained(tmp_path / "fine"), device="cpu"
    )
    torch.testing.assert_close(again(tone, 16_000, seed=5, **asked), drawn, atol=2e-2, rtol=2e-2)
    before = again.method.denoisers(), again.method.denoising_loop("few_step_upper_denoiser")
    again.retriever = components["retriever"]
    after = again.method.denoisers(), again.method.denoising_loop("few_step_upper_denoiser")
    assert after == before, "what draws stays as it was moved, cast, compiled or recorded"
    assert preset_of(again.settings("fast")) == Preset("distilled", 4, 2.0, 1)
    assert sorted(again.method.denoisers()) == [
        *("bottom_denoiser", "few_step_bottom_denoiser"),
        *("few_step_upper_denoiser", "upper_denoiser"),
    ]


def test_updates_of_both_stages_go_together() -> None:
    components, updates = tiny_portraitist("v_prediction"), tiny_updates()
    bottom, upper = updates.values()
    for pair in (
        {"bottom_few_step_update": bottom},
        {"upper_few_step_update": upper},
        updates | {"upper_few_step_update": replace(upper, steps=8)},
        updates | {"bottom_few_step_update": replace(bottom, guidance_scale=1.5)},
    ):
        with pytest.raises(ArchitectureError, match="go together"):
            Voice2FacePipeline(**components, **pair)


def test_fast_is_distilled_where_the_checkpoint_is(
    distilled: Voice2FacePipeline, tiny_pipeline: Voice2FacePipeline
) -> None:
    few_steps = Preset("distilled", 4, 2.0, 1)
    assert preset_of(distilled.settings("fast")) == few_steps
    assert preset_of(tiny_pipeline.settings("fast")) == UNDISTILLED
    learnt = {"num_inference_steps": 4, "guidance_scale": 2.0}
    assert preset_of(distilled.settings("fast", **learnt)) == few_steps
    for given in ({"num_inference_steps": 6}, {"guidance_scale": 3.0}, {"sampler": "ddim"}):
        assert preset_of(distilled.settings("fast", **given)) == UNDISTILLED._replace(**given)
    for given in ({}, {"num_inference_steps": 4}):
        assert preset_of(distilled.settings(sampler="distilled", **given)) == few_steps
    with pytest.raises(SettingError, match="has learnt 4 steps at guidance 2"):
        distilled.settings(sampler="distilled", guidance_scale=3.0)
    with pytest.raises(SettingError, match="was not distilled"):
        tiny_pipeline.settings(sampler="distilled")


def test_a_fast_portrait_is_made_again(
    distilled: Voice2FacePipeline, recording: str, tmp_path: Path
) -> None:
    path = tmp_path / "face.png"
    distilled(recording, seed=4, preset="fast").save(path)
    saved = read_portrait(path)
    assert saved.settings.sampler == "distilled"
    assert replay(saved, recording, distilled).differences == ()


def test_low_rank_training_starts_at_the_denoiser_and_ends_in_its_update() -> None:
    denoiser = tiny_components()["denoiser"]
    trained = tiny_components()["denoiser"]
    make_low_rank(trained, 2)
    inputs = (torch.randn(3, 4, 8, 8), torch.tensor([5, 50, 500]))
    with torch.no_grad():
        told = denoiser.condition(torch.randn(3, 16), torch.zeros(3, 6))
    torch.testing.assert_close(trained(*inputs, told), denoiser(*inputs, told))
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        trained(*inputs, told).square().mean().backward()
        optimizer.step()
    update = update_of(trained, denoiser, 4, 2.0)
    changed = update.applied_to(denoiser)
    torch.testing.assert_close(changed(*inputs, told), trained(*inputs, told), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed(*inputs, told), denoiser(*inputs, told), atol=1e-3)


def test_trajectories_lead_from_noise_to_the_drawn_latent() -> None:
    components = tiny_components("v_prediction")
    denoiser, prior = components["denoiser"], components["face_prior"]
    settings = Settings(6, 2.0, 0.0, "tiny", sampler="unipc", guidance_every=2)
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    drawn = draw_trajectories(denoiser, prior, components["scheduler"], speech, [7, 8], settings, 3)
    assert drawn.latents.shape == (2, 4, 4, 8, 8)
    generator, again = (torch.Generator().manual_seed(8) for _ in range(2))
    quality = denoiser.good_portraits([generator])
    assert torch.equal(denoiser.good_portraits([again]), quality)
    noise = torch.randn((4, 8, 8), generator=again)
    torch.testing.assert_close(drawn.latents[1, 0].float(), noise, atol=2e-3, rtol=2e-3)
    with mixed_precision(torch.device("cpu")):
        expected = sample_guided(
            DenoisingLoop(denoiser),
            components["scheduler"],
            speech[1:],
            quality,
            [generator],
            settings,
            prior=prior,
        )
    scale = float(expected.std())
    torch.testing.assert_close(
        drawn.latents[1, -1].float() / scale, expected[0] / scale, atol=5e-3, rtol=5e-3
    )
    assert not denoiser._forward_pre_hooks


@pytest.mark.parametrize("few_steps", [True, False])
def test_the_upper_denoiser_learns_over_bottom_faces_as_portraits_have_them(
    few_steps: bool,
) -> None:
    updates = tiny_updates() if few_steps else {}
    teacher = portraitist_asked_for_light(**updates)
    parts, seeds = teacher.method.parts(), [7, 8]
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    settings = Settings(6, 2.0, 0.0, "fine", sampler="unipc", guidance_every=2)
    beside = DistilledDenoiser(teacher, "upper_denoiser").beside(speech, seeds, settings)
    assert beside is not None
    drawn = draw_trajectories(
        *(parts["upper_denoiser"], None, teacher.scheduler, speech, seeds, settings, 3),
        beside=beside,
    )
    bottom, found = parts["bottom_denoiser"], teacher.retriever.retrieve(speech)
    if few_steps:
        bottom = updates["bottom_few_step_update"].applied_to(bottom)
        settings = Settings(4, 1.0, 0.0, "fine")
    with mixed_precision(torch.device("cpu")):
        expected = sample_guided(
            DenoisingLoop(bottom),
            teacher.scheduler,
            speech,
            drawn.quality,
            [torch.Generator().manual_seed(BOTTOM_SEEDS + seed) for seed in seeds],
            settings,
            beside=found.bottoms,
        )
    torch.testing.assert_close(beside[:, :4], expected)
    assert torch.equal(beside[:, 4:], found.faces)
    assert torch.equal(drawn.beside, beside.half())
    assert (drawn.quality.mean(0) > 1.0).any(), "what the upper one asks for"


def test_the_bottom_denoiser_learns_over_retrieved_bottoms_and_scldm_over_nothing(
    distilled: Voice2FacePipeline,
) -> None:
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    settings = Settings(2, 1.0, 0.0, "fine")
    fine = portraitist_asked_for_light()
    beside = DistilledDenoiser(fine, "bottom_denoiser").beside(speech, [7, 8], settings)
    assert beside is not None
    assert torch.equal(beside, fine.retriever.retrieve(speech).bottoms)
    assert DistilledDenoiser(distilled, "denoiser").beside(speech, [7, 8], settings) is None


def test_trajectories_are_kept_apart_by_all_that_they_are_drawn_with() -> None:
    def made_of(teacher: Voice2FacePipeline, half: str) -> str:
        return fingerprint(*DistilledDenoiser(teacher, f"{half}_denoiser").draws_with)

    updates = tiny_updates()
    update = updates["bottom_few_step_update"]
    louder = {name: 2.0 * tensor for name, tensor in update.tensors.items()}
    others = updates | {"bottom_few_step_update": replace(update, tensors=louder)}
    teachers = [portraitist_asked_for_light(**some) for some in ({}, updates, others)]
    assert len({made_of(teacher, "upper") for teacher in teachers}) == 3
    assert len({made_of(teacher, "bottom") for teacher in teachers}) == 1
    for teacher in teachers:
        before = [made_of(teacher, half) for half in ("bottom", "upper")]
        entries = teacher.retriever.entries
        teacher.retriever = FaceRetriever(entries._replace(bottoms=entries.bottoms + 1.0))
        after = [made_of(teacher, half) for half in ("bottom", "upper")]
        assert not set(before) & set(after), "the entries that faces are retrieved from count"


def test_a_reader_of_latents_learns_what_faces_show() -> None:
    generator = torch.Generator().manual_seed(0)
    sex = torch.randint(0, 2, (400,), generator=generator) * 2.0 - 1.0
    age = torch.rand(400, generator=generator) * 6.0
    latents = 0.5 * torch.randn(400, 3, 8, 8, generator=generator)
    latents[:, 0, :4] += sex[:, None, None]
    latents[:, 1, 4:] += age[:, None, None] - 3.0
    reader = LatentReader(3, 8, members=1)
    figures = reader.fit(latents, torch.stack([sex, age], 1), epochs=8)
    assert figures["sex"] > 0.95
    assert figures["age_correlation"] > 0.9
    read = reader(latents)
    assert float((read - torch.stack([sex, age], 1)).square().mean()) < 0.3
    assert not any(parameter.requires_grad for parameter in reader.parameters())


def test_readers_say_what_to_expect_of_a_portrait() -> None:
    class Attenuated(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return latents[:, :2, 0, 0] * torch.tensor([0.8, 0.5]) + torch.tensor([0.0, 1.0])

    latents = torch.randn(400, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    told = latents[:, :2, 0, 0]
    reader = AttributeReader([Attenuated(), Attenuated()])
    reader.calibrate(latents, told)
    expected = reader.expected(told)
    torch.testing.assert_close(expected[:, 0], reader(latents)[:, 0], atol=1e-4, rtol=0)
    middle = told[:, 1].mean()
    emphasised = 1.0 + 0.5 * middle + 0.5 * EMPHASIS * (told[:, 1] - middle)
    torch.testing.assert_close(expected[:, 1], emphasised, atol=1e-4, rtol=0)


def test_a_reader_of_pictures_learns_what_faces_show() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sex, age = rng.integers(0, 2, 300), rng.integers(0, 6, 300)
    images = rng.integers(0, 60, (300, 40, 40, 3))
    images[:, :, :, 0] += 120 * sex[:, None, None]
    images[:, :, :, 2] += 30 * age[:, None, None]
    images = images.clip(0, 255).astype(np.uint8)
    attributes = torch.from_numpy(np.stack([sex * 2.0 - 1.0, age + 0.5], 1)).float()
    reader = PictureReader(PerceptualLoss(None), members=1)
    figures = reader.fit(images, attributes, epochs=40)
    assert figures["sex"] > 0.9
    assert figures["age_correlation"] > 0.8
    read = reader(images[:8])
    assert float((read[:, 0].sign() == attributes[:8, 0]).float().mean()) > 0.8
    torch.testing.assert_close(reader(images[:8, :, ::-1]), read)


def test_whole_portraits_are_drawn_as_the_sampler_draws_them(
    distilled: Voice2FacePipeline, tone: np.ndarray
) -> None:
    voice = distilled.listen(tone, 16_000)
    asked = {"preset": "fast", "variety": 1.0, "output_type": "latent"}
    expected = distilled(tone, 16_000, seed=5, **asked)
    denoiser = distilled.method.denoisers()["few_step_denoiser"]
    generator = torch.Generator().manual_seed(5)
    quality = denoiser.good_portraits([generator])
    noise = torch.randn((1, 4, 8, 8), generator=generator)
    told = denoiser.condition(voice.embedding[None], quality)
    with torch.no_grad():
        drawn = student_of(distilled).draw(denoiser, told, noise)
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)


def test_the_last_steps_of_a_portrait_learn_alone(distilled: Voice2FacePipeline) -> None:
    student = student_of(distilled)
    denoiser = distilled.method.denoiser.requires_grad_(True)
    torch.manual_seed(0)
    speech = nn.functional.normalize(torch.randn(1, denoiser.config.speech_dim), dim=1)
    told, noise = denoiser.condition(speech, torch.zeros(1, 6)), torch.randn(1, 4, 8, 8)
    drawn, gradients = {}, {}
    for steps in (0, 1, 4):
        drawn[steps] = student.draw(denoiser, told, noise, steps)
        if steps:
            (gradients[steps],) = torch.autograd.grad(
                drawn[steps].square().sum(), [denoiser.get_parameter(WEIGHT)]
            )
    assert not drawn[0].requires_grad
    assert torch.equal(drawn[0], drawn[1].detach())
    assert torch.equal(drawn[0], drawn[4].detach())
    assert not torch.allclose(gradients[1], gradients[4])


def test_the_velocity_to_learn_leads_to_the_end_of_the_step(
    distilled: Voice2FacePipeline,
) -> None:
    student, parts = student_of(distilled), torch.arange(4)
    clean, noise = torch.randn(2, 4, 4, 8, 8).double()
    levels = torch.cat([student.alpha_bar, torch.ones(1)]).double()[:, None, None, None]
    on_the_way = levels.sqrt()[:, None] * clean + (1 - levels).sqrt()[:, None] * noise
    ends = torch.arange(4)
    start, end = on_the_way[parts, ends], on_the_way[parts + 1, ends]
    expected = levels[:4].sqrt() * noise - (1 - levels[:4]).sqrt() * clean
    found = student.target_velocity(start, end, parts)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_discriminator_and_what_drew_the_latents_learn_apart() -> None:
    components = tiny_components("v_prediction")
    denoiser = components["denoiser"].requires_grad_(False)
    features = DenoiserFeatures(denoiser, components["scheduler"], components["face_prior"]())
    discriminator = LatentDiscriminator(features.widths)
    torch.manual_seed(0)
    told = denoiser.condition(torch.randn(3, 16), torch.zeros(3, 6), torch.zeros(3).bool())
    real, drawn = torch.randn(3, 4, 8, 8), torch.zeros(3, 4, 8, 8, requires_grad=True)
    of_drawn, of_heads = discriminator.losses(features(real, told), features(drawn, told))
    of_drawn.backward(retain_graph=True)
    assert bool(drawn.grad.any())
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    drawn.grad = None
    of_heads.backward()
    assert drawn.grad is None
    assert any(bool(parameter.grad.any()) for parameter in discriminator.parameters())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert not any(block._forward_hooks for block in features.blocks)


def test_an_update_learns_from_steps_and_from_portraits(distilled: Voice2FacePipeline) -> None:
    speech = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    latents = torch.randn(3, 5, 4, 8, 8).half()
    train = Trajectories(speech, torch.zeros(3, 6), latents[:, 0, :0], latents)
    weights = {"attribute_weight": 0.5, "adversarial_weight": 0.25, "face_weight": 2.0}

    def losses(*_: object) -> dict[str, torch.Tensor]:
        assert not parametrize._cache_enabled, "kept verdicts would let one loss move the other's"
        figures = {"attributes": 1.0, "adversarial": 2.0, "doubt": 3.0, "discriminator": 4.0}
        return {name: torch.tensor(figure) for name, figure in figures.items()}

    stage = DistillationTraining(
        SimpleNamespace(denoiser=distilled.method.denoisers()["denoiser"]),
        *(None, student_of(distilled)),
        SimpleNamespace(enabled=True, draw=lambda _: (), losses=losses),
        *(train, train),
        DistillationOptions(steps=4, batch_size=2, **weights),
        Path(),
    )
    for number, adversarial in ((ADVERSARIAL_FROM - 1, 0.0), (ADVERSARIAL_FROM, 0.5)):
        found = stage.step(number, np.random.default_rng(0))
        assert bool(found["imitation"] > 0.0)
        of_portraits = float((found["loss"] - found["imitation"]).detach())
        assert of_portraits == pytest.approx(0.5 + 6.0 + 4.0 + adversarial, abs=1e-4)


def test_the_discriminator_learns_which_latents_are_of_faces() -> None:
    components = tiny_components("v_prediction")
    denoiser = components["denoiser"].requires_grad_(False)
    features = DenoiserFeatures(denoiser, components["scheduler"], torch.zeros(4, 8, 8))
    discriminator = LatentDiscriminator(features.widths)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    torch.manual_seed(0)
    told = denoiser.condition(torch.randn(8, 16), torch.zeros(8, 6), torch.zeros(8).bool())
    real, drawn = torch.randn(8, 4, 8, 8), torch.full((8, 4, 8, 8), 2.0)
    losses = []
    for _ in range(60):
        of_drawn, of_heads = discriminator.losses(features(real, told), features(drawn, told))
        optimizer.zero_grad()
        of_heads.backward()
        optimizer.step()
        losses.append(float(of_heads.detach()))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    as_real, _ = discriminator.losses(features(drawn, told), features(real, told))
    assert float(as_real) < float(of_drawn)


def test_what_a_face_check_doubts_can_be_learnt_from() -> None:
    torch.manual_seed(0)
    check = FaceCheck(4, 8, width=8)
    latents = torch.randn(1024, 4, 8, 8)
    doubt = FaceDoubt(check, latents)
    with torch.no_grad():
        below = (check(latents + LATENT_NOISE * torch.randn_like(latents)) < doubt.bar).float()
    assert float(below.mean()) == pytest.approx(1.0 - CONFIDENT, abs=0.05)
    assert FaceDoubt(check, latents).bar == doubt.bar, "a resumed run learns from the same"

    learning = latents.clone().requires_grad_()
    optimizer = torch.optim.Adam([learning], 0.05)
    before = float(doubt(learning))
    for _ in range(20):
        optimizer.zero_grad()
        doubt(learning).backward()
        optimizer.step()
    assert float(doubt(learning)) < 0.2 * before
    assert all(parameter.grad is None for parameter in check.parameters())


def test_portraits_are_compared_with_found_faces_in_pictures_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denoiser = tiny_components()["denoiser"]
    asked = {"good_portrait": [6.0] + [0.0] * 5, "good_portrait_std": [0.5] + [1.0] * 5}
    denoiser.register_to_config(**asked)
    quality = np.random.default_rng(0).normal(size=(1000, 6))
    quality[:, 0] = np.linspace(3.0, 7.0, 1000)
    images = np.arange(1000)[:, None, None, None] % 2 * np.ones((1, 4, 4, 3), np.uint8)
    unknown = np.full(1000, -1)
    faces = FaceTable(images, unknown, unknown, quality, [str(row) for row in range(1000)])
    monkeypatch.setattr(
        "voice2face.training.exemplary_faces.face_detected", lambda image, _: bool(image.any())
    )
    chosen = exemplary_faces(faces, denoiser)
    assert not chosen[::2].any()
    assert chosen.mean() == pytest.approx(LIKE_PORTRAITS / 2, abs=0.03)
    off = np.abs(quality[:, 0] - 6.0)
    assert off[chosen].max() < 1.5
    assert off[chosen].mean() < off.mean() / 2


def test_an_update_of_another_rank_is_refused() -> None:
    denoiser = tiny_components()["denoiser"]
    trained = copy.deepcopy(denoiser)
    make_low_rank(trained, 2)
    update = update_of(trained, denoiser, 2, 2.0)
    with pytest.raises(SettingError, match="say the --rank that it learnt with"):
        make_low_rank(copy.deepcopy(denoiser), 3, update)


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few portraits are drawn to learn from and to measure with, and every face is found."""
    monkeypatch.setattr("voice2face.training.teacher_trajectories.SHARD", 6)
    monkeypatch.setattr("voice2face.training.distillation.HELD_OUT_PORTRAITS", 12)
    monkeypatch.setattr("voice2face.training.exemplary_faces.face_detected", lambda *_: True)


@pytest.fixture
def quick_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)


def to_distil(components: dict[str, Any], folder: Path) -> Path:
    """A checkpoint with a face check, in a folder."""
    check = FaceCheck(4, 8, width=8, least_confidence=-100.0)
    pipe = Voice2FacePipeline(**components, face_check=check, output_size=48, name=folder.name)
    return pipe.save_pretrained(folder)


def train(*line: object) -> None:
    command.main(list(map(str, line)))


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]


class Distilled(NamedTuple):
    """A run of two steps.

    Attributes:
        line: of the command, but for ``--out`` and how long to train.
        out: what it wrote; not to be changed.
    """

    line: list[object]
    out: Path

    def copied(self, folder: Path) -> Path:
        """The same in another folder, to be changed."""
        return shutil.copytree(self.out, folder / "out")


@pytest.fixture(scope="module")
def run(tables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder = tmp_path_factory.mktemp("distilled")
    checkpoint = to_distil(tiny_components("v_prediction"), folder / "tiny")
    line = ["distillation", "--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    line += ["--perceptual-weights", tables["squeezenet1_0"]]
    line += ["--checkpoint", checkpoint, "--whole-portraits", 2, "--portraits", 18]
    line += ["--teacher-steps", 4, "--steps", 2, "--rank", 2, "--batch-size", 4]
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_shards(monkeypatch)
        train(*line, "--out", folder / "out", "--max-steps", 2)
    return Distilled(line, folder / "out")


@pytest.mark.usefixtures("quick_distillation")
def test_the_command_distils_a_checkpoint_and_resumes(run: Distilled, tmp_path: Path) -> None:
    out = run.copied(tmp_path)
    logged = log_of(out)[-1]
    assert 0.0 < logged["held_out_distance"] < 10.0
    assert logged["held_out_doubt"] > 0.0
    shards = sorted((out / "trajectories" / "train").iterdir())
    assert [shard.name for shard in shards] == [f"{k:05}.safetensors" for k in range(3)]
    assert all(len(load_file(shard)["speech"]) == 6 for shard in shards)
    assert set(json.loads((out / "learnt_with.json").read_text())["networks"]) == {"denoiser"}
    kept = [shards[0], out / "trajectories" / "reader.safetensors"]
    written = [file.stat().st_mtime_ns for file in kept]
    train(*run.line, "--out", out, "--max-steps", 3, "--resume")
    assert log_of(out)[-1]["step"] == 3
    assert [file.stat().st_mtime_ns for file in kept] == written
    train(*run.line, "--out", out, "--max-steps", 2)
    again = log_of(out)[-1]
    assert again | {"elapsed": 0} == logged | {"elapsed": 0}, "kept files change nothing else"
    assert (out / "portraits.png").is_file()


@pytest.mark.usefixtures("quick_distillation")
@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--steps", 4], "was made of other data or by other networks"),
        (["--limit", 7], "was made of other data or by other networks"),
    ],
)
def test_what_does_not_go_with_a_distillation_is_refused(
    more: list[object],
    complaint: str,
    run: Distilled,
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit, match=complaint):
        train(*run.line, "--out", run.copied(tmp_path), *more)


@pytest.mark.usefixtures("quick_distillation")
def test_an_update_goes_on_learning_from_portraits_drawn_away_from_a_weaker_denoisers(
    run: Distilled, tmp_path: Path
) -> None:
    update = FewStepUpdate.load(run.out / "few_step_update")
    weaker = Voice2FacePipeline(**tiny_components("v_prediction"), output_size=48).to("cpu")
    with torch.no_grad():
        weaker.method.denoiser.get_parameter(BIAS).add_(1.0)
    away = ["--weaker", weaker.save_pretrained(tmp_path / "weaker"), "--autoguidance", 2]
    away += ["--trajectories", tmp_path / "away"]
    more = ["--start-from", run.out / "few_step_update", "--attribute-weight", 0]
    train(*run.line, "--out", tmp_path / "out", "--max-steps", 4, *more, *away)
    ends = [
        load_file(folder / "train" / "00000.safetensors")["latents"].float()
        for folder in (run.out / "trajectories", tmp_path / "away")
    ]
    assert torch.equal(ends[0][:, 0], ends[1][:, 0])
    assert not torch.allclose(ends[0][:, -1], ends[1][:, -1], atol=1e-2)
    later = FewStepUpdate.load(tmp_path / "out" / "few_step_update")
    assert not torch.equal(later.tensors[f"{WEIGHT}.up"], update.tensors[f"{WEIGHT}.up"])


def test_a_distilled_checkpoint_draws_and_its_decoder_learns_from_portraits(
    run: Distilled,
    tables: dict[str, str],
    tmp_path: Path,
    tone: np.ndarray,
) -> None:
    update = FewStepUpdate.load(run.out / "few_step_update")
    components = tiny_components("v_prediction")
    fast = Voice2FacePipeline(**components, few_step_update=update, output_size=48).to("cpu")
    assert preset_of(fast.settings("fast")) == Preset("distilled", 2, 2.0, 1)
    assert fast(tone, 16_000, preset="fast").images[0].size == (48, 48)

    released, sharper = fast.save_pretrained(tmp_path / "fast"), tmp_path / "sharper"
    line = ["decoder", "--faces", tables["faces-0"], "--start-from", released, "--out", sharper]
    line += ["--perceptual-weights", tables["squeezenet1_0"], "--image-size", 32]
    line += ["--batch-size", 3]
    trajectories = run.copied(tmp_path) / "trajectories"
    drawn = ["--checkpoint", released, "--trajectories", trajectories]
    train(*line, *drawn, "--max-steps", 2)
    assert log_of(sharper)[-1]["held_out_detail"] > 0.0
    kept = [sharper / f"portraits.{ending}" for ending in ("png", "safetensors")]
    assert all(file.is_file() for file in kept)
    with pytest.raises(SystemExit, match="holds no trajectories"):
        train(*line, "--trajectories", tmp_path)
    save_file({"speech": torch.zeros(1)}, trajectories / "train" / "00000.safetensors")
    with pytest.raises(SystemExit, match="of another version"):
        train(*line, *drawn)


@pytest.mark.usefixtures("quick_distillation")
def test_the_command_distils_both_denoisers_of_fine_portraitist(
    tables: dict[str, str], tmp_path: Path, tone: np.ndarray
) -> None:
    components = tiny_portraitist("v_prediction")
    checkpoint = to_distil(components, tmp_path / "fine")
    arguments = ["distillation", "--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    arguments += ["--perceptual-weights", tables["squeezenet1_0"], "--checkpoint", checkpoint]
    arguments += ["--whole-portraits", 2, "--portraits", 12, "--teacher-steps", 4, "--steps", 2]
    arguments += ["--rank", 2, "--batch-size", 4, "--max-steps", 41, "--latents", tmp_path / "kept"]

    def distil(half: str, *more: object) -> dict[str, float]:
        wanted = ["--denoiser", f"{half}_denoiser", "--out", tmp_path / half]
        train(*arguments, *wanted, *more)
        return log_of(tmp_path / half)[-1]

    with pytest.raises(SystemExit, match="--denoiser bottom_denoiser or upper_denoiser"):
        distil("")
    critic = Voice2FacePipeline(**tiny_components("v_prediction"), output_size=48)
    seen = ["--critic", critic.save_pretrained(tmp_path / "critic")]
    with pytest.raises(SystemExit, match="no checkpoint of SCLDM over the same latents"):
        distil("bottom", *seen)
    logged = {"bottom": distil("bottom"), "upper": distil("upper", *seen, "--weaker", checkpoint)}
    with torch.no_grad():
        next(critic.face_encoder.parameters()).add_(1.0)
    seen = ["--critic", critic.save_pretrained(tmp_path / "other-latents")]
    with pytest.raises(SystemExit, match="no checkpoint of SCLDM over the same latents"):
        distil("upper", *seen)
    assert "held_out_doubt" not in logged["bottom"], "the face check knows whole faces alone"
    assert logged["upper"]["held_out_attributes"] > 0.0
    kept = load_file(tmp_path / "upper" / "trajectories" / "train" / "00000.safetensors")
    assert kept["beside"].shape == (6, 8, 8, 8)
    known = components["retriever"].entries.faces
    for retrieved in kept["beside"][:, 4:].float():
        assert any(torch.allclose(retrieved, face, atol=1e-2) for face in known)
    updates = {
        f"{half}_few_step_update": FewStepUpdate.load(tmp_path / half / f"{half}_few_step_update")
        for half in logged
    }
    fast = Voice2FacePipeline(**components, **updates, output_size=48).to("cpu")
    assert preset_of(fast.settings("fast")) == Preset("distilled", 2, 2.0, 1)
    assert fast(tone, 16_000, preset="fast").images[0].size == (48, 48)


def test_a_critic_over_the_same_latents_is_known_where_networks_are_bfloat16_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Voice2FacePipeline(**tiny_components("v_prediction"), output_size=48)
    folder = pipe.save_pretrained(tmp_path / "critic")
    monkeypatch.setattr("voice2face.placed_networks.default_dtype", lambda _: torch.bfloat16)
    teacher = Voice2FacePipeline.from_pretrained(folder, device="cpu", dtype=torch.float32)
    critic = critic_of(DistilledDenoiser(teacher, "denoiser"), str(folder))
    assert critic.denoiser.dtype is torch.float32
