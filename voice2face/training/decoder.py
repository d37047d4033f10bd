"""A sharper face decoder: fine-tuned against a discriminator, at the pictures' full resolution.

The encoder stays as it is, so that latents, prior and denoiser keep their meaning. Loss = mean
absolute error + perceptual distance + the hinge loss of a patch discriminator (Esser et al. 2021
use the same three for their autoencoder).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from voice2face.components import load_component
from voice2face.models import FaceDecoder, FaceEncoder
from voice2face.training.images import contact_sheet, to_model_range, to_uint8
from voice2face.training.loop import TrainingLoop
from voice2face.training.losses import PerceptualLoss
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.options import (
    add_face_options,
    add_loop_options,
    add_perceptual_option,
    loop_options,
)
from voice2face.training.tables import FaceTable, load_faces

VIEW = 128


@dataclass(frozen=True)
class DecoderOptions:
    """Weights and rates.

    Attributes:
        batch_size: pictures a step.
        decoder_rate: learning rate of the decoder.
        discriminator_rate: learning rate of the discriminator.
        perceptual_weight: weight of the perceptual distance against the mean absolute error.
        adversarial_weight: weight of the discriminator's verdict.
        adversarial_from: step from which the decoder listens to the discriminator.
        latent_noise: standard deviation of the noise on Z^f before decoding.
    """

    batch_size: int = 16
    decoder_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    perceptual_weight: float = 0.35
    adversarial_weight: float = 0.03
    adversarial_from: int = 150
    latent_noise: float = 0.1


class PatchDiscriminator(nn.Module):
    """Says of every patch of a picture whether it looks real (Isola et al. 2017)."""

    def __init__(self, patch_size: int, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(patch_size),
            spectral_norm(nn.Conv2d(3 * patch_size**2, channels, 3, padding=1)),
            nn.LeakyReLU(0.2),
        ]
        for width in (channels, 2 * channels):
            layers += [
                spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.2),
            ]
        layers.append(spectral_norm(nn.Conv2d(4 * channels, 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Verdicts ``(B, 1, h, w)``, high for real, of pictures ``(B, 3, H, W)`` in [-1, 1]."""
        verdict: Tensor = self.layers(images)
        return verdict


class DecoderNetworks(nn.Module):
    """The decoder and its opponent."""

    def __init__(self, face_decoder: FaceDecoder, discriminator: PatchDiscriminator) -> None:
        super().__init__()
        self.face_decoder = face_decoder
        self.discriminator = discriminator


