"""Stage 1 with a speech encoder that can hear already: its projection to Z^s is learned alone.

The speaker network and the face encoder stay as they are. Loss = contrastive(Z^s, Z^f), as in the
collaborative stage, plus the cross-entropy of the heads for sex and age.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.components import load_component
from voice2face.data.tables import FaceTable, VoiceTable
from voice2face.models import FaceDecoder, FaceEncoder, SpeakerEncoder
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.latents import encode_faces, encode_voices
from voice2face.training.learnt_with import labelled_attributes_of, note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.losses import contrastive_loss, head_losses, weighted
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    checksum_of_split,
    load_split,
    options_from,
)
from voice2face.training.pairing import Pairing
from voice2face.training.part_folders import part_folder
from voice2face.training.speaker_weights import read_published
from voice2face.training.speech_scores import speech_scores

VARIANTS = 6
EXCERPT_SECONDS = 3.2
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
CONTRASTIVE_WEIGHT = 0.05
HEADS_WEIGHT = 1.0  # of sex and age


class SpeakerNetworks(nn.Module):
    """The speech encoder and the logarithm of the contrastive inverse temperature."""

    def __init__(self, speech_encoder: SpeakerEncoder) -> None:
        super().__init__()
        self.speech_encoder = speech_encoder
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))


@torch.inference_mode()
def speaker_variants(encoder: SpeakerEncoder, voices: VoiceTable, device: torch.device) -> Tensor:
    """What the speaker network says of each recording, ``(voices, VARIANTS, speaker_dim)``.

    The first variant hears a whole window as it is, the others augmented excerpts.
    """
    excerpt = round(encoder.config.sample_rate * EXCERPT_SECONDS)
    samples = [encoder.window_samples, *[excerpt] * (VARIANTS - 1)]
    return encode_voices(voices, encoder.to(device).speaker_features, samples, device)


@torch.inference_mode()
def face_embeddings(encoder: FaceEncoder, faces: FaceTable, device: torch.device) -> Tensor:
    """Embeddings of the faces as they are, ``(faces, embedding_dim)``, unit length."""
    encoder.eval().to(device)
    return encode_faces(faces.images, lambda pictures: encoder.embed(encoder(pictures)), device)


@dataclass
class SpeakerTraining:
    """The step and the held-out evaluation."""

    networks: SpeakerNetworks
    said: Tensor
    faces: Tensor
    voices: VoiceTable
    pairing: Pairing
    held_out: VoiceTable
    out: Path
    device: torch.device

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch of pairs."""
        face_rows, voice_rows = self.pairing.sample(rng, BATCH_SIZE)
        variant = rng.integers(self.said.shape[1], size=len(voice_rows))
        said = self.said[voice_rows, variant].to(self.device)
        encoding = self.networks.speech_encoder.project(said)
        matches = torch.from_numpy(self.pairing.matches(face_rows, voice_rows).T).to(self.device)
        contrastive = contrastive_loss(
            encoding.embedding,
            self.faces[face_rows].to(self.device),
            matches,
            self.networks.log_scale,
        )
        heads = head_losses(encoding, self.voices, voice_rows)
        weights = {
            "contrastive": CONTRASTIVE_WEIGHT,
            "sex": HEADS_WEIGHT,
            "age": HEADS_WEIGHT,
        }
        return weighted(heads | {"contrastive": contrastive}, weights)

    def evaluate(self, networks: SpeakerNetworks) -> dict[str, float]:
        """Held-out accuracies; writes the speech encoder."""
        networks.speech_encoder.save_pretrained(self.out / "speech_encoder")
        return speech_scores(networks.speech_encoder, self.held_out, self.device)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    parser.add_argument(
        "--faces-from",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a checkpoint or the output of the collaborative stage: face encoder and decoder",
    )
    parser.add_argument(
        "--speaker-weights",
        type=Path,
        required=True,
        metavar="WHEEL",
        help="the wheel of Resemblyzer 0.1.4: pip download --no-deps resemblyzer==0.1.4",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train the projection as the command line asks."""
    torch.manual_seed(arguments.seed)
    device, out = torch.device(arguments.device), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    face_encoder = load_component(FaceEncoder, part_folder(arguments.faces_from, "face_encoder"))
    face_decoder = load_component(FaceDecoder, part_folder(arguments.faces_from, "face_decoder"))
    faces, voices, pairing = load_split(arguments, "train", face_encoder.config.image_size)
    held_out = load_split(arguments, "validation", face_encoder.config.image_size)[1]

    tables = [checksum_of_split(arguments, "train")]
    encoder = SpeakerEncoder()
    encoder.load_state_dict(read_published(arguments.speaker_weights), strict=False)
    said = kept_tensor(
        out / "speaker_variants.safetensors",
        fingerprint(encoder.recurrent, encoder.to_speaker, tables),
        lambda: speaker_variants(encoder, voices, device),
    )
    embedded = kept_tensor(
        out / "face_embeddings.safetensors",
        fingerprint(face_encoder, tables),
        lambda: face_embeddings(face_encoder, faces, device),
    )
    encoder.speaker_mean.copy_(said.flatten(0, 1).mean(0))
    encoder.speaker_std.copy_(said.flatten(0, 1).std(0))
    for part in (encoder.recurrent, encoder.to_speaker):
        part.requires_grad_(False)

    networks = SpeakerNetworks(encoder).to(device)
    trained = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1)
    loop = TrainingLoop(networks, optimizer, options_from(arguments, LoopOptions))
    note_learnt_with(out, {}, labelled_attributes_of(voices))
    face_encoder.save_pretrained(out / "face_encoder")
    face_decoder.save_pretrained(out / "face_decoder")
    stage = SpeakerTraining(networks, said, embedded, voices, pairing, held_out, out, device)
    loop.run(stage.step, stage.evaluate)
