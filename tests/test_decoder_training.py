"""What the decoder learns from in a step, the views it is seen in, and how it is enlarged."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import tiny_components
from voice2face import Voice2FacePipeline
from voice2face.data.fine_detail import detail_ratio
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable
from voice2face.errors import SettingError
from voice2face.models import FaceDecoder
from voice2face.training import drawn_portraits
from voice2face.training.decoder import (
    DecoderNetworks,
    DecoderOptions,
    DecoderTraining,
)
from voice2face.training.drawn_portraits import kept_portraits
from voice2face.training.enlarged_decoder import enlarge
from voice2face.training.picture_views import VIEW, random_square, random_views

ADVERSARIAL_FROM = 7
WEIGHTS = {
    "perceptual_weight": 0.25,
    "likeness_weight": 0.75,
    "adversarial_weight": 0.5,
    "feature_weight": 0.125,
}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice2face.training.decoder.mixed_precision", lambda _: nullcontext())


def decoder_training(portraits: int = 8, **options: float) -> DecoderTraining:
    components = tiny_components()
    decoder: FaceDecoder = components["face_decoder"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    unknown = np.full(6, -1)
    faces = FaceTable(images, unknown, unknown, np.zeros((6, 6), np.float32), list("abcdef"))
    return DecoderTraining(
        networks=DecoderNetworks(decoder),
        start=copy.deepcopy(decoder),
        encoder=components["face_encoder"].eval(),
        faces=(faces, faces),
        held_out=(faces, faces),
        portraits=torch.randn(portraits, 4, 8, 8),
        perceptual=PerceptualLoss(None),
        options=DecoderOptions(
            batch_size=2, adversarial_from=ADVERSARIAL_FROM, **(WEIGHTS | options)
        ),
        out=Path(),
        device=torch.device("cpu"),
    )


def losses_of(stage: DecoderTraining, number: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return stage.step(number, np.random.default_rng(1))


def without_portraits(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    discriminators = losses["discriminator"] + losses["feature_discriminator"]
    return losses["absolute"] + 0.25 * losses["perceptual"] + discriminators


def test_portraits_cost_nothing_while_the_decoder_is_that_of_the_start() -> None:
    losses = losses_of(decoder_training())
    assert losses["coarse"].item() == pytest.approx(0.0, abs=1e-6)
    assert losses["likeness"].item() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(losses["loss"], without_portraits(losses))


def test_portraits_whose_colours_change_cost_by_their_weights() -> None:
    stage = decoder_training()
    stage.networks.face_decoder.to_pixels.bias.data.add_(0.3)
    losses = losses_of(stage)
    assert losses["coarse"].item() == pytest.approx(0.3, rel=1e-4)
    assert losses["likeness"].item() > 1e-5
    torch.testing.assert_close(
        losses["loss"] - without_portraits(losses), losses["coarse"] + 0.75 * losses["likeness"]
    )


def test_portraits_are_compared_in_the_same_view() -> None:
    stage = decoder_training()
    stage.perceptual.forward = lambda one, other: (one - other).abs().amax()
    for seed in range(8):
        losses = stage.step(0, np.random.default_rng(seed))
        assert losses["likeness"].item() == pytest.approx(0.0, abs=1e-6)


def gradient(losses: dict[str, torch.Tensor], name: str, network: torch.nn.Module) -> torch.Tensor:
    parameters = list(network.parameters())
    parts = torch.autograd.grad(losses[name], parameters, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def test_the_decoder_listens_to_the_discriminators_from_the_step_that_is_named() -> None:
    deaf = decoder_training(adversarial_weight=0.0, feature_weight=0.0)
    alone = gradient(losses_of(deaf, ADVERSARIAL_FROM), "loss", deaf.networks.face_decoder)
    of_number = {}
    for number in (0, ADVERSARIAL_FROM - 1, ADVERSARIAL_FROM, ADVERSARIAL_FROM + 1):
        stage = decoder_training()
        losses = losses_of(stage, number)
        decoder = stage.networks.face_decoder
        of_number[number] = gradient(losses, "loss", decoder)
        adversarial = 0.5 * gradient(losses, "adversarial", decoder)
        of_features = 0.125 * gradient(losses, "feature_adversarial", decoder)
    assert float(of_features.norm()) > 0.01 * float(alone.norm()) > 0.0
    scale = float(adversarial.norm())
    assert scale > 0.01 * float(alone.norm()) > 0.0
    for number, found in of_number.items():
        expected = alone + adversarial + of_features if number >= ADVERSARIAL_FROM else alone
        assert float((found - expected).norm()) < 1e-3 * scale, number


def test_the_discriminators_judge_portraits_too() -> None:
    judged = []
    stage = decoder_training()
    stage.networks.discriminators.register_forward_pre_hook(
        lambda _, inputs: judged.append(len(inputs[0]))
    )
    losses_of(stage)
    assert sorted(judged) == [2, 4, 4], "photographs once, all that was decoded for both sides"


def test_nothing_is_said_of_portraits_where_there_are_none() -> None:
    losses = losses_of(decoder_training(portraits=0), ADVERSARIAL_FROM)
    assert losses.keys().isdisjoint({"coarse", "likeness"})
    adversarial = 0.5 * losses["adversarial"] + 0.125 * losses["feature_adversarial"]
    expected = without_portraits(losses) + adversarial
    torch.testing.assert_close(losses["loss"], expected)
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_nothing_but_the_decoder_and_the_discriminators_learns() -> None:
    stage = decoder_training()
    losses_of(stage, ADVERSARIAL_FROM)["loss"].backward()
    learning = stage.networks.children()
    for network in learning:
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert any(bool(parameter.grad.any()) for parameter in network.parameters())
    for network in (stage.encoder, stage.start, stage.perceptual):
        assert all(parameter.grad is None for parameter in network.parameters())


def patches(pictures: torch.Tensor, size: int) -> torch.Tensor:
    return F.unfold(pictures, size, stride=size).mT.unflatten(2, (3, size, size))


@torch.no_grad()
@pytest.mark.parametrize("image_size", [48, 96])
def test_the_patches_of_an_enlarged_decoder_are_the_old_ones_interpolated(image_size: int) -> None:
    decoder: FaceDecoder = tiny_components()["face_decoder"]
    larger = enlarge(decoder, image_size)
    assert (larger.config.image_size, larger.config.patch_size) == (image_size, image_size // 16)
    latents = torch.randn(2, 4, 8, 8)
    before, after = decoder(latents), larger(latents)
    assert after.shape == (2, 3, image_size, image_size)
    side = image_size // 16
    expected = F.interpolate(patches(before, 2).flatten(0, 1), (side, side), mode="bilinear")
    found = patches(after, side).flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_decoder_of_the_usual_patches_can_be_enlarged() -> None:
    widths = {"block_channels": (8, 16), "blocks_per_level": (1, 1), "latent_channels": 4}
    decoder = enlarge(FaceDecoder(image_size=32, **widths), 48)
    assert decoder(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 48, 48)


def test_a_decoder_of_the_same_size_is_the_same() -> None:
    decoder: FaceDecoder = tiny_components()["face_decoder"]
    same = enlarge(decoder, 32)
    assert same.config.patch_size == decoder.config.patch_size
    for name, value in decoder.state_dict().items():
        assert torch.equal(same.state_dict()[name], value), name


@pytest.mark.parametrize("image_size", [40, 47, 8])
def test_a_decoder_cannot_be_enlarged_to_parts_of_patches(image_size: int) -> None:
    with pytest.raises(ValueError, match="multiples of 16 pixels"):
        enlarge(tiny_components()["face_decoder"], image_size)


def test_views_are_the_same_square_of_each_picture_or_all_of_it() -> None:
    side = VIEW + 32
    one = torch.arange(float(side * side)).view(1, 1, side, side)
    other = one + 0.5 * side**2
    reduced = F.interpolate(one, (VIEW, VIEW), mode="bilinear", antialias=True)
    corners = []
    for seed in range(24):
        first, second = random_views(np.random.default_rng(seed), one, other)
        torch.testing.assert_close(second - first, torch.full_like(first, 0.5 * side**2))
        if torch.equal(first, reduced):
            corners.append(None)
            continue
        top, left = divmod(int(first[0, 0, 0, 0]), side)
        assert torch.equal(first, one[:, :, top : top + VIEW, left : left + VIEW])
        assert first.shape[2:] == (VIEW, VIEW)
        corners.append((top, left))
    assert 4 < corners.count(None) < 20
    cut = {corner for corner in corners if corner is not None}
    assert len(cut) > 4
    assert any(top != left for top, left in cut)


def test_pictures_smaller_than_a_view_are_shown_whole() -> None:
    pictures = torch.randn(2, 3, 32, 32)
    shown = [random_views(np.random.default_rng(seed), pictures)[0] for seed in range(12)]
    assert {view.shape[2] for view in shown} == {32, VIEW}
    assert all(torch.equal(view, pictures) for view in shown if view.shape[2] == 32)


def test_a_square_is_the_same_of_each_picture_and_never_reduced() -> None:
    pictures = torch.randn(2, 3, VIEW + 64, VIEW + 64)
    for seed in range(8):
        first, second = random_square(np.random.default_rng(seed), pictures, pictures + 1)
        torch.testing.assert_close(second, first + 1)
        assert first.shape[2:] == (VIEW, VIEW)
        assert bool((pictures[0, 0] == first[0, 0, 0, 0]).any())
    small = torch.randn(1, 3, 32, 32)
    assert torch.equal(random_square(np.random.default_rng(0), small)[0], small)


def test_detail_is_less_in_blurred_pictures() -> None:
    torch.manual_seed(0)
    photographs = torch.randn(8, 3, 96, 96)
    blurred = F.avg_pool2d(photographs, 5, stride=1, padding=2)
    assert detail_ratio(photographs, photographs) == pytest.approx(1.0)
    assert detail_ratio(0.5 * photographs, photographs) == pytest.approx(0.25)
    assert 0.0 < detail_ratio(blurred, photographs) < 0.3


def test_portraits_are_drawn_once(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on, or is begun again, reads those that it drew."""
    file, asked = tmp_path / "portraits.safetensors", []
    speech = torch.randn(3, tiny_pipeline.speech_encoder.config.embedding_dim)
    draw = drawn_portraits.drawn_portraits

    def watched(*arguments: Any, **named: Any) -> torch.Tensor:
        asked.append(arguments)
        return draw(*arguments, **named)

    monkeypatch.setattr(drawn_portraits, "drawn_portraits", watched)
    first, again = (kept_portraits(file, tiny_pipeline, speech, 0) for _ in range(2))
    assert len(asked) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, draw(tiny_pipeline, speech))
    with pytest.raises(SettingError, match="made of other data"):
        kept_portraits(file, tiny_pipeline, -speech, 0)
