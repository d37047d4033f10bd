"""Both stages on a handful of drawn faces and voices, from tables to a checkpoint that loads."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import zipfile
from argparse import SUPPRESS, ArgumentParser, Namespace
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from tests.conftest import WEIGHT, shorten_evaluation, tiny_components
from tests.test_compilation import needs_a_compiler
from voice2face import Voice2FacePipeline
from voice2face.audio import SAMPLE_RATE
from voice2face.checkpoints.manifest import PACKAGED_WEIGHTS
from voice2face.checkpoints.model_index import read_model_index
from voice2face.components import load_component
from voice2face.data.excerpts import random_crop
from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import (
    UNKNOWN,
    FaceTable,
    VoiceTable,
    decode_voice,
    load_faces,
    load_voices,
    read_rows,
)
from voice2face.errors import SettingError
from voice2face.models import (
    SPEECH_ENCODERS,
    Denoiser,
    FaceDecoder,
    FaceEncoder,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.models.face_retriever import FaceRetriever
from voice2face.pixels import to_uint8
from voice2face.training import __main__ as command
from voice2face.training import augmentation, speaker_weights
from voice2face.training.augmentation import augment_voice
from voice2face.training.collaborative import build_networks
from voice2face.training.decoder import JUDGED_MAPS
from voice2face.training.denoiser_training import DenoiserTraining, DiffusionOptions
from voice2face.training.diffusion import balanced_prior
from voice2face.training.discriminators import Discriminators, FeatureDiscriminator
from voice2face.training.kept_files import fingerprint, kept_in
from voice2face.training.latent_pairs import Batch
from voice2face.training.latents import EncodedTables
from voice2face.training.learnt_with import weights_fingerprint
from voice2face.training.loop import LoopOptions, TrainingLoop, ema_update
from voice2face.training.losses import age_loss, contrastive_loss, known_loss
from voice2face.training.mixed_precision import (
    bfloat16_is_quicker,
    convolution_seconds,
    mixed_precision,
)
from voice2face.training.noise_schedule import (
    LOG_NOISE_MEAN,
    LOG_NOISE_STD,
    draw_timesteps,
    noise_schedule,
)
from voice2face.training.options import checksum_of_split, options_from
from voice2face.training.pairing import AttributeBridge, ChosenFaces, TruePairs
from voice2face.training.part_folders import part_folder
from voice2face.training.picture_views import coarse_difference
from voice2face.training.starting_denoiser import asked_anew, set_dropout
from voice2face.training.target_quality import quality_settings
from voice2face.training.training_log import logged


def run(*arguments: object) -> None:
    command.main(list(map(str, arguments)))


DOCS = Path(__file__).parents[1] / "docs"
SMALL = ["--block-channels", 16, 32, "--cross-attention-dim", 16]
SHORT = ["--max-steps", 2, "--batch-size", 4]
DENOISER = "denoiser/diffusion_pytorch_model.safetensors"


def data_options(tables: dict[str, str], kind: str) -> list[str]:
    if kind == "true pairs":
        return ["--pairs", tables["pairs-0"]]
    return ["--faces", tables["faces-0"], "--voices", tables["voices-0"]]


def shrink_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 trains networks of its own shape, with few channels."""
    channels = {"block_channels": (8, 16, 16, 16)}
    speech = {"window_seconds": 2.0, "block_channels": (4, 8, 8)}
    for kind, few in ((SpeechEncoder, speech), (FaceEncoder, channels), (FaceDecoder, channels)):
        name = f"voice2face.training.collaborative.{kind.__name__}"
        monkeypatch.setattr(name, partial(kind, **few))


@pytest.fixture
def small_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_encoders(monkeypatch)


