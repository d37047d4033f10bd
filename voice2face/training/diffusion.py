"""Stage 2 of SCLDM: the denoiser learns to draw face latents for a voice, the encoders frozen."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from voice2face.compilation import check_compiler
from voice2face.components import load_component
from voice2face.errors import SettingError
from voice2face.methods.guided_sampling import DenoisingLoop, sample_guided
from voice2face.methods.scldm import denoising_loss
from voice2face.models import Denoiser, FaceDecoder, FacePrior
from voice2face.models.heard_attributes import ATTRIBUTES, heard_attributes
from voice2face.pixels import to_uint8
from voice2face.settings import Settings
from voice2face.training.contact_sheets import contact_sheet
from voice2face.training.encoders import Encoders
from voice2face.training.latent_pairs import FacePairs, LatentPairs
from voice2face.training.latents import EncodedTables
from voice2face.training.loop import TrainingLoop, logged
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.options import add_data_options, add_loop_options, loop_options
from voice2face.training.part_folders import part_folder
from voice2face.training.target_quality import quality_settings

# A denoiser follows sex and age less than it is told. Told more, it follows them as far as faces of
# that sex and age go, and portraits differ as much as test faces do.
ATTRIBUTES_EMPHASIS = 1.6
PUBLISHED_PREDICTION = "epsilon"
SHEET_SETTINGS = Settings(25, 2.0, 0.0, "unfinished")
LOG_NOISE_MEAN, LOG_NOISE_STD = 0.3, 1.0  # about EDM2's, at latents of unit variance


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


def noise_schedule(prediction_type: str) -> DDIMScheduler:
    """The forward process: latent diffusion's betas for epsilon, a cosine for velocity.

    With velocity prediction the last step may be pure noise, so the cosine's vanishing abar_T
    does no harm; epsilon prediction divides by sqrt(abar_T) and needs one that does not vanish.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2" if prediction_type == "v_prediction" else "scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        clip_sample=False,
        timestep_spacing="trailing",
    )


def draw_timesteps(schedule: DDIMScheduler, count: int, lognormal: float) -> Tensor:
    """Noise levels to learn from, as ``(count,)`` steps of the schedule.

    The paper draws every step alike. EDM (Karras et al. 2022, arXiv 2206.00364) draws the noise,
    as a share of the signal, lognormally: ``ln(sigma) ~ N(mean, std)``, where
    ``sigma_t = sqrt((1 - abar_t) / abar_t)``. That teaches most at the levels at which a face takes
    shape, and least where little can be seen or little is left to do.

    Args:
        schedule: of the noise.
        count: of levels.
        lognormal: share of them, 0 to 1, that is drawn so; the others are drawn as in the paper.
    """
    alpha_bar = schedule.alphas_cumprod.double().cpu()  # diffusers moves it where it was last used
    log_noise = 0.5 * torch.log((1.0 - alpha_bar) / alpha_bar)
    wanted = LOG_NOISE_MEAN + LOG_NOISE_STD * torch.randn(count, dtype=torch.float64)
    nearest = torch.searchsorted(log_noise, wanted).clamp(max=len(log_noise) - 1)
    alike = torch.randint(0, len(log_noise), (count,))
    return torch.where(torch.rand(count) < lognormal, nearest, alike)


