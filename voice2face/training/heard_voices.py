"""The voices of a split as a checkpoint hears them, to draw portraits for."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.clip_embeddings import embed_clips
from voice2face.training.options import load_split
from voice2face.training.pairing import Pairing

SPEECH_NOISE = 0.1


def hear_split(
    arguments: argparse.Namespace, pipe: Voice2FacePipeline, split: str
) -> tuple[Pairing, Tensor]:
    """How a split's rows pair, and Z^s of its voices, ``(voices, speech_dim)``."""
    _, voices, pairing = load_split(arguments, split, pipe.face_encoder.config.image_size)
    with torch.inference_mode():
        heard = embed_clips(pipe.speech_encoder, voices.waveforms, pipe.device, disturbed=False)
    return pairing, heard.float().cpu()


def voices_of(pairing: Pairing, embeddings: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Z^s of ``count`` voices, as often of each sex and age as training pairs them, disturbed."""
    drawn = embeddings[torch.from_numpy(pairing.sample(rng, count)[1])]
    noise = torch.from_numpy(rng.standard_normal(drawn.shape, dtype=np.float32))
    return nn.functional.normalize(drawn + SPEECH_NOISE * nn.functional.normalize(noise), dim=1)