def enlarge(decoder: FaceDecoder, image_size: int) -> FaceDecoder:
    """The same decoder with larger patches: its last convolution's weights are interpolated.

    Raises:
        ValueError: the size is no multiple of the decoder's positions.
    """
    positions = decoder.config.image_size // decoder.config.patch_size
    if image_size % positions:
        raise ValueError(f"the decoder's pictures are multiples of {positions} pixels wide")
    old, new = decoder.config.patch_size, image_size // positions
    larger = FaceDecoder.from_config(
        {**decoder.config, "image_size": image_size, "patch_size": new}
    )
    state = decoder.state_dict()
    for name in ("to_pixels.weight", "to_pixels.bias"):
        flat = state[name].view(3, old, old, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(flat, size=(new, new), mode="bilinear")
        state[name] = resized.permute(0, 2, 3, 1).reshape(-1, *state[name].shape[1:])
    larger.load_state_dict(state)
    return larger


class DecoderTraining:
    """The step and the held-out evaluation."""

    def __init__(
        self,
        networks: DecoderNetworks,
        encoder: FaceEncoder,
        faces: tuple[FaceTable, FaceTable],
        held_out: tuple[FaceTable, FaceTable],
        perceptual: PerceptualLoss,
        options: DecoderOptions,
        out: Path,
        device: torch.device,
    ) -> None:
        self.networks, self.encoder, self.faces = networks, encoder, faces
        self.held_out, self.perceptual = held_out, perceptual
        self.options, self.out, self.device = options, out, device

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch, decoder's and discriminator's in one sum."""
        options = self.options
        rows = rng.integers(len(self.faces[0]), size=options.batch_size)
        mirrored = rng.random(options.batch_size) < 0.5
        small, target = (self._pictures(table, rows, mirrored) for table in self.faces)
        with mixed_precision(self.device):
            with torch.no_grad():
                latents = self.encoder(small)
            noisy = latents + options.latent_noise * torch.randn_like(latents)
            decoded = self.networks.face_decoder(noisy).float()
            perceptual = self.perceptual(*random_views(rng, decoded, target))
            verdict = self._frozen_verdict(decoded)
            real = self.networks.discriminator(target)
            made = self.networks.discriminator(decoded.detach())
        losses = {
            "absolute": (decoded - target).abs().mean(),
            "perceptual": perceptual,
            "adversarial": -verdict.float().mean(),
            "discriminator": F.relu(1 - real.float()).mean() + F.relu(1 + made.float()).mean(),
        }
        listens = number >= options.adversarial_from
        total = (
            losses["absolute"]
            + options.perceptual_weight * losses["perceptual"]
            + options.adversarial_weight * listens * losses["adversarial"]
            + losses["discriminator"]
        )
        return losses | {"loss": total}

    def _pictures(self, table: FaceTable, rows: np.ndarray, mirrored: np.ndarray) -> Tensor:
        images = table.images[rows]
        images[mirrored] = images[mirrored, :, ::-1]
        return to_model_range(images).to(self.device)

    def _frozen_verdict(self, decoded: Tensor) -> Tensor:
        """The discriminator's verdict, through which gradients reach the picture alone."""
        discriminator = self.networks.discriminator
        frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
        buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
        verdict: Tensor = functional_call(discriminator, {**frozen, **buffers}, (decoded,))
        return verdict

    def evaluate(self, networks: Any) -> dict[str, float]:
        """Held-out figures; writes the decoder and a sheet of faces and reconstructions."""
        small, large = (to_model_range(table.images[:256]) for table in self.held_out)
        decoded, distances = [], []
        with mixed_precision(self.device):
            for inputs, target in zip(small.split(16), large.split(16), strict=True):
                picture = networks.face_decoder(self.encoder(inputs.to(self.device))).float().cpu()
                distances.append(float(self.perceptual(picture, target)))
                decoded.append(picture)
        pictures = torch.cat(decoded)
        shown = [self.held_out[1].images, to_uint8(pictures[:24])]
        rows = [images[k : k + 8] for k in (0, 8, 16) for images in shown]
        contact_sheet(rows).save(self.out / "reconstructions.png")
        networks.face_decoder.save_pretrained(self.out / "face_decoder")
        return {
            "absolute": float((pictures - large).abs().mean()),
            "perceptual": float(np.mean(distances)),
            "edges": float(edges(pictures) / edges(large)),
        }


def random_views(rng: np.random.Generator, *pictures: Tensor) -> list[Tensor]:
    """Batches of pictures as ``VIEW`` pixels: the same square of each, or all of them reduced."""
    if rng.random() < 0.5:
        size = (VIEW, VIEW)
        return [F.interpolate(p, size, mode="bilinear", antialias=True) for p in pictures]
    room = max(0, pictures[0].shape[2] - VIEW)
    top, left = rng.integers(room + 1, size=2)
    return [p[:, :, top : top + VIEW, left : left + VIEW] for p in pictures]


def edges(images: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_face_options(parser)
    add_loop_options(parser)
    parser.add_argument(
        "--start-from",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="output folder of the collaborative stage",
    )
    add_perceptual_option(parser)
    parser.add_argument(
        "--image-size", type=int, default=192, help="side of the decoded pictures in pixels"
    )
    parser.add_argument(
        "--batch-size", type=int, default=DecoderOptions.batch_size, help="pictures a step"
    )


def main(arguments: argparse.Namespace) -> None:
    """Fine-tune the decoder as the command line asks."""
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    encoder = load_component(FaceEncoder, arguments.start_from / "face_encoder").to(device).eval()
    decoder = load_component(FaceDecoder, arguments.start_from / "face_decoder")
    decoder = enlarge(decoder, arguments.image_size)
    networks = DecoderNetworks(decoder, PatchDiscriminator(decoder.config.patch_size))
    networks.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(split: str) -> tuple[FaceTable, FaceTable]:
        sizes = (encoder.config.image_size, arguments.image_size)
        small, large = (
            load_faces(arguments.faces, split, size, limit=arguments.limit) for size in sizes
        )
        return small, large

    options = DecoderOptions(batch_size=arguments.batch_size)
    optimizer = torch.optim.AdamW(
        [
            {"params": networks.face_decoder.parameters(), "lr": options.decoder_rate},
            {"params": networks.discriminator.parameters(), "lr": options.discriminator_rate},
        ],
        betas=(0.5, 0.99),
        weight_decay=0.0,
    )
    settings = loop_options(arguments)
    loop = TrainingLoop(networks, optimizer, settings)
    stage = DecoderTraining(
        networks,
        encoder,
        load("train"),
        load("validation"),
        PerceptualLoss(arguments.perceptual_weights).to(device),
        options,
        settings.out,
        device,
    )
    loop.run(stage.step, stage.evaluate)
