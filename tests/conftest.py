"""Tiny networks and recordings that every test may use."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import save_file

from voice2face import Voice2FacePipeline
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.methods.scldm import denoising_loss
from voice2face.models import (
    Denoiser,
    FaceDecoder,
    FaceEncoder,
    FacePrior,
    FaceRetriever,
    FewStepUpdate,
    SpeechEncoder,
)
from voice2face.models.denoiser import Condition
from voice2face.models.face_entries import Entries
from voice2face.settings import Preset, Settings

WEIGHT, BIAS = "unet.conv_in.weight", "unet.conv_in.bias"
SPEECH = Path(__file__).parent.parent / "examples" / "speech"


def preset_of(settings: Settings) -> Preset:
    """The part of the settings that a preset says."""
    return Preset(*(getattr(settings, name) for name in Preset._fields))


def tiny_components(prediction_type: str = "epsilon") -> dict:
    torch.manual_seed(0)
    face = {"image_size": 32, "patch_size": 2, "block_channels": (8, 16), "latent_channels": 4}
    prior = FacePrior(latent_channels=4, latent_size=8, num_faces=3, weight=0.01)
    prior.mean.data.normal_()
    components = {
        "speech_encoder": SpeechEncoder(
            window_seconds=2.0, block_channels=(4, 8, 8), embedding_dim=16
        ),
        "face_encoder": FaceEncoder(**face, blocks_per_level=(0, 1), embedding_dim=16),
        "face_prior": prior,
        "denoiser": Denoiser(
            latent_channels=4,
            latent_size=8,
            block_channels=(16, 32),
            attention_heads=2,
            speech_dim=16,
            speech_tokens=2,
            cross_attention_dim=16,
        ),
        "face_decoder": FaceDecoder(**face, blocks_per_level=(1, 1)),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction_type
        ),
    }
    return components


def tiny_retriever(count: int = 6, prefix: str = "face") -> FaceRetriever:
    generator = torch.Generator().manual_seed(len(prefix))
    speech = torch.nn.functional.normalize(torch.randn(count, 16, generator=generator), dim=1)
    faces, bottoms = torch.randn(2, count, 4, 8, 8, generator=generator)
    ids = tuple(f"{prefix}-{k}" for k in range(count))
    return FaceRetriever(Entries(speech, faces, bottoms, ids, ("CC0-1.0",) * count))


def tiny_portraitist(prediction_type: str = "epsilon") -> dict:
    """Components of Fine-portraitist."""
    components = tiny_components(prediction_type)
    config = dict(components.pop("denoiser").config)
    del components["face_prior"]
    for name, latents in (("bottom_denoiser", 1), ("upper_denoiser", 2)):
        components[name] = Denoiser.from_config(config, beside_channels=4 * latents)
    return components | {"retriever": tiny_retriever()}


def tiny_update(denoiser: Denoiser, steps: int = 4) -> FewStepUpdate:
    """An update that changes two parameters."""
    generator = torch.Generator().manual_seed(3)
    weight = denoiser.get_parameter(WEIGHT)
    tensors = {
        f"{WEIGHT}.up": torch.randn(len(weight), 2, generator=generator),
        f"{WEIGHT}.down": torch.randn(2, weight[0].numel(), generator=generator),
        f"{BIAS}.added": torch.randn(len(weight), generator=generator),
    }
    return FewStepUpdate({name: t.half() for name, t in tensors.items()}, steps, 2.0)


def tiny_updates() -> dict[str, FewStepUpdate]:
    """Those of both denoisers of ``tiny_portraitist``."""
    components = tiny_portraitist("v_prediction")
    return {
        f"{half}_few_step_update": tiny_update(components[f"{half}_denoiser"])
        for half in ("bottom", "upper")
    }


@pytest.fixture(scope="session")
def tiny_pipeline() -> Voice2FacePipeline:
    return Voice2FacePipeline(**tiny_components(), output_size=48, name="tiny").to("cpu")


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Voice2FacePipeline]:
    yield Voice2FacePipeline.from_pretrained(device="cpu")


def shorten_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """While denoisers learn, held-out losses are of fewer rows and sheets drawn in one step."""

    def of_some(*given: Any) -> torch.Tensor:
        *networks, clean, noise, timesteps, condition = given
        some = slice(None, None, 16 if torch.is_inference_mode_enabled() else 1)
        told = Condition(*(None if part is None else part[some] for part in condition))
        return denoising_loss(*networks, clean[some], noise[some], timesteps[some], told)

    monkeypatch.setattr("voice2face.training.denoiser_training.denoising_loss", of_some)
    one_step = Settings(1, 2.0, 0.0, "unfinished")
    monkeypatch.setattr("voice2face.training.denoiser_training.SHEET_SETTINGS", one_step)


@pytest.fixture
def quick_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_evaluation(monkeypatch)


@pytest.fixture
def checkpoint(tiny_pipeline: Voice2FacePipeline, tmp_path: Path) -> str:
    return str(tiny_pipeline.save_pretrained(tmp_path / "tiny"))


@pytest.fixture
def recording(tone: np.ndarray, tmp_path: Path) -> str:
    path = tmp_path / "talk.wav"
    sf.write(path, tone, 16_000)
    return str(path)


@pytest.fixture(scope="session")
def female_speech() -> Path:
    return SPEECH / "female.flac"


@pytest.fixture(scope="session")
def male_speech() -> Path:
    return SPEECH / "male.flac"


@pytest.fixture
def tone() -> np.ndarray:
    """Three seconds that are loud enough to count as speech, 16 kHz."""
    time = np.arange(48_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 150 * time) * (1 + np.sin(6 * time))).astype(np.float32)


def picture(rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(buffer, "WEBP")
    return buffer.getvalue()


def encoded_noise(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, rng.uniform(-0.3, 0.3, 24_000), 16_000, format="FLAC")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    people = [
        {
            "id": f"{split}-{k}",
            "split": split,
            "gender": ("female", "male")[k % 2],
            "age": ("20-29", "30-39")[k // 2 % 2],
            "group": ("one", "another")[k // 4 % 2],
        }
        for split in ("train", "validation", "test")
        for k in range(8)
    ]
    numbers = {"sharpness": 90.0, "yaw": 0.1, "pitch": 0.6, "brightness": 100.0, "contrast": 40.0}
    faces = [person | numbers | {"outside": 0.0, "image": picture(rng)} for person in people]
    voices = [
        person | {"speaker": f"{person['split']}-{k % 4}", "audio": encoded_noise(rng)}
        for k, person in enumerate(people)
    ]
    pairs = [
        person | {"person": person["id"], "face": picture(rng), "audio": encoded_noise(rng)}
        for person in people
    ]
    measured = [
        {"id": str(k), "person": str(k // 2), "audio": encoded_noise(rng)}
        | {column: picture(rng) for column in ("face", "face_frontal", "speech2face")}
        for k in range(8)
    ]
    contents = {"faces-0": faces, "voices-0": voices, "pairs-0": pairs, "pairs-dev": measured}
    for name, rows in contents.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    torch.manual_seed(0)
    save_file(PerceptualLoss(None).state_dict(), folder / "squeezenet1_0.safetensors")
    recognition = torch.nn.Sequential(
        torch.nn.AvgPool2d(14), torch.nn.Flatten(), torch.nn.Linear(192, 256), UnitLength()
    )
    example = torch.rand(2, 3, 112, 112)
    torch.jit.trace(recognition, example).save(folder / "mobileface_v2.torchscript.pt")
    return {path.name.split(".")[0]: str(path) for path in folder.iterdir()}


class UnitLength(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(features, dim=1)
