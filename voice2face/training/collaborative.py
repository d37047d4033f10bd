"""Stage 1 of SCLDM: speech encoder, face encoder and face decoder are trained together.

Loss = contrastive(Z^s, Z^f) + mean absolute error + perceptual distance, plus the cross-entropy
of the speech encoder's heads for sex and age (ours).
"""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.audio import SAMPLE_RATE
from voice2face.commands.options import number_argument
from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.excerpts import random_crop
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable, VoiceTable
from voice2face.devices import move
from voice2face.models import (
    FaceDecoder,
    FaceEncoder,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.models.face_autoencoder import PICTURE_RANGES
from voice2face.pixels import to_model_range, to_uint8
from voice2face.training.augmentation import augment_voices
from voice2face.training.learnt_with import labelled_attributes_of, note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.losses import contrastive_loss, head_losses, weighted
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    count_argument,
    load_split,
    multiple_argument,
    options_from,
)
from voice2face.training.pairing import Pairing
from voice2face.training.speech_scores import speech_scores

logger = logging.getLogger("voice2face.training")

HALVINGS = 8  # positions of the first convolution to one of the latent, along a side


@dataclass(frozen=True)
class CollaborativeOptions:
    """Weights and rates of stage 1.

    Attributes:
        batch_size: pairs a step.
        face_rate: learning rate of face encoder and decoder.
        speech_rate: learning rate of the speech encoder.
        perceptual_weight: weight of the perceptual distance against the mean absolute error.
        contrastive_weight: weight of the contrastive loss.
        heads_weight: weight of the sex and age losses.
        latent_noise: standard deviation of the noise on Z^f before decoding.
        window_seconds: shortest and longest excerpt of speech in a step.
    """

    batch_size: int = 32
    face_rate: float = 4e-4
    speech_rate: float = 1e-3
    perceptual_weight: float = 0.35
    contrastive_weight: float = 0.05
    heads_weight: float = 1.0
    latent_noise: float = 0.1
    window_seconds: tuple[float, float] = (2.0, 5.0)


class CollaborativeNetworks(nn.Module):
    """The three networks of stage 1 and the logarithm of the contrastive inverse temperature."""

    def __init__(
        self,
        speech_encoder: SpeechEncoder | SpeakerEncoder,
        face_encoder: FaceEncoder,
        face_decoder: FaceDecoder,
    ) -> None:
        super().__init__()
        self.speech_encoder = speech_encoder
        self.face_encoder = face_encoder
        self.face_decoder = face_decoder
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))


