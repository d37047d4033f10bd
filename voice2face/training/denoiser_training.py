"""The training of one denoiser, which the commands of stage 2 share."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from voice2face.commands.options import number_argument
from voice2face.compilation import check_compiler
from voice2face.data.contact_sheets import contact_sheet
from voice2face.devices import move
from voice2face.methods.guided_sampling import DenoisingLoop, sample_guided
from voice2face.methods.scldm import denoising_loss
from voice2face.models import Denoiser, FaceDecoder, FacePrior
from voice2face.models.heard_attributes import heard_attributes
from voice2face.pixels import to_uint8
from voice2face.settings import Settings
from voice2face.training.encoders import Encoders
from voice2face.training.latent_pairs import LatentPairs
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.noise_schedule import draw_timesteps, noise_schedule
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    count_argument,
    options_from,
    share_argument,
)
from voice2face.training.starting_denoiser import (
    ATTRIBUTES_EMPHASIS,
    PUBLISHED_PREDICTION,
    denoiser_to_train,
    set_dropout,
)
from voice2face.training.training_log import logged

SHEET_SETTINGS = Settings(25, 2.0, 0.0, "unfinished")


@dataclass(frozen=True)
class DiffusionOptions:
    """Rates and shares of stage 2.

    Attributes:
        batch_size: latents a step.
        learning_rate: of AdamW.
        drop_speech: share of rows trained without the voice (for guidance).
        drop_all: share of rows trained without voice and quality.
        drop_attributes: share of rows trained with the voice, but not told sex and age.
        drop_attention: share of rows told sex and age, but nothing to attend to.
        embedding_noise: length of the noise added to the unit-length Z^s.
        lognormal: share of rows whose noise level is drawn lognormally.
        dropout: share of the activations in residual blocks that are left out while training.
    """

    batch_size: int = 64
    learning_rate: float = 5e-4
    drop_speech: float = 0.1
    drop_all: float = 0.05
    drop_attributes: float = 0.1
    drop_attention: float = 0.0
    embedding_noise: float = 0.15
    lognormal: float = 0.0
    dropout: float = 0.0


@dataclass
class DenoiserTraining:
    """The step and the held-out evaluation of a denoiser."""

    denoiser: Denoiser
    prior: FacePrior
    decoder: FaceDecoder
    schedule: DDIMScheduler
    train: LatentPairs
    held_out: LatentPairs
    options: DiffusionOptions
    out: Path
    device: torch.device

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch."""
        options = self.options
        batch = self.train.sample(rng, options.batch_size).to(self.device)
        count = len(batch.clean)
        noisy = batch.speech + options.embedding_noise * nn.functional.normalize(
            torch.randn_like(batch.speech), dim=1
        )
        dropped = torch.from_numpy(rng.random(count)).float().to(self.device)
        quality_kept = dropped >= options.drop_all
        speech_kept = dropped >= options.drop_all + options.drop_speech
        attributes = batch.attributes.clone()
        attributes[dropped > 1.0 - options.drop_attributes] = float("nan")
        with mixed_precision(self.device):
            condition = self.denoiser.condition(
                nn.functional.normalize(noisy, dim=1),
                batch.quality,
                speech_kept,
                quality_kept,
                attributes,
            )
            inattentive = torch.from_numpy(rng.random(count) < options.drop_attention)
            speech = torch.where(
                inattentive.to(self.device)[:, None, None],
                self.denoiser.no_speech.to(condition.speech.dtype),
                condition.speech,
            )
            loss = denoising_loss(
                self.denoiser,
                self.prior,
                self.schedule,
                batch.clean,
                torch.randn_like(batch.clean),
                draw_timesteps(self.schedule, count, options.lognormal).to(self.device),
                condition._replace(speech=speech, beside=batch.beside),
            ).mean()
        return {"loss": loss}

    def evaluate(self, denoiser: Denoiser) -> dict[str, float]:
        """Held-out loss, with and without the voice; writes the denoiser and a sheet of faces.

        What had the lowest loss so far is kept in ``lowest_loss`` as well: a long run learns faces
        by heart in the end, which the loss tells before the portraits do.
        """
        rng = np.random.default_rng(0)
        generator = torch.Generator().manual_seed(0)
        sums = {"loss": 0.0, "loss_without_voice": 0.0}
        batches = 8
        for _ in range(batches):
            batch = self.held_out.sample(rng, 128).to(self.device)
            noise = torch.randn(batch.clean.shape, generator=generator).to(self.device)
            timesteps = torch.linspace(4, 999, 128).long().to(self.device)
            for name, kept in (("loss", True), ("loss_without_voice", False)):
                keep = torch.full((len(batch.clean),), kept, device=self.device)
                with mixed_precision(self.device):
                    condition = denoiser.condition(
                        batch.speech, batch.quality, keep, attributes=self._heard(batch.speech)
                    )
                    loss = denoising_loss(
                        denoiser,
                        self.prior,
                        self.schedule,
                        batch.clean,
                        noise,
                        timesteps,
                        condition._replace(beside=batch.beside),
                    )
                sums[name] += float(loss.mean()) / batches
        self._contact_sheet(denoiser)
        denoiser.save_pretrained(self.out / "denoiser")
        before = filter(math.isfinite, logged(self.out, "held_out_loss"))
        if sums["loss"] <= min(before, default=math.inf):
            denoiser.save_pretrained(self.out / "lowest_loss" / "denoiser")
        return sums

    def _heard(self, speech: Tensor) -> Tensor | None:
        """Sex and age as they are heard, not emphasised: as labels tell them in training."""
        if not self.denoiser.config.heard_attributes:
            return None
        return heard_attributes(self.denoiser.describe(speech))

    def _contact_sheet(self, denoiser: Denoiser, people: int = 10, seeds: int = 5) -> None:
        batch = self.held_out.sample(np.random.default_rng(1), people).to(self.device)
        rows = []
        for seed in range(seeds):
            generators = [torch.Generator().manual_seed(seed) for _ in range(people)]
            with mixed_precision(self.device):
                latents = sample_guided(
                    DenoisingLoop(denoiser),
                    self.schedule,
                    batch.speech,
                    denoiser.good_portraits(generators),
                    generators,
                    SHEET_SETTINGS,
                    prior=self.prior,
                    beside=batch.beside,
                )
                rows.append(to_uint8(self.decoder(latents)))
        contact_sheet(rows).save(self.out / "portraits.png")


