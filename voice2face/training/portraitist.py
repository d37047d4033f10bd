"""The two denoisers of Fine-portraitist, each trained by a command of its own.

``bottom`` learns to draw the bottom face for a voice, ``upper`` the whole face around a bottom
face. Both see what the retriever finds for the voice, its own entries left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voice2face.models import FaceEncoder, FacePrior, FaceRetriever
from voice2face.models.bottom_face import bottom_face
from voice2face.training.denoiser_training import add_denoiser_options, train_denoiser
from voice2face.training.encoders import Encoded, Encoders
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.latent_pairs import PortraitistPairs, Stage, nearest_entries
from voice2face.training.latents import encode_faces, with_mirror
from voice2face.training.options import checksum_of_split
from voice2face.training.starting_denoiser import starting_point
from voice2face.training.target_quality import quality_settings

BESIDE = {"bottom": 1, "upper": 2}


@torch.no_grad()
def encode_bottoms(images: np.ndarray, encoder: FaceEncoder, device: torch.device) -> Tensor:
    """Latents of the bottom faces, ``(faces, 2, C, H, W)``, each as it is and mirrored."""
    encoder.eval().to(device)
    return encode_faces(images, with_mirror(lambda view: encoder(bottom_face(view))), device)


def portraitist_pairs(
    stage: Stage,
    split: str,
    encoded: Encoded,
    encoders: Encoders,
    retriever: FaceRetriever,
    arguments: argparse.Namespace,
) -> PortraitistPairs:
    """The batches of one split."""
    folder: Path = arguments.latents or arguments.out
    device = torch.device(arguments.device)
    voices, tables = encoded.voices, encoded.tables
    return PortraitistPairs(
        stage,
        encoded.faces,
        tables,
        kept_tensor(
            folder / f"bottoms_{split}.safetensors",
            fingerprint(encoders.face_encoder, [checksum_of_split(arguments, split)]),
            lambda: encode_bottoms(encoded.faces.images, encoders.face_encoder, device),
        ),
        encoded.pairing,
        retriever.entries,
        nearest_entries(retriever, tables.embeddings, voices.ids, voices.speaker),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands' arguments."""
    add_denoiser_options(parser)
    parser.add_argument(
        "--retriever", type=Path, required=True, help="folder that the retriever command wrote"
    )


def main(arguments: argparse.Namespace) -> None:
    """Train one of the two denoisers as the command line asks."""
    torch.manual_seed(arguments.seed)
    stage: Stage = arguments.stage
    encoders = Encoders.load(arguments.encoders)
    channels = encoders.face_encoder.config.latent_channels
    beside_channels = BESIDE[stage] * channels
    start = starting_point(arguments, beside_channels)
    retriever = FaceRetriever.load(arguments.retriever)
    encoded = {split: encoders.encode(arguments, split) for split in ("train", "validation")}
    if arguments.heard_attributes:
        encoded["train"].check_labels()
    train, held_out = (
        portraitist_pairs(stage, split, of_split, encoders, retriever, arguments)
        for split, of_split in encoded.items()
    )
    no_prior = FacePrior(channels, encoders.face_encoder.latent_size, 0, 0.0)
    quality = quality_settings(encoded["train"].faces)
    train_denoiser(
        arguments, start, encoders, no_prior, quality, (train, held_out), beside_channels
    )