@dataclass
class CollaborativeTraining:
    """The step and the held-out evaluation of stage 1."""

    networks: CollaborativeNetworks
    faces: FaceTable
    voices: VoiceTable
    pairing: Pairing
    perceptual: PerceptualLoss
    held_out: tuple[FaceTable, VoiceTable]
    options: CollaborativeOptions
    out: Path
    device: torch.device

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch of pairs."""
        face_rows, voice_rows = self.pairing.sample(rng, self.options.batch_size)
        seen, embedded = self._look(face_rows, rng)
        heard, voice = self._listen(voice_rows, rng)
        matches = torch.from_numpy(self.pairing.matches(face_rows, voice_rows).T).to(self.device)
        contrastive = contrastive_loss(voice, embedded, matches, self.networks.log_scale)
        weights = {
            "perceptual": self.options.perceptual_weight,
            "contrastive": self.options.contrastive_weight,
            "sex": self.options.heads_weight,
            "age": self.options.heads_weight,
        }
        return weighted(seen | heard | {"contrastive": contrastive}, weights)

    def _look(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of the face autoencoder, and the faces' embeddings."""
        target = self.faces.pictures(rows, rng.random(len(rows)) < 0.5).to(self.device)
        encoder = self.networks.face_encoder
        with mixed_precision(self.device):
            latents = encoder(target)
            noisy = latents + self.options.latent_noise * torch.randn_like(latents)
            decoded = self.networks.face_decoder(noisy).float()
            embedded = encoder.embed(latents)
            perceptual = self.perceptual(decoded, target)
        return {"absolute": (decoded - target).abs().mean(), "perceptual": perceptual}, embedded

    def _listen(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of the speech encoder's heads, and Z^s."""
        samples = int(rng.uniform(*self.options.window_seconds) * SAMPLE_RATE)
        excerpts = [random_crop(self.voices.waveforms[row], samples, rng) for row in rows]
        speech = torch.from_numpy(np.stack(augment_voices(excerpts, rng))).to(self.device)
        with mixed_precision(self.device):
            encoding = self.networks.speech_encoder(speech)
        return head_losses(encoding, self.voices, rows), encoding.embedding

    def evaluate(self, networks: CollaborativeNetworks) -> dict[str, float]:
        """Held-out figures; writes the components and a sheet of faces and reconstructions."""
        faces, voices = self.held_out
        target = to_model_range(faces.images[:256]).to(self.device)
        with mixed_precision(self.device):
            parts = [
                networks.face_decoder(networks.face_encoder(chunk)).float()
                for chunk in target.split(32)
            ]
            decoded = torch.cat(parts)
            perceptual = torch.stack(
                [
                    self.perceptual(one, other)
                    for one, other in zip(decoded.split(32), target.split(32), strict=True)
                ]
            ).mean()
        pictures = to_uint8(decoded)
        rows = [images[k : k + 12] for k in (0, 12) for images in (faces.images, pictures)]
        contact_sheet(rows).save(self.out / "reconstructions.png")
        for name in ("speech_encoder", "face_encoder", "face_decoder"):
            getattr(networks, name).save_pretrained(self.out / name)
        return {
            "absolute": float((decoded - target).abs().mean()),
            "perceptual": float(perceptual),
            **speech_scores(networks.speech_encoder, voices, self.device),
        }


def patch_size(image_size: int) -> int:
    """Side of the patches that the first convolution sees as one position."""
    return max(2, image_size // 64)


def picture_size(text: str) -> int:
    """The side of pictures, as argparse reads it: refused where it is not halved evenly."""
    lowest, highest = PICTURE_RANGES["image_size"]
    size = int(number_argument(int, lowest, highest)(text))
    return int(multiple_argument(HALVINGS * patch_size(size), highest)(text))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    add_perceptual_option(parser)
    parser.add_argument(
        "--image-size",
        type=picture_size,
        default=128,
        help="side of the training pictures in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--latent-channels",
        type=number_argument(int, *PICTURE_RANGES["latent_channels"]),
        default=16,
        help="channels of the face latent (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=count_argument,
        default=CollaborativeOptions.batch_size,
        help="pairs a step (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train stage 1 as the command line asks."""
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    faces, voices, pairing = load_split(arguments, "train", arguments.image_size)
    held_out = load_split(arguments, "validation", arguments.image_size)[:2]
    networks = build_networks(arguments)
    move(networks, device)
    options = options_from(arguments, CollaborativeOptions)
    speech = [p for n, p in networks.named_parameters() if not n.startswith("face")]
    face = [p for n, p in networks.named_parameters() if n.startswith("face")]
    groups = [
        {"params": speech, "lr": options.speech_rate, "weight_decay": 0.05},
        {"params": face, "lr": options.face_rate, "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    loop = TrainingLoop(networks, optimizer, options_from(arguments, LoopOptions))
    note_learnt_with(arguments.out, {}, labelled_attributes_of(voices))
    stage = CollaborativeTraining(
        networks,
        faces,
        voices,
        pairing,
        PerceptualLoss(arguments.perceptual_weights).to(device),
        held_out,
        options,
        arguments.out,
        device,
    )
    loop.run(stage.step, stage.evaluate)


def build_networks(arguments: argparse.Namespace) -> CollaborativeNetworks:
    """New networks of the asked size."""
    shape = {
        "image_size": arguments.image_size,
        "patch_size": patch_size(arguments.image_size),
        "latent_channels": arguments.latent_channels,
    }
    return CollaborativeNetworks(SpeechEncoder(), FaceEncoder(**shape), FaceDecoder(**shape))