def train_denoiser(
    arguments: argparse.Namespace,
    start: tuple[Denoiser | None, str],
    encoders: Encoders,
    prior: FacePrior,
    quality: dict[str, list[float]],
    pairs: tuple[LatentPairs, LatentPairs],
    beside_channels: int = 0,
) -> None:
    """Train one denoiser as the command line asks.

    Args:
        arguments: of ``add_denoiser_options``.
        start: of ``starting_point``.
        encoders: of stage 1.
        prior: shifts every latent; of no faces where nothing does.
        quality: of ``quality_settings``.
        pairs: batches to train on, and held-out ones.
        beside_channels: of what the denoiser sees beside the noisy latent.
    """
    device, out = torch.device(arguments.device), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    options = options_from(arguments, DiffusionOptions)
    before, prediction_type = start
    denoiser = denoiser_to_train(arguments, before, encoders, quality, beside_channels)
    set_dropout(denoiser, options.dropout)
    schedule = noise_schedule(prediction_type)
    move(denoiser, device)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in denoiser.parameters() if parameter.requires_grad],
        options.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
    )
    loop = TrainingLoop(denoiser, optimizer, options_from(arguments, LoopOptions))
    schedule.save_pretrained(out / "scheduler")
    if prior.config.num_faces:
        prior.save_pretrained(out / "face_prior")
    parts = {"face_encoder": encoders.face_encoder, "speech_encoder": encoders.speech_encoder}
    note_learnt_with(out, parts)
    stage = DenoiserTraining(
        denoiser,
        prior.to(device),
        encoders.face_decoder.to(device),
        schedule,
        *pairs,
        options,
        out,
        device,
    )
    if arguments.compile:
        check_compiler(device)
        denoiser.unet.compile()
    loop.run(stage.step, stage.evaluate)


def add_denoiser_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that all denoisers' commands share."""
    add_data_options(parser)
    add_loop_options(parser)
    parser.add_argument(
        "--encoders", type=Path, required=True, help="output folder of stage 1, or a checkpoint"
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="a stage's output or a checkpoint whose denoiser to go on from, with its sizes; which "
        "portraits are asked for is found anew",
    )
    parser.add_argument(
        "--latents", type=Path, help="folder to keep the encoded tables in (default: --out)"
    )
    parser.add_argument(
        "--prediction-type",
        choices=(PUBLISHED_PREDICTION, "v_prediction"),
        help="epsilon is the paper's Eq. 6, v_prediction what released checkpoints learnt "
        "with (default: that of --start-from, without it epsilon)",
    )
    parser.add_argument(
        "--batch-size",
        type=count_argument,
        default=DiffusionOptions.batch_size,
        help="latents a step (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=share_argument,
        default=DiffusionOptions.learning_rate,
        help="of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the denoiser: a minute at the start, then quicker steps",
    )
    parser.add_argument(
        "--block-channels",
        type=number_argument(int, *Denoiser.ranges["block_channels"]),
        nargs="+",
        default=[128, 256],
        help="widths of the UNet (default: 128 256)",
    )
    parser.add_argument(
        "--layers-per-block",
        type=number_argument(int, *Denoiser.ranges["layers_per_block"]),
        default=1,
        help="depth of a level (default: %(default)s)",
    )
    parser.add_argument(
        "--cross-attention-dim",
        type=number_argument(int, *Denoiser.ranges["cross_attention_dim"]),
        default=256,
        help="width of the voice's tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--heard-attributes",
        action="store_true",
        help="tell the denoiser sex and age as numbers too; needs labelled faces",
    )
    parser.add_argument(
        "--attributes-emphasis",
        type=number_argument(float, *Denoiser.ranges["attributes_emphasis"]),
        metavar="X",
        help="how many times as far from the middle as they are heard sex and age are told when "
        f"drawing (default: that of --start-from, without it {ATTRIBUTES_EMPHASIS})",
    )
    parser.add_argument(
        "--drop-attention",
        type=share_argument,
        default=DiffusionOptions.drop_attention,
        metavar="SHARE",
        help="share of the pairs in which only these numbers tell of the voice "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--lognormal",
        type=share_argument,
        default=DiffusionOptions.lognormal,
        metavar="SHARE",
        help="share of the pairs whose noise level is drawn lognormally, which teaches most at the "
        "levels at which a face takes shape; the others are drawn uniformly, as in the paper "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dropout",
        type=share_argument,
        default=DiffusionOptions.dropout,
        metavar="SHARE",
        help="share of the activations that is left out while training, against learning faces by "
        "heart in long runs (default: %(default)s)",
    )
