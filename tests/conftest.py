"""Tiny networks and recordings that every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from voice2face import Voice2FacePipeline
from voice2face.models import Denoiser, FaceDecoder, FaceEncoder, FacePrior, SpeechEncoder

SPEECH = Path(__file__).parent.parent / "examples" / "speech"


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


@pytest.fixture(scope="session")
def tiny_pipeline() -> Voice2FacePipeline:
    return Voice2FacePipeline(**tiny_components(), output_size=48, name="tiny").to("cpu")


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Voice2FacePipeline]:
    yield Voice2FacePipeline.from_pretrained(device="cpu")


@pytest.fixture
def female_speech() -> Path:
    return SPEECH / "female.flac"


@pytest.fixture
def male_speech() -> Path:
    return SPEECH / "male.flac"


@pytest.fixture
def tone() -> np.ndarray:
    """Three seconds that are loud enough to count as speech, 16 kHz."""
    time = np.arange(48_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 150 * time) * (1 + np.sin(6 * time))).astype(np.float32)
