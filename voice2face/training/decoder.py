"""A sharper face decoder: fine-tuned against discriminators, at the pictures' full resolution.

The encoder stays as it is, so that latents, prior and denoiser keep their meaning. Loss = mean
absolute error + perceptual distance + the hinge loss of patch discriminators (Esser et al. 2021
use the same three for their autoencoder) + that of a discriminator of features. Portraits that the
denoiser drew can be learnt from, too: they have no original, so the discriminators say how they
should look, and the decoder of the start what they show.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.commands.options import number_argument
from voice2face.components import load_component
from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.fine_detail import detail_ratio
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable, load_faces
from voice2face.devices import move
from voice2face.errors import SettingError
from voice2face.models import FaceDecoder, FaceEncoder
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pixels import to_model_range, to_uint8
from voice2face.training.discriminators import Discriminators, FeatureDiscriminator
from voice2face.training.drawn_portraits import kept_portraits
from voice2face.training.enlarged_decoder import enlarge
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.losses import weighted
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.options import (
    add_face_options,
    add_loop_options,
    add_perceptual_option,
    count_argument,
    options_from,
)
from voice2face.training.part_folders import part_folder
from voice2face.training.picture_views import coarse_difference, random_square, random_views
from voice2face.training.trajectories import read_trajectories

PORTRAITS = "portraits.safetensors"
JUDGED_MAPS = (96, 128, 256)  # channels of the finest maps of ``PerceptualLoss``


@dataclass(frozen=True)
class DecoderOptions:
    """Weights and rates.

    Attributes:
        batch_size: pictures a step, and portraits a step where there are any.
        decoder_rate: learning rate of the decoder.
        discriminator_rate: learning rate of the discriminators.
        perceptual_weight: weight of the perceptual distance against the mean absolute error.
        adversarial_weight: weight of the patch discriminators' verdicts.
        feature_weight: weight of the verdicts of the discriminator of features.
        adversarial_from: step from which the decoder listens to the discriminators.
        latent_noise: standard deviation of the noise on Z^f before decoding.
        likeness_weight: weight of the perceptual distance between a portrait and what the decoder
            of the start made of it, against their ``coarse_difference``.
    """

    batch_size: int = 16
    decoder_rate: float = 2e-4
    discriminator_rate: float = 8e-4
    perceptual_weight: float = 0.5
    adversarial_weight: float = 0.08
    feature_weight: float = 0.12
    adversarial_from: int = 40
    latent_noise: float = 0.1
    likeness_weight: float = 0.1


class DecoderNetworks(nn.Module):
    """The decoder and its opponents."""

    def __init__(self, face_decoder: FaceDecoder) -> None:
        super().__init__()
        self.face_decoder = face_decoder
        self.discriminators = Discriminators(face_decoder.config.patch_size)
        self.feature_discriminator = FeatureDiscriminator(JUDGED_MAPS)


@dataclass
class DecoderTraining:
    """The step and the held-out evaluation.

    Attributes:
        networks: to be trained.
        start: the decoder as it was.
        encoder: frozen.
        faces: training faces as the encoder sees them, and as large as they are decoded.
        held_out: likewise, to measure with.
        portraits: Z^f that a denoiser drew, ``(N, C, H, W)``; there may be none.
        perceptual: the distance.
        options: weights and rates.
        out: folder for sheets and decoder.
        device: to train on.
    """

    networks: DecoderNetworks
    start: FaceDecoder
    encoder: FaceEncoder
    faces: tuple[FaceTable, FaceTable]
    held_out: tuple[FaceTable, FaceTable]
    portraits: Tensor
    perceptual: PerceptualLoss
    options: DecoderOptions
    out: Path
    device: torch.device

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch, decoder's and discriminators' in one sum."""
        options = self.options
        rows = rng.integers(len(self.faces[0]), size=options.batch_size)
        mirrored = rng.random(options.batch_size) < 0.5
        small, target = (table.pictures(rows, mirrored).to(self.device) for table in self.faces)
        portraits = self._portraits(rng)
        with mixed_precision(self.device):
            with torch.no_grad():
                latents = self.encoder(small)
            noisy = latents + options.latent_noise * torch.randn_like(latents)
            generated = self.networks.face_decoder(torch.cat([noisy, portraits])).float()
            decoded, drawn = generated.tensor_split([len(noisy)])
            losses = {
                "absolute": (decoded - target).abs().mean(),
                "perceptual": self.perceptual(*random_views(rng, decoded, target)),
            }
            if len(portraits):
                with torch.no_grad():
                    before = self.start(portraits).float()
                losses["coarse"] = coarse_difference(drawn, before)
                losses["likeness"] = self.perceptual(*random_views(rng, drawn, before))
            losses["adversarial"] = self.networks.discriminators.generator_loss(generated)
            losses["discriminator"] = self.networks.discriminators.loss(target, generated)
            losses |= self._feature_losses(*random_square(rng, target, generated))
        listens = number >= options.adversarial_from
        weights = {
            "perceptual": options.perceptual_weight,
            "likeness": options.likeness_weight,
            "adversarial": options.adversarial_weight * listens,
            "feature_adversarial": options.feature_weight * listens,
        }
        return weighted(losses, weights)

    def _feature_losses(self, photographs: Tensor, generated: Tensor) -> dict[str, Tensor]:
        depth = len(JUDGED_MAPS)
        with torch.no_grad():
            real = self.perceptual.maps(photographs, depth)
        adversarial, discriminator = self.networks.feature_discriminator.losses(
            real, self.perceptual.maps(generated, depth)
        )
        return {"feature_adversarial": adversarial, "feature_discriminator": discriminator}

    def _portraits(self, rng: np.random.Generator) -> Tensor:
        if not len(self.portraits):
            return self.portraits.to(self.device)
        rows = rng.integers(len(self.portraits), size=self.options.batch_size)
        return self.portraits[rows].to(self.device)

    def evaluate(self, networks: DecoderNetworks) -> dict[str, float]:
        """Held-out figures; writes the decoder and a sheet of faces and reconstructions."""
        small, large = (to_model_range(table.images[:256]) for table in self.held_out)
        decoded, distances = [], []
        with mixed_precision(self.device):
            for inputs, target in zip(small.split(16), large.split(16), strict=True):
                picture = networks.face_decoder(self.encoder(inputs.to(self.device))).float()
                distances.append(float(self.perceptual(picture, target.to(self.device))))
                decoded.append(picture.cpu())
        pictures = torch.cat(decoded)
        shown = [self.held_out[1].images, to_uint8(pictures[:24])]
        rows = [images[k : k + 8] for k in (0, 8, 16) for images in shown]
        contact_sheet(rows).save(self.out / "reconstructions.png")
        self._portrait_sheet(networks.face_decoder)
        networks.face_decoder.save_pretrained(self.out / "face_decoder")
        return {
            "absolute": float((pictures - large).abs().mean()),
            "perceptual": float(np.mean(distances)),
            "detail": detail_ratio(pictures, large),
        }

    def _portrait_sheet(self, decoder: FaceDecoder, shown: int = 10) -> None:
        """Portraits by the decoder of the start and, below each row, by the present one."""
        if not len(self.portraits):
            return
        rows = [
            to_uint8(face_decoder(latents))
            for latents in self.portraits[: 3 * shown].to(self.device).split(shown)
            for face_decoder in (self.start, decoder)
        ]
        contact_sheet(rows).save(self.out / "portraits.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_face_options(parser)
    add_loop_options(parser)
    parser.add_argument(
        "--start-from",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="output folder of the collaborative stage, or a checkpoint",
    )
    parser.add_argument(
        "--trajectories",
        type=Path,
        metavar="FOLDER",
        help="of the distillation: portraits of the voices in it are learnt from, too",
    )
    parser.add_argument(
        "--checkpoint", help="folder or name of what draws them (default: the one in the package)"
    )
    add_perceptual_option(parser)
    parser.add_argument(
        "--image-size",
        type=number_argument(int, *FaceDecoder.ranges["image_size"]),
        default=192,
        help="side of the decoded pictures in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=count_argument,
        default=DecoderOptions.batch_size,
        help="pictures a step (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Fine-tune the decoder as the command line asks."""
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    start_from = arguments.start_from
    encoder = load_component(FaceEncoder, part_folder(start_from, "face_encoder"))
    encoder.to(device).eval()
    decoder = load_component(FaceDecoder, part_folder(start_from, "face_decoder"))
    decoder = enlarge(decoder, arguments.image_size)
    start = copy.deepcopy(decoder).requires_grad_(False).to(device)
    networks = DecoderNetworks(decoder)
    move(networks, device)

    def load(split: str) -> tuple[FaceTable, FaceTable]:
        sizes = (encoder.config.image_size, arguments.image_size)
        tables, column = arguments.faces, "image"
        if arguments.pairs:
            tables, column = arguments.pairs, "face"
        small, large = (
            load_faces(tables, split, size, limit=arguments.limit, column=column) for size in sizes
        )
        return small, large

    portraits = torch.empty(0, encoder.config.latent_channels, *[encoder.latent_size] * 2)
    if arguments.trajectories is not None:
        files = sorted((arguments.trajectories / "train").glob("*.safetensors"))
        if not files:
            raise SettingError(f"{arguments.trajectories} holds no trajectories of a distillation")
        pipe = Voice2FacePipeline.from_pretrained(arguments.checkpoint, device=arguments.device)
        arguments.out.mkdir(parents=True, exist_ok=True)
        portraits = kept_portraits(
            arguments.out / PORTRAITS, pipe, read_trajectories(files).speech, arguments.seed
        )
    options = options_from(arguments, DecoderOptions)
    optimizer = torch.optim.AdamW(
        [
            {"params": networks.face_decoder.parameters(), "lr": options.decoder_rate},
            {
                "params": [
                    *networks.discriminators.parameters(),
                    *networks.feature_discriminator.parameters(),
                ],
                "lr": options.discriminator_rate,
            },
        ],
        betas=(0.5, 0.99),
        weight_decay=0.0,
    )
    loop = TrainingLoop(networks, optimizer, options_from(arguments, LoopOptions))
    note_learnt_with(arguments.out, {"face_encoder": encoder})
    stage = DecoderTraining(
        networks,
        start,
        encoder,
        load("train"),
        load("validation"),
        portraits,
        PerceptualLoss(arguments.perceptual_weights).to(device),
        options,
        arguments.out,
        device,
    )
    loop.run(stage.step, stage.evaluate)