def train_stage_one(
    tables: dict[str, str], data: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_encoders(monkeypatch)
    perceptual = ["--perceptual-weights", tables["squeezenet1_0"], "--image-size", 64]
    run("collaborative", *data, *perceptual, "--out", out, *SHORT)


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def strangers(tables: dict[str, str]) -> list[str]:
    """Options that name faces and voices of strangers."""
    return data_options(tables, "attribute-bridged pairs")


@pytest.fixture(scope="module")
def stage_one(
    tables: dict[str, str], strangers: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the collaborative stage writes; not to be changed."""
    out = tmp_path_factory.mktemp("stages") / "one"
    with pytest.MonkeyPatch.context() as monkeypatch:
        train_stage_one(tables, strangers, out, monkeypatch)
    return out


@pytest.fixture(scope="module")
def stage_two(
    strangers: list[str], stage_one: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the diffusion stage writes, told sex and age; not to be changed."""
    out = tmp_path_factory.mktemp("stages") / "two"
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_evaluation(monkeypatch)
        wanted = ["--encoders", stage_one, "--out", out, "--heard-attributes", *SMALL]
        run("diffusion", *strangers, *wanted, *SHORT)
    return out


@pytest.fixture(scope="module")
def portraitist_stages(
    strangers: list[str], stage_one: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what retriever, bottom and upper write; not to be changed."""
    folder = tmp_path_factory.mktemp("fine")
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_evaluation(monkeypatch)
        wanted = ["--out", folder / "index", "--entries", 6, "--licence", "CC0-1.0"]
        run("retriever", *strangers, "--encoders", stage_one, *wanted)
        for stage in ("bottom", "upper"):
            wanted = ["--retriever", folder / "index", "--latents", folder / "latents"]
            wanted += ["--out", folder / stage, "--heard-attributes", *SMALL]
            run(stage, *strangers, "--encoders", stage_one, *wanted, *SHORT)
    return folder


def test_stage_1_writes_figures_and_pictures(stage_one: Path) -> None:
    assert (stage_one / "reconstructions.png").is_file()
    assert {"held_out_absolute", "held_out_perceptual"} <= set(log_of(stage_one)[-1])


@pytest.mark.parametrize("kind", ["attribute-bridged pairs", "true pairs"])
def test_the_decoder_of_stage_1_learns_to_draw_larger_pictures(
    kind: str,
    tables: dict[str, str],
    stage_one: Path,
    tmp_path: Path,
) -> None:
    larger = [*data_options(tables, kind)[:2], "--start-from", stage_one, "--image-size", 96]
    larger += ["--perceptual-weights", tables["squeezenet1_0"]]
    run("decoder", *larger, "--out", tmp_path, *SHORT)
    assert (tmp_path / "reconstructions.png").is_file()
    encoder = load_component(FaceEncoder, stage_one / "face_encoder")
    noted = json.loads((tmp_path / "learnt_with.json").read_text())["networks"]
    assert noted == {"face_encoder": weights_fingerprint(encoder)}


@pytest.mark.usefixtures("quick_evaluation")
def test_true_pairs_train_both_stages(
    tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = data_options(tables, "true pairs")
    one, two, index = tmp_path / "one", tmp_path / "two", tmp_path / "index"
    train_stage_one(tables, pairs, one, monkeypatch)
    assert (one / "reconstructions.png").is_file()
    assert {"held_out_absolute", "held_out_perceptual"} <= set(log_of(one)[-1])

    wanted = ["--encoders", one, "--out", index, "--entries", 6, "--licence", "CC0-1.0"]
    run("retriever", *pairs, *wanted)
    retriever = FaceRetriever.load(index)
    assert 2 <= len(retriever) <= 6
    assert set(retriever.entries.licences) == {"CC0-1.0"}
    assert all(len(set(name.split("+"))) == 1 for name in retriever.entries.ids)

    run("diffusion", *pairs, "--encoders", one, "--out", two, *SHORT, *SMALL)
    assert (two / "portraits.png").is_file()
    assert 0.0 < log_of(two)[-1]["held_out_loss"] < 10.0
    deaf = ["--encoders", one, "--out", tmp_path / "deaf", "--drop-attention", 0.5]
    with pytest.raises(SystemExit, match="give --heard-attributes, too"):
        run("diffusion", *pairs, *deaf, *SHORT)


@pytest.mark.usefixtures("quick_evaluation")
def test_the_stages_of_fine_portraitist_make_a_checkpoint_and_go_on_from_it(
    strangers: list[str],
    stage_one: Path,
    portraitist_stages: Path,
    tmp_path: Path,
    tone: np.ndarray,
) -> None:
    index, fine = portraitist_stages / "index", tmp_path / "fine"
    retriever = FaceRetriever.load(index)
    assert 2 <= len(retriever) <= 6
    assert set(retriever.entries.licences) == {"CC0-1.0"}
    stages = ["--collaborative", stage_one, "--retriever", index]
    for stage in ("bottom", "upper"):
        assert (portraitist_stages / stage / "portraits.png").is_file()
        stages += [f"--{stage}", portraitist_stages / stage]
    stages += ["--manifest", tmp_path / "fine.json"]
    run("release", *stages, "--to", fine)
    noise_schedule("v_prediction").save_pretrained(tmp_path / "other" / "scheduler")
    with pytest.raises(SystemExit, match="learnt with different --prediction-type"):
        run("release", *stages, "--upper", tmp_path / "other", "--to", fine)
    entry = json.loads((tmp_path / "fine.json").read_text())["checkpoints"]["fine"]
    assert entry["method"] == "fine_portraitist"
    exchanged = ["--bottom", portraitist_stages / "upper", "--upper", portraitist_stages / "bottom"]
    with pytest.raises(SystemExit, match=r"--bottom .*upper was trained by another stage"):
        run("release", *stages, *exchanged, "--to", fine)
    of_checkpoint = [
        word for stage in ("bottom", "upper", "retriever") for word in (f"--{stage}", fine)
    ]
    run("release", "--collaborative", fine, *of_checkpoint, "--to", tmp_path / "again")
    files = [read_model_index(folder)["files"] for folder in (fine, tmp_path / "again")]
    assert files[0] == files[1]
    portraitist = Voice2FacePipeline.from_pretrained(fine, device="cpu")
    made = portraitist(tone, 16_000, num_inference_steps=1)
    assert made.evidence.retrieved[0].id in retriever.entries.ids

    for stage in ("bottom", "upper"):
        wanted = ["--retriever", index, "--latents", portraitist_stages / "latents"]
        wanted += ["--encoders", stage_one, "--start-from", fine, "--out", tmp_path / stage]
        wanted += ["--max-steps", 1, "--batch-size", 4, "--learning-rate", 1e-12]
        run(stage, *strangers, *wanted)
        went_on = load_component(Denoiser, tmp_path / stage / "denoiser")
        began = load_component(Denoiser, fine / f"{stage}_denoiser")
        for name, weights in began.named_parameters():
            assert torch.allclose(went_on.get_parameter(name), weights.float(), atol=1e-4), name
        schedule = tmp_path / stage / "scheduler" / "scheduler_config.json"
        assert json.loads(schedule.read_text())["prediction_type"] == "epsilon"


@pytest.mark.usefixtures("quick_evaluation")
def test_a_denoiser_goes_on_learning_and_what_had_the_lowest_loss_is_kept(
    strangers: list[str],
    stage_one: Path,
    stage_two: Path,
    tmp_path: Path,
) -> None:
    two = shutil.copytree(stage_two, tmp_path / "two")
    encoder = load_component(SPEECH_ENCODERS, stage_one / "speech_encoder")
    denoiser = load_component(Denoiser, two / "denoiser")
    assert torch.equal(denoiser.age_head.weight, encoder.age_head.weight)
    assert (two / "portraits.png").is_file()
    assert 0.0 < log_of(two)[-1]["held_out_loss"] < 10.0
    best = (two / "lowest_loss" / DENOISER).read_bytes()
    assert best == (two / DENOISER).read_bytes()
    with (two / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "held_out_loss": 0.0}\n')
    again = [*strangers, "--encoders", stage_one, "--out", two, *SHORT]
    again += ["--heard-attributes", *SMALL]
    run("diffusion", *again, "--resume", "--max-steps", 3)
    assert (two / "lowest_loss" / DENOISER).read_bytes() == best
    assert (two / DENOISER).read_bytes() != best
    run("diffusion", *again, "--seed", 1)
    assert '"held_out_loss": 0.0}' in (two / "log-1.jsonl").read_text()
    assert '"held_out_loss": 0.0}' not in (two / "log.jsonl").read_text()
    assert (two / "lowest_loss" / DENOISER).read_bytes() == (two / DENOISER).read_bytes() != best


@pytest.mark.usefixtures("quick_evaluation")
def test_a_run_starts_from_another_ones_denoiser(
    strangers: list[str],
    stage_one: Path,
    stage_two: Path,
    portraitist_stages: Path,
    tmp_path: Path,
) -> None:
    before = load_component(Denoiser, stage_two / "denoiser")
    wanted = dict(before.config)
    before.register_to_config(good_portrait=[0.0] * 6, good_portrait_std=[9.0] * 6)
    before.save_pretrained(tmp_path / "before" / "denoiser")
    on = ["--start-from", tmp_path / "before", "--encoders", stage_one, "--out", tmp_path / "on"]
    on = ["diffusion", *strangers, *SHORT, "--heard-attributes", *on]
    with pytest.raises(SystemExit, match="say --prediction-type"):
        run(*on)
    shutil.copytree(stage_two / "scheduler", tmp_path / "before" / "scheduler")
    with pytest.raises(SystemExit, match="learnt with --prediction-type epsilon, not v_prediction"):
        run(*on, "--prediction-type", "v_prediction")
    run(*on, "--attributes-emphasis", 1.3)
    run(*on, "--start-from", tmp_path / "on", "--out", tmp_path / "further")
    further = dict(load_component(Denoiser, tmp_path / "further" / "denoiser").config)
    assert further["attributes_emphasis"] == 1.3, "that of --start-from"
    upper = ["--start-from", portraitist_stages / "upper", "--out", tmp_path / "wrong"]
    with pytest.raises(SystemExit, match="trained by another stage"):
        run(*on, *upper)
    after = dict(load_component(Denoiser, tmp_path / "on" / "denoiser").config)
    for name in ("good_portrait", "good_portrait_std", "quality_mean", "block_channels"):
        assert after[name] == wanted[name], name
    assert after["attributes_emphasis"] == 1.3


def test_faces_of_unknown_quality_teach_as_good_portraits() -> None:
    """A denoiser that goes on with tables without these columns is asked for what it was before."""
    before = [[4.7, 0.0, 0.6, 99.0, 43.0, 0.0], [1.0, 0.1, 0.1, 29.0, 12.0, 0.01]]
    good = [5.8, 0.01, 0.5, 95.0, 40.0, 0.0]
    denoiser = Denoiser(
        block_channels=(16, 32), quality_mean=before[0], quality_std=before[1], good_portrait=good
    )
    quality = np.zeros((8, 6), np.float32)
    quality[:, 0] = np.linspace(2.0, 6.0, 8)
    faces = FaceTable(
        np.zeros((8, 1, 1, 3), np.uint8), np.zeros(8), np.zeros(8), quality, ["1"] * 8
    )
    asked = asked_anew(denoiser, quality_settings(faces))
    assert asked["quality_mean"][0] == before[0][0], "the sharpness is known"
    assert asked["good_portrait"][0] > 5
    assert asked["good_portrait"][1:] == asked["good_portrait_std"][1:] == [0.0] * 5
    told = -np.array(asked["quality_mean"])[1:] / before[1][1:]
    expected = (np.array(good) - before[0])[1:] / before[1][1:]
    np.testing.assert_allclose(told, expected)
    denoiser.register_to_config(**asked)
    assert asked_anew(denoiser, quality_settings(faces)) == asked, "a further run changes nothing"


@pytest.mark.parametrize("at_first", [True, False], ids=["numbers at first", "no number at first"])
def test_numbers_of_quality_that_earlier_faces_lacked_are_measured_anew(at_first: bool) -> None:
    """Not told as numbers of another scale: as far off as can be, all of them."""

    def settings(level: list[float], spread: list[float]) -> dict[str, list[float]]:
        rng = np.random.default_rng(0)
        quality = (np.array(level) + np.array(spread) * rng.standard_normal((64, 6))).astype("f4")
        none = np.zeros(64)
        images = np.zeros((64, 1, 1, 3), np.uint8)
        return quality_settings(FaceTable(images, none, none, quality, ["1"] * 64))

    released = settings([4.7, 0.0, 0.6, 99.0, 43.0, 0.0], [1.0, 0.1, 0.1, 29.0, 12.0, 0.01])
    without = settings([0.0] * 6, [0.0] * 6)
    with_numbers = settings([3.0, 0.0, 0.7, 150.0, 60.0, 0.02], [0.5, 0.2, 0.1, 20.0, 9.0, 0.01])
    denoiser = Denoiser(block_channels=(16, 32), **(released if at_first else without))
    denoiser.register_to_config(**asked_anew(denoiser, without))
    asked = asked_anew(denoiser, with_numbers)
    for name, values in with_numbers.items():
        known = 5 if at_first else 6  # what good portraits never lack, and what lies outside
        assert asked[name][:known] == values[:known], name


def test_two_stages_make_a_checkpoint(
    stage_one: Path,
    stage_two: Path,
    tmp_path: Path,
    tone: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    released, manifest = tmp_path / "released", tmp_path / "manifest.json"
    stages = ["--collaborative", stage_one, "--diffusion", stage_two]
    listing = ["--to", released, "--manifest", manifest]
    own = ["--licence", "CC0-1.0", "--training-data", "faces of mine", "CC0-1.0"]
    with caplog.at_level("WARNING"):
        run("release", *stages, *listing, *own)
    assert "does not say which networks it learnt with" not in caplog.text
    run("release", *listing)
    entry = json.loads(manifest.read_text())["checkpoints"]["released"]
    assert entry["licence"] == "CC0-1.0"
    assert entry["training_data"] == [{"name": "faces of mine", "licence": "CC0-1.0"}]
    assert entry["resolution"] == 64
    assert set(entry["files"]) == {
        path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file()
    }
    configs = "".join(path.read_text() for path in released.rglob("*.json"))
    for folder in (stage_one, stage_two, tmp_path):
        assert str(folder) not in configs
    pipe = Voice2FacePipeline.from_pretrained(released, device="cpu")
    assert pipe(tone, 16_000, num_inference_steps=2).images[0].size == (256, 256)


def test_a_first_loss_that_is_no_number_does_not_hide_the_lowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    batch = Batch(
        torch.randn(2, 4, 8, 8),
        torch.ones(2, 6),
        torch.nn.functional.normalize(torch.randn(2, 16), dim=1),
        torch.full((2, 2), nan),
        None,
    )
    losses = {"now": nan}
    monkeypatch.setattr(
        "voice2face.training.denoiser_training.denoising_loss",
        lambda *_: torch.tensor(losses["now"]),
    )
    monkeypatch.setattr(DenoiserTraining, "_contact_sheet", lambda *_: None)
    denoiser = tiny_components()["denoiser"]
    stage = DenoiserTraining(
        denoiser,
        *(None, None, None, None, SimpleNamespace(sample=lambda *_: batch)),
        DiffusionOptions(),
        *(tmp_path, torch.device("cpu")),
    )
    lowest = tmp_path / "lowest_loss" / "denoiser" / "diffusion_pytorch_model.safetensors"
    kept = []
    for number, loss in enumerate((nan, 2.0, 3.0, nan, 1.0)):
        denoiser.get_parameter(WEIGHT).data.fill_(float(number))
        losses["now"] = loss
        figures = stage.evaluate(denoiser)
        with (tmp_path / "log.jsonl").open("a") as log:
            log.write(json.dumps({"held_out_loss": figures["loss"]}) + "\n")
        kept.append(float(load_file(lowest)[WEIGHT].mean()) if lowest.exists() else None)
    assert kept == [None, 1.0, 1.0, 1.0, 4.0]


@pytest.fixture
def speaker_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of the published shape, in a wheel whose checksum is the expected one."""
    torch.manual_seed(1)
    encoder = SpeakerEncoder()
    weights = {f"lstm.{name}": value for name, value in encoder.recurrent.state_dict().items()}
    weights |= {f"linear.{name}": value for name, value in encoder.to_speaker.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model_state": weights, "step": 1}, buffer)
    content = buffer.getvalue()
    monkeypatch.setattr(speaker_weights, "MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    wheel = tmp_path / "speaker.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(speaker_weights.MEMBER, content)
    return wheel


@pytest.mark.usefixtures("quick_evaluation")
def test_a_published_speaker_network_stays_frozen_while_its_projection_learns(
    tables: dict[str, str],
    speaker_wheel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tone: np.ndarray,
) -> None:
    data = data_options(tables, "attribute-bridged pairs")
    faces, one, two = tmp_path / "faces", tmp_path / "one", tmp_path / "two"
    for name in ("face_encoder", "face_decoder"):
        tiny_components()[name].save_pretrained(faces / name)
    monkeypatch.setattr(
        "voice2face.training.speaker.SpeakerEncoder",
        lambda: SpeakerEncoder(embedding_dim=16, window_seconds=2.0),
    )
    stage = ["--faces-from", faces, "--speaker-weights", speaker_wheel, "--out", one]
    run("speaker", *data, *stage, "--max-steps", 3)
    encoder = load_component(SPEECH_ENCODERS, one / "speech_encoder")
    assert isinstance(encoder, SpeakerEncoder)
    published = speaker_weights.read_published(speaker_wheel)
    assert len(published) == 14
    for name, value in published.items():
        assert torch.equal(encoder.state_dict()[name], value)
    assert not torch.equal(encoder.speaker_std, torch.ones(256))

    stage = ["--encoders", one, "--out", two, *SMALL, "--max-steps", 1]
    run("diffusion", *data, *stage)
    released, manifest = tmp_path / "released", tmp_path / "manifest.json"
    stages = ["--collaborative", one, "--diffusion", two, "--manifest", manifest]
    run("release", *stages, "--to", released)
    pipe = Voice2FacePipeline.from_pretrained(released, device="cpu")
    assert isinstance(pipe.speech_encoder, SpeakerEncoder)
    assert pipe(tone, 16_000, num_inference_steps=1).images[0].size == (256, 256)


def test_discriminators_and_what_they_look_at_learn_apart() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(2, scales=2)
    generated = torch.zeros(2, 3, 32, 32, requires_grad=True)
    real = torch.randn(2, 3, 32, 32)
    discriminators.loss(real, generated).backward()
    assert generated.grad is None
    assert any(bool(p.grad.any()) for p in discriminators.parameters())
    discriminators.zero_grad()
    discriminators.generator_loss(generated).backward()
    assert generated.grad is not None
    assert bool(generated.grad.any())
    assert all(p.grad is None for p in discriminators.parameters())


def test_discriminators_learn_what_is_real() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(2, scales=2)
    optimizer = torch.optim.Adam(discriminators.parameters(), 1e-3)
    real, generated = torch.randn(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    losses = []
    for _ in range(20):
        loss = discriminators.loss(real, generated)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    of_real, of_generated = (discriminators.generator_loss(one) for one in (real, generated))
    assert float(of_real) < float(of_generated)


def test_features_and_what_judges_them_learn_apart() -> None:
    torch.manual_seed(0)
    discriminator = FeatureDiscriminator((8, 16))
    real, generated = (
        [torch.nn.functional.normalize(torch.randn(2, c, 6, 6), dim=1) for c in (8, 16)]
        for _ in range(2)
    )
    for features in generated:
        features.requires_grad_()
    for_generator, for_discriminator = discriminator.losses(real, generated)
    for_discriminator.backward(retain_graph=True)
    assert all(features.grad is None for features in generated)
    assert all(bool(head[-1].weight.grad.any()) for head in discriminator.heads)
    discriminator.zero_grad()
    for_generator.backward()
    assert all(bool(features.grad.any()) for features in generated)
    assert all(p.grad is None for p in discriminator.parameters())


def test_features_of_photographs_are_learnt_to_be_real() -> None:
    torch.manual_seed(0)
    discriminator = FeatureDiscriminator((8,))
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    real = torch.nn.functional.normalize(torch.rand(4, 8, 6, 6), dim=1)
    generated = torch.nn.functional.normalize(torch.randn(4, 8, 6, 6), dim=1)
    losses = []
    for _ in range(60):
        loss = discriminator.losses([real], [generated])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        of_real, of_generated = (discriminator([one])[0].mean() for one in (real, generated))
    assert float(of_real) > float(of_generated)


def test_the_finest_maps_are_the_first_of_all() -> None:
    network, pictures = PerceptualLoss(None), torch.rand(1, 3, 64, 64)
    every, finest = network.maps(pictures), network.maps(pictures, 3)
    assert (len(every), len(finest)) == (5, 3)
    assert tuple(features.shape[1] for features in finest) == JUDGED_MAPS
    for one, other in zip(finest, every, strict=False):
        assert torch.equal(one, other)


def test_other_speaker_weights_are_refused(
    speaker_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_weights, "MEMBER_SHA256", "0" * 64)
    for wheel in (speaker_wheel, tmp_path / "missing.whl"):
        with pytest.raises(SettingError, match=r"Resemblyzer 0\.1\.4"):
            speaker_weights.read_published(wheel)


@pytest.mark.usefixtures("small_encoders")
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_options(tables, "attribute-bridged pairs")
    shape = ["--perceptual-weights", tables["squeezenet1_0"], "--image-size", 64, "--batch-size", 4]

    def train(out: Path, steps: int, *more: str) -> None:
        everything = ["--out", out, "--max-steps", steps, *more]
        run("collaborative", *data, *shape, *everything)

    monkeypatch.setattr("voice2face.training.loop.TrainingLoop.rate_factor", lambda _: 1.0)
    train(tmp_path / "unbroken", 4)
    train(tmp_path / "broken", 2)
    train(tmp_path / "broken", 4, "--resume")
    states = [
        load_file(tmp_path / name / "training_state.safetensors") for name in ("unbroken", "broken")
    ]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize(("image_size", "part"), [(128, "face_encoder"), (192, "face_decoder")])
def test_stage_1_makes_networks_of_the_released_shape(image_size: int, part: str) -> None:
    with torch.device("meta"):
        networks = build_networks(Namespace(image_size=image_size, latent_channels=16)).eval()
        drawn = networks.face_decoder(torch.zeros(1, 16, 8, 8))
    assert drawn.shape == (1, 3, image_size, image_size)
    assert networks.face_encoder.latent_size == 8
    released = json.loads((PACKAGED_WEIGHTS / "scldm-192" / part / "config.json").read_text())
    made = json.loads(getattr(networks, part).to_json_string())
    assert {name: made[name] for name in released if not name.startswith("_")} == {
        name: value for name, value in released.items() if not name.startswith("_")
    }


def test_the_average_follows_the_weights_ever_more_slowly() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(network, multi_avg_fn=ema_update(0.9))
    expected = 0.0
    for count in range(100):
        network.weight.data.fill_(float(count))
        averaged.update_parameters(network)
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * count if count else float(count)
        assert float(averaged.module.weight) == pytest.approx(expected, rel=1e-4)
    assert 89.0 < expected < 91.0, "the mean age of what is averaged is 1 / (1 - 0.9)"


def test_portraits_keep_the_decoder_from_changing_their_colours() -> None:
    before = torch.zeros(2, 3, 64, 64)
    drawn = torch.full_like(before, 0.25, requires_grad=True)
    difference = coarse_difference(drawn, before)
    assert float(difference) == pytest.approx(0.25)
    difference.backward()
    assert (drawn.grad > 0).all()


def test_a_run_that_begins_anew_does_not_resume_an_older_one(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    options = LoopOptions(out=tmp_path, max_steps=1)
    loop = TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)
    loop.save_state()
    older = (tmp_path / "training_state.safetensors").read_bytes()
    TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)
    assert (tmp_path / "training_state-1.safetensors").read_bytes() == older
    assert not (tmp_path / "training_state.safetensors").exists()
    (tmp_path / "log.jsonl").write_text('{"held_out_loss": 1.0}\n{"held_out_lo')
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"held_out_loss": 2.0}\n{"held_out_loss": 3.0}\n')
    assert logged(tmp_path, "held_out_loss") == [1.0, 3.0], "but what a killed run cut off"


@pytest.mark.parametrize("nothing", [{"time_budget": 0.0}, {"max_steps": 0}])
def test_a_run_needs_time_and_steps(nothing: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a time budget above 0 and 1 step or more"):
        LoopOptions(out=tmp_path, **nothing)


def test_options_are_those_of_the_command_line_and_else_the_defaults() -> None:
    arguments = Namespace(batch_size=3, dropout=0.5, seed=1, out=Path())
    expected = DiffusionOptions(batch_size=3, dropout=0.5)
    assert options_from(arguments, DiffusionOptions) == expected
    assert options_from(arguments, LoopOptions) == LoopOptions(out=Path(), seed=1)


def test_the_checksum_of_a_split_is_of_what_its_rows_hold(tmp_path: Path) -> None:
    def checksum(name: str, split: str, image: bytes, age: str = "20-29") -> str:
        rows = [{"id": "1", "split": one, "age": age, "image": image} for one in ("train", "test")]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        tables = [str(tmp_path / f"{name}.parquet")]
        return checksum_of_split(Namespace(pairs=tables, limit=None), split)

    first = checksum("first", "train", b"one")
    assert checksum("again", "train", b"one") == first
    assert checksum("picture", "train", b"other") != first
    assert checksum("label", "train", b"one", "30-39") != first
    assert checksum("split", "test", b"one") != first


def test_what_was_kept_of_other_networks_is_refused(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    file, made_of = tmp_path / "kept.safetensors", fingerprint(network, ["a", "b"])
    first = kept_in(file, made_of, lambda: {"values": torch.ones(2)})
    again = kept_in(file, made_of, lambda: {"values": torch.zeros(2)})
    assert torch.equal(first["values"], again["values"])
    assert fingerprint(copy.deepcopy(network).half().float(), ["a", "b"]) == made_of, "as released"
    other = torch.nn.Linear(2, 2)
    for changed in (fingerprint(other, ["a", "b"]), fingerprint(network, ["a", "c"])):
        with pytest.raises(SettingError, match="was made of other data or by other networks"):
            kept_in(file, changed, lambda: {"values": torch.zeros(2)})


def test_a_fingerprint_is_of_weights_configurations_and_tensors() -> None:
    denoiser: Denoiser = tiny_components()["denoiser"]
    told = Denoiser.from_config(denoiser.config, attributes_emphasis=2.0)
    told.load_state_dict(denoiser.state_dict())
    assert fingerprint(told) != fingerprint(denoiser), "they draw differently"
    assert fingerprint(copy.deepcopy(denoiser)) == fingerprint(denoiser)
    assert fingerprint(torch.zeros(3)) == fingerprint(torch.zeros(3))
    assert fingerprint(torch.zeros(3)) != fingerprint(torch.ones(3))


@pytest.mark.parametrize("quicker", [torch.bfloat16, torch.float32])
def test_a_cpu_computes_in_bfloat16_where_that_is_quicker(
    quicker: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[torch.dtype] = []

    def seconds(dtype: torch.dtype) -> float:
        tried.append(dtype)
        return 0.1 if dtype == quicker else 0.2

    monkeypatch.setattr("voice2face.training.mixed_precision.convolution_seconds", seconds)
    bfloat16_is_quicker.cache_clear()
    matrix = torch.ones(2, 2)
    for _ in range(3):
        with mixed_precision(torch.device("cpu")):
            assert (matrix @ matrix).dtype == quicker
    assert sorted(map(str, tried)) == ["torch.bfloat16", "torch.float32"], "each once"
    bfloat16_is_quicker.cache_clear()


def test_convolutions_are_timed_in_the_type_asked_for() -> None:
    assert 0.0 < convolution_seconds(torch.float32) < convolution_seconds(torch.float64)


@needs_a_compiler
@pytest.mark.usefixtures("quick_evaluation")
def test_a_compiled_denoiser_learns_the_same(
    strangers: list[str], stage_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_it = torch.nn.Module.compile

    def traced_only(network: torch.nn.Module) -> None:
        compiled.append(type(network).__name__)
        compile_it(network, backend="aot_eager")  # generating code takes a minute more

    monkeypatch.setattr(torch.nn.Module, "compile", traced_only)
    exact = partial(torch.autocast, "cpu", torch.bfloat16, enabled=False)
    monkeypatch.setattr("voice2face.training.denoiser_training.mixed_precision", lambda _: exact())
    common = [*SHORT, "--encoders", stage_one, "--latents", tmp_path / "latents"]
    common += ["--learning-rate", 0.02]
    learnt = {}
    ways = {"not at all": ["--learning-rate", 0], "plain": [], "compiled": ["--compile"]}
    for way, more in ways.items():
        out = tmp_path / way
        wanted = ["--out", out, *common, "--block-channels", 32, *more]
        run("diffusion", *strangers, *wanted)
        weights = load_component(Denoiser, out / "denoiser").state_dict()
        learnt[way] = torch.cat([value.flatten() for value in weights.values()])
    assert compiled == ["UNet2DConditionModel"]
    apart, far = ((learnt[way] - learnt["plain"]).norm() for way in ("compiled", "not at all"))
    assert apart < 0.05 * far


@pytest.mark.usefixtures("small_encoders")
def test_training_stops_when_the_time_is_up(tables: dict[str, str], tmp_path: Path) -> None:
    data = data_options(tables, "attribute-bridged pairs")
    shape = ["--perceptual-weights", tables["squeezenet1_0"], "--image-size", 64, "--batch-size", 4]
    run("collaborative", *data, *shape, "--out", tmp_path, "--time-budget", 0.01)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 1


@pytest.mark.parametrize("stage", command.STAGES)
def test_the_help_says_what_is_done_by_default(stage: str) -> None:
    parser = ArgumentParser()
    module = command.MODULES.get(stage, stage)
    import_module(f"voice2face.training.{module}").add_arguments(parser)
    nothing = (None, False, SUPPRESS)
    silent = [
        action.dest
        for action in parser._actions
        if not any(action.default is one for one in nothing) and "default" not in action.help
    ]
    assert silent == []


def commands_of(page: str) -> list[list[str]]:
    """The commands of the training that a page of the documentation shows, in words."""
    text = (DOCS / page).read_text().replace("\\\n", " ")
    prefix = "python -m voice2face.training "
    lines = (line.strip() for line in text.splitlines())
    return [shlex.split(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)]


def test_the_documentation_shows_commands_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr("voice2face.training.options.begun_with", lambda arguments: None)
    monkeypatch.setattr("voice2face.data.perceptual_loss.PerceptualLoss", Path)
    for stage in command.STAGES:
        module = f"voice2face.training.{command.MODULES.get(stage, stage)}"
        monkeypatch.setattr(f"{module}.main", lambda arguments: ran.append(arguments.stage))
    commands = commands_of("training.md")
    for words in commands:
        command.main(words)
    assert ran == [words[0] for words in commands]
    assert {"decoder", "diffusion", "distillation", "face-check", "release"} <= set(ran)


def test_data_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run("diffusion", "--encoders", tmp_path, "--out", tmp_path)
    assert "give --faces with --voices" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        both = ["--faces", "faces.parquet", "--pairs", "pairs.parquet"]
        run("diffusion", *both, "--encoders", tmp_path, "--out", tmp_path)
    assert "give --pairs alone" in capsys.readouterr().err


def test_tables_are_read_by_split(tables: dict[str, str]) -> None:
    faces = load_faces(tables["faces-0"], "train", 32)
    assert faces.images.shape == (8, 32, 32, 3)
    assert faces.quality[0, 0] == pytest.approx(np.log(90.0))
    voices = load_voices(tables["voices-0"], "train", limit=3)
    assert len(voices) == 3
    assert voices.waveforms[0].shape == (24_000,)
    with pytest.raises(ValueError, match="no row of split 'nonsense'"):
        load_voices(tables["voices-0"], "nonsense")
    with pytest.raises(SettingError, match=r"no-such\.parquet"):
        load_faces("no-such.parquet", "train", 32)


def bridge() -> AttributeBridge:
    sex, age = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 5])
    faces = FaceTable(np.zeros((4, 2, 2, 3)), sex, age, np.zeros((4, 6)), list("abcd"))
    voice_sex = np.array([0, 0, 1, 1, 1])
    voice_age = np.array([0, 1, 0, 0, UNKNOWN])
    names = [list("pqrst"), list("vwxyz"), [""] * 5, [""] * 5]
    voices = VoiceTable([np.zeros(1)] * 5, voice_sex, voice_age, *names)
    return AttributeBridge(faces, voices)


def test_bridged_pairs_share_sex_and_age_where_it_is_known() -> None:
    pairing = bridge()
    faces, voices = pairing.sample(np.random.default_rng(0), 500)
    assert pairing.matches(faces, voices).diagonal().all()
    assert set(faces) == {0, 1, 2}
    assert set(voices) == {0, 1, 2, 3, 4}


def test_true_pairs_are_of_one_person() -> None:
    pairing = TruePairs(["a", "b", "b"], ["b", "a", "c"])
    faces, voices = pairing.sample(np.random.default_rng(0), 50)
    assert {*zip(faces.tolist(), voices.tolist(), strict=True)} == {(0, 1), (1, 0), (2, 0)}
    assert pairing.matches(np.array([0, 1]), np.array([1, 0])).tolist() == [
        [True, False],
        [False, True],
    ]
    with pytest.raises(SettingError, match="no person"):
        TruePairs(["a"], ["b"])


def test_only_chosen_faces_are_paired() -> None:
    pairing = ChosenFaces(bridge(), np.array([True, False, True, True]))
    faces, voices = pairing.sample(np.random.default_rng(0), 500)
    assert set(faces) == {0, 2}
    assert pairing.matches(faces, voices).diagonal().all()
    with pytest.raises(SettingError, match="next to no face"):
        ChosenFaces(bridge(), np.array([False, False, False, True]))


@pytest.mark.parametrize("tone", [(70, 45, 30), (230, 190, 170)])
def test_sunglasses_hide_eyes_whatever_the_skin(tone: tuple[int, int, int]) -> None:
    bare = np.full((192, 192, 3), tone, np.uint8)
    seeing, shaded = bare.copy(), bare.copy()
    for x in (56, 136):
        cv2.circle(seeing, (x, 58), 7, (5, 5, 5), -1)  # pupils
        cv2.ellipse(shaded, (x, 62), (30, 22), 0, 0, 360, (5, 5, 5), -1)
    half = np.where(np.arange(192)[None, :, None] < 96, shaded, bare)
    assert hidden_eyes(np.stack([bare, seeing, half, shaded])).tolist() == [0, 0, 0, 1]


def test_prior_is_balanced_where_it_can_be() -> None:
    latents = torch.arange(10.0).view(10, 1, 1, 1, 1).expand(10, 2, 1, 1, 1)
    encoded = EncodedTables(latents, torch.zeros(10, 2, 6), torch.zeros(1, 1, 1))
    sex = np.array([0] * 2 + [1] * 8)
    prior = balanced_prior(encoded, sex, 4, 0.01)
    assert prior.config.num_faces == 4
    assert prior.mean.item() < 4.5, "both women count as much as both men"
    unlabelled = balanced_prior(encoded, np.full(10, UNKNOWN), 10_000, 0.01)
    assert unlabelled.config.num_faces == 10
    assert unlabelled.mean.item() == pytest.approx(4.5)


def test_contrastive_loss_wants_matches_close() -> None:
    speech = torch.eye(4)
    scale = torch.tensor(3.0)
    right = contrastive_loss(speech, torch.eye(4), torch.eye(4).bool(), scale)
    wrong = contrastive_loss(speech, torch.eye(4).roll(1, 0), torch.eye(4).bool(), scale)
    assert right < 0.01 < 5.0 < wrong
    alike = contrastive_loss(speech, torch.eye(4), torch.ones(4, 4).bool(), torch.tensor(-9.0))
    assert alike == pytest.approx(np.log(4), abs=1e-3)


def test_unknown_labels_do_not_count() -> None:
    logits = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])
    with_unknown = known_loss(logits, torch.tensor([0, UNKNOWN]))
    torch.testing.assert_close(with_unknown, known_loss(logits[:1], torch.tensor([0])))
    assert known_loss(logits, torch.tensor([UNKNOWN, UNKNOWN])) == 0
    ages = torch.zeros(2, 6)
    assert age_loss(ages, torch.tensor([UNKNOWN, UNKNOWN])) == 0
    near, far = torch.zeros(1, 6), torch.zeros(1, 6)
    near[0, 1], far[0, 5] = 3.0, 3.0
    assert age_loss(near, torch.tensor([0])) < age_loss(far, torch.tensor([0]))


def test_perceptual_loss_is_zero_for_the_same_picture_only() -> None:
    torch.manual_seed(0)
    loss = PerceptualLoss(None)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert loss(images, images) == 0
    assert loss(images, images.flip(3)) > 0


@pytest.mark.parametrize("seed", range(12))
def test_augmented_voices_keep_length_and_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech = (rng.uniform(-0.5, 0.5, 20_000) * 32767).astype(np.int16)
    excerpt = random_crop(speech, 32_000, rng)
    changed = augment_voice(excerpt, rng)
    assert changed.shape == (32_000,)
    assert changed.dtype == np.float32
    assert np.abs(changed).max() <= 1.0
    assert np.isfinite(changed).all()
    assert not np.array_equal(changed, excerpt)


def loudest_frequency(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * SAMPLE_RATE / len(waveform))


@pytest.mark.parametrize("seed", range(4))
def test_each_change_of_a_voice_does_what_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tone = (0.4 * np.sin(2 * np.pi * 1_000 * np.arange(32_000) / SAMPLE_RATE)).astype(np.float32)
    white = (0.1 * rng.standard_normal(32_000)).astype(np.float32)

    faster = loudest_frequency(augmentation.random_speed(tone, rng))
    assert 1.0 < abs(faster - 1_000) <= 75.0, "pitch follows speed"
    noise = augmentation.random_noise(tone, rng) - tone
    below = 10 * np.log10(np.square(tone).mean() / np.square(noise).mean())
    assert 4.9 < below < 40.1
    click = np.zeros(32_000, np.float32)
    click[100] = 1.0
    echo = augmentation.random_room(click, rng)
    assert echo[100] == pytest.approx(1.0, abs=1e-3)
    assert np.square(echo[101:]).sum() > 1e-3
    assert np.square(echo[101 + round(0.4 * SAMPLE_RATE) :]).sum() < 1e-6
    before, after = (np.abs(np.fft.rfft(x)) for x in (white, augmentation.random_band(white, rng)))
    changed = 20 * np.log10(after[100:-100] / before[100:-100])
    assert changed.max() - changed.min() > 1.0
    coded = augmentation.random_codec(tone, rng)
    assert not np.array_equal(coded, tone)
    assert np.square(coded).mean() == pytest.approx(np.square(tone).mean(), rel=0.25)


def test_the_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    options = LoopOptions(out=tmp_path, max_steps=1_000, warmup_steps=100, cooldown=0.25)
    loop = TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)
    factors = {}
    for step in (0, 49, 99, 500, 749, 875, 1_000):
        loop.progress.step = step
        factors[step] = loop.rate_factor()
    expected = {0: 0.01, 49: 0.5, 99: 1.0, 500: 1.0, 749: 1.0, 875: 0.5, 1_000: 0.0}
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_keeps_its_state_and_odd_gradients_move_nothing(
    tmp_path: Path, asked: signal.Signals
) -> None:
    network, start = torch.nn.Linear(1, 1, bias=False), 3.0
    torch.nn.init.constant_(network.weight, start)
    options = LoopOptions(out=tmp_path, max_steps=100, warmup_steps=1, cooldown=0.0)
    loop = TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)

    def step(number: int, _: np.random.Generator) -> dict[str, torch.Tensor]:
        if number == 1:
            os.kill(os.getpid(), asked)
        bad = float("inf") if number == 0 else 1.0
        return {"loss": bad * network.weight.sum()}

    seen = []
    before = signal.getsignal(asked)
    interrupted = pytest.raises(KeyboardInterrupt if asked is signal.SIGINT else SystemExit)
    with interrupted:
        loop.run(step, lambda _: seen.append(float(network.weight.detach())) or {})
    assert signal.getsignal(asked) is before
    assert loop.progress.step == 2, "the step that was asked to end is the last"
    assert (tmp_path / "training_state.safetensors").is_file()
    assert seen == [pytest.approx(start - 1.0)], "only the second step moved the weight"


def test_runs_that_begin_otherwise_draw_otherwise(tmp_path: Path) -> None:
    def drawn(weight: float, folder: str, seed: int = 0) -> list[tuple[float, float]]:
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(network.weight, weight)
        options = LoopOptions(out=tmp_path / folder, max_steps=2, resume=True, seed=seed)
        loop = TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)
        seen = []

        def step(_: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
            seen.append((float(rng.random()), float(torch.rand(1))))
            if len(seen) == 1 and folder == "stopped":
                os.kill(os.getpid(), signal.SIGTERM)
            return {"loss": network.weight.sum()}

        ended = pytest.raises(SystemExit) if folder == "stopped" else nullcontext()
        with ended:
            loop.run(step, lambda _: {})
        return seen

    first = drawn(1.0, "first")
    assert len(set(first)) == 2
    assert drawn(1.0, "again") == first
    assert drawn(1.0, "stopped") + drawn(1.0, "stopped") == first
    assert not set(drawn(2.0, "other")) & set(first)
    assert not set(drawn(1.0, "seed", seed=1)) & set(first)


def test_groups_of_parameters_do_not_hold_each_other_back(tmp_path: Path) -> None:
    networks = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in range(2))
    start = [float(network.weight.detach()) for network in networks]
    groups = [{"params": network.parameters(), "lr": 1.0} for network in networks]
    options = LoopOptions(out=tmp_path, max_steps=1, warmup_steps=1, cooldown=0.0)
    loop = TrainingLoop(networks, torch.optim.SGD(groups), options)

    def step(*_: object) -> dict[str, torch.Tensor]:
        return {"loss": 0.5 * networks[0].weight.sum() + 1000.0 * networks[1].weight.sum()}

    loop.run(step, lambda _: {})
    moved = [
        before - float(network.weight) for before, network in zip(start, networks, strict=True)
    ]
    assert moved == pytest.approx([0.5, 1.0], rel=1e-4)


def test_lognormal_levels_are_those_of_edm() -> None:
    torch.manual_seed(0)
    schedule = noise_schedule("v_prediction")
    alpha_bar = schedule.alphas_cumprod.double()
    log_noise = 0.5 * torch.log((1 - alpha_bar) / alpha_bar)
    levels = log_noise[draw_timesteps(schedule, 20_000, 1.0)]
    assert float(levels.mean()) == pytest.approx(LOG_NOISE_MEAN, abs=0.03)
    assert float(levels.std()) == pytest.approx(LOG_NOISE_STD, abs=0.03)
    alike = draw_timesteps(schedule, 20_000, 0.0).double()
    assert float(alike.mean()) == pytest.approx(499.5, abs=6)
    assert (int(alike.min()), int(alike.max())) == (0, 999)


def test_dropout_is_of_residual_blocks_and_ends_with_training() -> None:
    denoiser = tiny_components()["denoiser"]
    set_dropout(denoiser, 0.5)
    blocks = [part for part in denoiser.unet.modules() if isinstance(part, ResnetBlock2D)]
    assert blocks
    assert all(block.dropout.p == 0.5 for block in blocks)
    latents = torch.randn(2, 4, 8, 8)
    condition = denoiser.condition(torch.randn(2, denoiser.config.speech_dim), torch.zeros(2, 6))
    time = torch.tensor([500, 500])
    denoiser.train()
    assert not torch.equal(*(denoiser(latents, time, condition) for _ in range(2)))
    denoiser.eval()
    assert torch.equal(*(denoiser(latents, time, condition) for _ in range(2)))


def test_what_cannot_be_used_is_refused_before_the_work(
    strangers: list[str], stage_one: Path, tables: dict[str, str], tmp_path: Path
) -> None:
    """Not after faces were encoded or portraits drawn for half an hour."""
    out = tmp_path / "out"
    of_stage_two = ["--encoders", stage_one, *SMALL, *SHORT, "--out", out]
    for wrong in (["--start-from", stage_one], ["--drop-attention", 0.5]):
        with pytest.raises(SystemExit, match="denoiser"):
            run("diffusion", *strangers, *of_stage_two, *wrong)
    start = ["--start-from", stage_one, "--perceptual-weights", tables["squeezenet1_0"]]
    with pytest.raises(SystemExit, match="cannot be read"):
        run("distillation", *strangers, *start, "--out", out)
    no_weights = ["--perceptual-weights", stage_one / "face_encoder" / "config.json"]
    with pytest.raises(SystemExit, match="does not hold the features of SqueezeNet"):
        run("distillation", *strangers, *no_weights, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("content", ["no table", "numbers as splits"])
def test_what_is_no_table_is_said_to_be_none(content: str, tmp_path: Path) -> None:
    file = tmp_path / "faces.parquet"
    if content == "no table":
        file.write_text(content)
    else:
        pq.write_table(pa.table({"id": ["1"], "split": [0]}), file)
    with pytest.raises(SettingError, match="cannot be read as a parquet table"):
        next(read_rows(str(file), "train", None))


def test_a_place_that_cannot_be_written_ends_a_stage_with_a_message(
    strangers: list[str], tables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    weights = ["--perceptual-weights", tables["squeezenet1_0"]]
    with pytest.raises(SystemExit, match="what was saved before is still there"):
        run("collaborative", *strangers, *weights, *SHORT, "--out", tmp_path / "file")


def test_tables_say_what_is_held_out(tables: dict[str, str], tmp_path: Path) -> None:
    table = pq.read_table(tables["faces-0"]).drop_columns("split")
    pq.write_table(table, tmp_path / "faces.parquet")
    with pytest.raises(SettingError, match="no column split"):
        load_faces(str(tmp_path / "faces.parquet"), "train", 32)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"id": "a1", "image": b"no picture", "audio": b"", "speaker": "ann"}, "row 'a1' cannot"),
        ({"id": "a1"}, "no column '(image|audio)'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    row: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist([row]), file)
    with pytest.raises(SettingError, match=complaint):
        load_faces(file, None, 32)
    with pytest.raises(SettingError, match=complaint):
        load_voices(file, None)


def test_a_file_that_two_patterns_name_is_read_once(tables: dict[str, str]) -> None:
    pattern = str(Path(tables["faces-0"]).with_name("faces-*.parquet"))
    assert len(list(read_rows([pattern, tables["faces-0"]], "train", None))) == 8


def test_rows_of_minors_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ages = ["20-29", "10-19", "teens", "70+", "", None, "0-2", "17", "more than 70", "Child"]
    rows = [{"id": str(number), "age": age} for number, age in enumerate(ages)]
    file = str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(rows), file)
    with caplog.at_level("WARNING"):
        kept = [row["id"] for row in read_rows(file, None, None)]
    assert kept == ["0", "3", "4", "5", "8"]
    (record,) = caplog.records
    assert record.getMessage().startswith("left out 5 rows of people labelled under 20")
    assert record.name == "voice2face.data"
    pq.write_table(pa.table({"id": ["1"], "age": [12]}), file)
    with pytest.raises(SettingError, match="no row"):
        list(read_rows(file, None, None))


def test_some_pictures_of_a_table_are_mirrored_and_the_table_is_not() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    unknown = np.full(3, UNKNOWN)
    faces = FaceTable(images.copy(), unknown, unknown, np.zeros((3, 6)), list("abc"))
    pictures = faces.pictures(np.array([2, 0]), np.array([True, False]))
    assert np.array_equal(to_uint8(pictures), np.stack([images[2, :, ::-1], images[0]]))
    assert np.array_equal(faces.images, images)


def test_a_recording_without_samples_is_refused() -> None:
    encoded = io.BytesIO()
    sf.write(encoded, np.zeros(0), SAMPLE_RATE, format="WAV")
    with pytest.raises(SettingError, match="without samples: leave it out"):
        decode_voice(encoded.getvalue())


def sound(samples: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    sf.write(encoded, samples, SAMPLE_RATE, format="WAV")
    return encoded.getvalue()


def test_recordings_that_are_silent_or_of_several_channels_are_refused() -> None:
    with pytest.raises(SettingError, match="a silent recording: leave it out"):
        decode_voice(sound(np.zeros(100)))
    with pytest.raises(SettingError, match="hold mono audio, this has 2 channels"):
        decode_voice(sound(np.random.default_rng(0).uniform(-0.3, 0.3, (100, 2))))
    with pytest.raises(SettingError, match="its recording is empty"):
        decode_voice(b"")


def write_faces(file: Path, *rows: dict[str, Any]) -> str:
    """A table of square faces that the rows say more, or something else, of."""
    square = io.BytesIO()
    Image.new("RGB", (8, 8)).save(square, "PNG")
    said = {name: None for row in rows for name in row} | {"image": square.getvalue()}
    faces = [{"id": f"f{k}"} | said | row for k, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(faces), file)
    return str(file)


def test_pictures_that_are_no_squares_and_numbers_that_are_not_finite_are_refused(
    tmp_path: Path,
) -> None:
    wide = io.BytesIO()
    Image.new("RGB", (8, 5)).save(wide, "PNG")
    for row, complaint in (
        ({"image": wide.getvalue()}, "row 'f1' cannot be used: its picture has 8 x 5 pixels"),
        ({"image": None}, "row 'f1' cannot be used: its picture is empty"),
        ({"sharpness": float("nan")}, "row 'f1' cannot be used: sharpness is nan"),
        ({"yaw": float("inf")}, "row 'f1' cannot be used: yaw is inf"),
    ):
        with pytest.raises(SettingError, match=complaint):
            load_faces(write_faces(tmp_path / "faces.parquet", {}, row), None, 8)


def test_labels_that_are_not_understood_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ages = ["25", "30-39", "25.0", "70", "112", "70-79", "20-29 ", "1990", "130", None, ""]
    rows = [{"age": age, "gender": "Female" if age == "25" else None} for age in ages]
    with caplog.at_level("INFO"):
        faces = load_faces(write_faces(tmp_path / "faces.parquet", *rows), None, 8)
    assert faces.age.tolist() == [0, 1, 0, 5, 5, *[UNKNOWN] * 6]
    said = "faces (None): unknown are the sex of 11 of 11 ('Female' is not understood) and the age "
    said += "of 6 of 11 ('70-79' is not understood)"
    assert caplog.messages == [faces.unknown_labels] == [said]
    years = write_faces(tmp_path / "years.parquet", *({"age": age} for age in (20, 39, 70)))
    assert load_faces(years, None, 8).age.tolist() == [0, 1, 5]
    fractions = write_faces(tmp_path / "f.parquet", {"age": 25.0}, {"age": float("nan")})
    unlabelled = load_faces(fractions, None, 8)
    assert unlabelled.age.tolist() == [0, UNKNOWN]
    assert unlabelled.unknown_labels.endswith("age of 1 of 2"), "nothing was said"
    voices = VoiceTable([np.zeros(1)], np.zeros(1), np.zeros(1), *[["a"]] * 4)
    with pytest.raises(SettingError, match=r"with any voice; faces \(None\): unknown are the sex"):
        AttributeBridge(faces, voices)


def test_numbers_that_some_rows_lack_are_the_median_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yaws = [0.5, None, -0.1, 0.1]
    file = write_faces(tmp_path / "faces.parquet", *({"yaw": yaw} for yaw in yaws))
    with caplog.at_level("WARNING"):
        quality = load_faces(file, None, 8).quality
    assert quality[:, 1] == pytest.approx([0.5, 0.1, -0.1, 0.1])
    assert not quality[:, [0, 2, 3, 4, 5]].any(), "what no row has"
    said = "1 of 4 rows have no yaw: the median of the others stands for it"
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("voice2face.data", said)
    ]


def test_a_run_ends_when_no_gradient_is_finite_any_more(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    options = LoopOptions(out=tmp_path, max_steps=100)
    loop = TrainingLoop(network, torch.optim.SGD(network.parameters(), 1.0), options)

    def step(number: int, _: np.random.Generator) -> dict[str, torch.Tensor]:
        bad = 1.0 if number == 10 else float("inf")
        return {"loss": bad * network.weight.sum()}

    with pytest.raises(SettingError, match="20 steps in a row were skipped"):
        loop.run(step, lambda _: {})
    assert loop.progress.step == 30, "one good step between them counts"


def test_encoders_of_a_checkpoint_that_shares_them_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PACKAGED_WEIGHTS)
    folder = part_folder(Path("fine-portraitist-192"), "face_encoder")
    assert folder == PACKAGED_WEIGHTS / "scldm-192" / "face_encoder"


def test_parts_of_a_checkpoint_that_shares_them_are_released(tmp_path: Path) -> None:
    shared, scldm = PACKAGED_WEIGHTS / "fine-portraitist-192", PACKAGED_WEIGHTS / "scldm-192"
    stages = ["--collaborative", shared, "--face-check", shared, "--diffusion", scldm]
    run("release", *stages, "--to", tmp_path / "released")
    assert (tmp_path / "released" / "face_check").is_dir()


@pytest.mark.parametrize(
    "stages",
    [
        ["--face-check", "one"],
        ["--collaborative", "one"],
        ["--diffusion", "two", "--distillation", "three"],
        ["--collaborative", "one", "--diffusion", "two", "--bottom", "three"],
        ["--collaborative", "one", "--bottom", "two", "--upper", "three"],
        ["--collaborative", "one", "--diffusion", "two", "--upper-distillation", "three"],
    ],
)
def test_release_refuses_what_has_no_part(stages: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="would have no part in the checkpoint"):
        run("release", *stages, "--to", tmp_path / "released")


def test_listing_again_keeps_the_figures(
    tiny_pipeline: Voice2FacePipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, manifest = tiny_pipeline.save_pretrained(tmp_path / "tiny"), tmp_path / "manifest.json"
    figures = tmp_path / "report.json"
    figures.write_text(json.dumps({"a group": {"a measure": 0.5}}))
    listing = ["release", "--to", folder, "--manifest", manifest]
    for more in (["--report", figures], ["--licence", "CC0-1.0"]):
        run(*listing, *more)
    assert capsys.readouterr().out == 2 * f"{manifest}\n"
    entry = json.loads(manifest.read_text())["checkpoints"]["tiny"]
    assert entry["figures"] == {"a group": {"a measure": 0.5}}
    assert entry["licence"] == "CC0-1.0"
    before = manifest.read_text()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(SystemExit):
        interrupted.setattr(Path, "replace", interrupt)
        run(*listing, "--licence", "MIT")
    assert manifest.read_text() == before, "the manifest is written whole or not at all"
    manifest.unlink()
    with pytest.raises(SystemExit, match="nothing is released"):
        run("release", "--to", folder)
    with pytest.raises(SystemExit, match="--licence would be noted in a manifest alone"):
        run("release", "--to", folder, "--licence", "MIT")
    assert not manifest.exists(), "what is not in the package is in no manifest"


class Told(Exception):
    """Carries what the denoiser was told."""


DROPS = ("drop_speech", "drop_all", "drop_attributes", "drop_attention")


@pytest.mark.parametrize("dropped", DROPS)
def test_what_is_dropped_is_not_told(dropped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dict(tiny_components()["denoiser"].config)
    denoiser = Denoiser.from_config(config, heard_attributes=2)
    torch.nn.init.normal_(denoiser.no_speech)
    batch = Batch(
        torch.randn(3, 4, 8, 8),
        torch.ones(3, 6),
        torch.nn.functional.normalize(torch.randn(3, 16), dim=1),
        torch.tensor([[1.0, 3.0]] * 3),
        None,
    )

    def refuse(*arguments: object) -> None:
        raise Told(arguments[-1])

    monkeypatch.setattr("voice2face.training.denoiser_training.denoising_loss", refuse)
    every = dict.fromkeys(DROPS, 0.0)
    stage = DenoiserTraining(
        denoiser,
        *(
            None,
            None,
            noise_schedule("v_prediction"),
            SimpleNamespace(sample=lambda *_: batch),
            None,
        ),
        DiffusionOptions(batch_size=3, **every | {dropped: 1.0}),
        *(Path(), torch.device("cpu")),
    )
    with pytest.raises(Told) as caught:
        stage.step(0, np.random.default_rng(0))
    condition = caught.value.args[0]
    silent = dropped != "drop_attributes"
    assert bool((condition.speech == denoiser.no_speech.to(condition.speech.dtype)).all()) == silent
    quality, attributes = condition.numbers[:, :7], condition.numbers[:, 7:]
    assert bool(quality.any()) == (dropped != "drop_all")
    assert bool(attributes.any()) == (dropped == "drop_attention")