def balanced_prior(tables: EncodedTables, sex: np.ndarray, count: int, beta: float) -> FacePrior:
    """Eq. 3 over as many women as men, ``count`` faces at most, each averaged with its mirror.

    Where one sex is missing or unlabelled, there is nothing to balance and any faces are taken.
    """
    rng = np.random.default_rng(0)
    women, men = (rng.permutation(np.flatnonzero(sex == value)) for value in (0, 1))
    each = min(count // 2, len(women), len(men))
    if each == 0:
        rows = rng.permutation(len(sex))[:count]
    else:
        rows = np.concatenate([women[:each], men[:each]])
    return FacePrior.from_latents(tables.latents[rows, :2].mean(1), weight=beta)


@dataclass
class Diffusion:
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

    def evaluate(self, denoiser: Any) -> dict[str, float]:
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


def load_start(folder: Path, stage: str, prediction_type: str | None) -> tuple[Denoiser, str]:
    """The denoiser to go on from, and what it predicts.

    Args:
        folder: a stage's output, or a checkpoint.
        stage: whose denoiser is wanted of Fine-portraitist's two.
        prediction_type: what the command asks for; ``None`` for what the denoiser learnt with.

    Raises:
        SettingError: it learnt to predict something else, or nobody says what.
    """
    own = folder / f"{stage}_denoiser"
    denoiser = load_component(Denoiser, own if own.is_dir() else folder / "denoiser")
    schedule = part_folder(folder, "scheduler")
    if not schedule.is_dir():
        if prediction_type is None:
            raise SettingError(
                f"{folder} has no scheduler that tells what its denoiser predicts; say "
                "--prediction-type"
            )
        return denoiser, prediction_type
    learnt = load_component(DDIMScheduler, schedule).config.prediction_type
    if prediction_type not in (None, learnt):
        raise SettingError(
            f"the denoiser in {folder} learnt with --prediction-type {learnt}, not "
            f"{prediction_type}; leave the option out"
        )
    return denoiser, learnt


def with_attribute_inputs(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, told of sex and age as well; until it is trained it pays them no heed."""
    config = {name: value for name, value in denoiser.config.items() if not name.startswith("_")}
    told = {"heard_attributes": len(ATTRIBUTES), "attributes_emphasis": ATTRIBUTES_EMPHASIS}
    wider = Denoiser(**config | told)
    tensors = denoiser.state_dict()
    projection = "unet.class_embedding.linear_1.weight"
    missing = wider.get_parameter(projection).shape[1] - tensors[projection].shape[1]
    tensors[projection] = nn.functional.pad(tensors[projection], (0, missing))
    wider.load_state_dict(tensors, strict=False)
    return wider


def set_dropout(denoiser: Denoiser, share: float) -> None:
    """Leave out that share of the activations of every residual block while training."""
    for module in denoiser.unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.dropout.p = share


def denoiser_to_train(
    arguments: argparse.Namespace,
    encoders: Encoders,
    quality: dict[str, Any],
    beside_channels: int,
) -> tuple[Denoiser, str]:
    """A new denoiser or that of ``--start-from``, with the heads of stage 1; and what it predicts.

    Args:
        arguments: as of ``train_denoiser``.
        encoders: as there.
        quality: as there.
        beside_channels: as there.

    Raises:
        SettingError: the arguments do not go together, or do not go with ``--start-from``.
    """
    if arguments.start_from is not None:
        denoiser, prediction_type = load_start(
            arguments.start_from, arguments.stage, arguments.prediction_type
        )
        if denoiser.config.beside_channels != beside_channels:
            raise SettingError(
                f"the denoiser in {arguments.start_from} sees {denoiser.config.beside_channels} "
                f"channels beside the noisy latent, this stage's {beside_channels}: it was trained "
                "by another stage"
            )
        asked = {name: value for name, value in quality.items() if name.startswith("good_portrait")}
        denoiser.register_to_config(**asked)
        if arguments.heard_attributes and not denoiser.config.heard_attributes:
            denoiser = with_attribute_inputs(denoiser)
    else:
        prediction_type = arguments.prediction_type or PUBLISHED_PREDICTION
        denoiser = Denoiser(
            latent_channels=encoders.face_encoder.config.latent_channels,
            latent_size=encoders.face_encoder.latent_size,
            speech_dim=encoders.speech_encoder.config.embedding_dim,
            block_channels=arguments.block_channels,
            layers_per_block=arguments.layers_per_block,
            cross_attention_dim=arguments.cross_attention_dim,
            beside_channels=beside_channels,
            heard_attributes=len(ATTRIBUTES) if arguments.heard_attributes else 0,
            attributes_emphasis=ATTRIBUTES_EMPHASIS if arguments.heard_attributes else 1.0,
            **quality,
        )
    if arguments.attributes_emphasis is not None:
        denoiser.register_to_config(attributes_emphasis=arguments.attributes_emphasis)
    if arguments.drop_attention and not denoiser.config.heard_attributes:
        raise SettingError(
            "with --drop-attention, a denoiser that is not told sex and age hears nothing: give "
            "--heard-attributes, too"
        )
    if denoiser.config.heard_attributes:
        for name in ("sex_head", "age_head"):
            head = denoiser.get_submodule(name)
            head.load_state_dict(encoders.speech_encoder.get_submodule(name).state_dict())
            head.requires_grad_(False)
    return denoiser, prediction_type


def train_denoiser(
    arguments: argparse.Namespace,
    encoders: Encoders,
    prior: FacePrior,
    quality: dict[str, list[float]],
    pairs: tuple[LatentPairs, LatentPairs],
    beside_channels: int = 0,
) -> None:
    """Train one denoiser as the command line asks.

    Args:
        arguments: of ``add_denoiser_options``.
        encoders: of stage 1.
        prior: shifts every latent.
        quality: of ``quality_settings``.
        pairs: batches to train on, and held-out ones.
        beside_channels: of what the denoiser sees beside the noisy latent.
    """
    device, out = torch.device(arguments.device), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    options = DiffusionOptions(
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        drop_attention=arguments.drop_attention,
        lognormal=arguments.lognormal,
        dropout=arguments.dropout,
    )
    denoiser, prediction_type = denoiser_to_train(arguments, encoders, quality, beside_channels)
    set_dropout(denoiser, options.dropout)
    schedule = noise_schedule(prediction_type)
    schedule.save_pretrained(out / "scheduler")
    denoiser.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in denoiser.parameters() if parameter.requires_grad],
        options.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
    )
    loop = TrainingLoop(denoiser, optimizer, loop_options(arguments))
    stage = Diffusion(
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
        "--batch-size", type=int, default=DiffusionOptions.batch_size, help="latents a step"
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=DiffusionOptions.learning_rate,
        help="of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the denoiser: a minute at the start, then quicker steps",
    )
    parser.add_argument(
        "--block-channels", type=int, nargs="+", default=[128, 256], help="widths of the UNet"
    )
    parser.add_argument("--layers-per-block", type=int, default=1, help="depth of a level")
    parser.add_argument(
        "--cross-attention-dim", type=int, default=256, help="width of the voice's tokens"
    )
    parser.add_argument(
        "--heard-attributes",
        action="store_true",
        help="tell the denoiser sex and age as numbers too; needs labelled faces",
    )
    parser.add_argument(
        "--attributes-emphasis",
        type=float,
        metavar="X",
        help="how many times as far from the middle as they are heard sex and age are told when "
        f"drawing (default: that of --start-from, without it {ATTRIBUTES_EMPHASIS})",
    )
    parser.add_argument(
        "--drop-attention",
        type=float,
        default=DiffusionOptions.drop_attention,
        metavar="SHARE",
        help="share of the pairs in which only these numbers tell of the voice "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--lognormal",
        type=float,
        default=DiffusionOptions.lognormal,
        metavar="SHARE",
        help="share of the pairs whose noise level is drawn lognormally, which teaches most at the "
        "levels at which a face takes shape; the others are drawn uniformly, as in the paper "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dropout",
        type=float,
        default=DiffusionOptions.dropout,
        metavar="SHARE",
        help="share of the activations that is left out while training, against learning faces by "
        "heart in long runs (default: %(default)s)",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_denoiser_options(parser)
    parser.add_argument(
        "--beta", type=float, default=0.01, help="weight of the face prior (default: %(default)s)"
    )
    parser.add_argument(
        "--prior-faces", type=int, default=10_000, help="N of Eq. 3 (default: %(default)s)"
    )
    parser.add_argument(
        "--moves",
        type=int,
        default=0,
        metavar="COUNT",
        help="learn from each face moved by a few pixels too, that many times, against learning "
        "faces by heart in long runs (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train stage 2 as the command line asks."""
    torch.manual_seed(arguments.seed)
    encoders = Encoders.load(arguments.encoders)
    train = encoders.encode(arguments, "train", arguments.moves)
    held_out = encoders.encode(arguments, "validation")
    prior = balanced_prior(train.tables, train.faces.sex, arguments.prior_faces, arguments.beta)
    prior.save_pretrained(arguments.out / "face_prior")
    pairs = [FacePairs(of.faces, of.tables, of.pairing) for of in (train, held_out)]
    train_denoiser(arguments, encoders, prior, quality_settings(train.faces), (pairs[0], pairs[1]))
