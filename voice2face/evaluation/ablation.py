"""``python -m voice2face.evaluation.ablation``: what each part of SCLDM contributes.

Small denoisers are trained for the same number of steps on the same latents, each with one part
changed, as in the paper's ablation: without collaborative pre-training (what that stage trains of
the speech encoder keeps its random first weights), without the face prior, without both, and with
other weights beta. A last one is told sex and age as numbers, which the paper does not do. A
second table shows how far the prior still moves with the number N of faces it averages.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from voice2face.components import load_component
from voice2face.data.tables import load_faces, load_voices
from voice2face.devices import choose_device
from voice2face.evaluation.comparison import Comparison
from voice2face.evaluation.instruments import (
    Artist,
    Instruments,
    add_drawing_options,
    add_measuring_options,
)
from voice2face.evaluation.measuring_command import (
    measuring_command,
    measuring_parser,
    parse_options,
    write_and_print,
)
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import hear
from voice2face.models import SPEECH_ENCODERS, SpeakerEncoder
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training import __main__ as training
from voice2face.training import diffusion
from voice2face.training.latents import EncodedTables
from voice2face.training.release import gathered, load_parts
from voice2face.training.training_log import logged

PORTRAITS_A_VOICE = 2
PRIOR_SIZES = (100, 500, 1_000, 5_000, 10_000)
PUBLISHED = ("recurrent.", "to_speaker.", "speaker_mean", "speaker_std")
# A few hundred steps get farthest at a high rate that falls for half of them, and at the noise
# levels at which a face takes shape.
SHORT_RUN = ("--learning-rate", 2e-3, "--cooldown", 0.5, "--ema-decay", 0.99, "--lognormal", 0.85)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: as it is printed.
        pretrained: whether the speech encoder went through collaborative pre-training.
        beta: weight of the face prior.
        heard_attributes: whether the denoiser is told sex and age as numbers.
    """

    name: str
    pretrained: bool
    beta: float
    heard_attributes: bool = False


VARIANTS = (
    Variant("base", False, 0.0),
    Variant("+ pre-training (beta 0)", True, 0.0),
    Variant("+ prior", False, 0.01),
    Variant("both (beta 0.01)", True, 0.01),
    Variant("both, beta 0.05", True, 0.05),
    Variant("both, beta 0.1", True, 0.1),
    Variant("both (beta 0.01), told sex and age", True, 0.01, True),
)


def untrained_encoders(collaborative: Path, to: Path) -> Path:
    """Copy the components of stage 1, what it trains of the speech encoder with random weights.

    A speaker network that others published stays as it is, as it does in stage 1.
    """
    shutil.copytree(collaborative, to, ignore=shutil.ignore_patterns("*state*"), dirs_exist_ok=True)
    torch.manual_seed(0)
    trained = load_component(SPEECH_ENCODERS, collaborative / "speech_encoder")
    fresh = type(trained).from_config(trained.config)
    if isinstance(trained, SpeakerEncoder):
        tensors = trained.state_dict()
        kept = {name: tensors[name] for name in tensors if name.startswith(PUBLISHED)}
        fresh.load_state_dict(kept, strict=False)
    fresh.save_pretrained(to / "speech_encoder")
    return to


def latents_folder(variant: Variant, options: argparse.Namespace) -> Path:
    """Where the tables lie, as the variant's encoders encode them."""
    return Path(options.out / ("latents" if variant.pretrained else "latents-untrained"))


def training_arguments(options: argparse.Namespace) -> list[Any]:
    """What all denoisers of an ablation are trained with."""
    arguments = ["--faces", options.data / "faces-*.parquet", "--device", options.device]
    arguments += ["--voices", options.data / "voices-*.parquet", "--resume"]
    arguments += ["--prediction-type", "v_prediction", "--block-channels", *options.block_channels]
    arguments += ["--max-steps", options.steps, "--time-budget", 1e9, "--evaluate-every", 1e9]
    arguments += [*SHORT_RUN, *(["--compile"] if options.compile else [])]
    return arguments + (["--limit", options.limit] if options.limit is not None else [])


def train(*command_line: Any) -> None:
    """Run a trainer's command in this process."""
    training.main([str(argument) for argument in command_line])


def train_variant(variant: Variant, options: argparse.Namespace) -> tuple[Path, Path]:
    """Train one denoiser; returns the folders of its encoders and of its own components."""
    encoders = options.collaborative
    if not variant.pretrained:
        encoders = untrained_encoders(options.collaborative, options.out / "untrained-encoders")
    kind = "pretrained" if variant.pretrained else "untrained"
    told = ["--heard-attributes"] if variant.heard_attributes else []
    name = f"{kind}-beta-{variant.beta:g}{''.join(told)}-{options.steps}-steps"
    out = options.out / name
    arguments = ["--encoders", encoders, "--out", out, "--beta", variant.beta, *told]
    arguments += ["--latents", latents_folder(variant, options)]
    train("diffusion", *arguments, *training_arguments(options))
    return encoders, out


def pipeline_of(variant: Variant, options: argparse.Namespace) -> tuple[Voice2FacePipeline, Path]:
    """Train one variant; returns its pipeline and the folder of its training."""
    encoders, trained = train_variant(variant, options)
    return pipeline_from({"collaborative": encoders, "diffusion": trained}), trained


def pipeline_from(stages: dict[str, Path]) -> Voice2FacePipeline:
    """A pipeline of the stages' results, whose pictures keep the decoder's own size."""
    parts = load_parts(gathered(stages))
    size = parts["face_decoder"].config.image_size
    return Voice2FacePipeline(**parts, output_size=size, name="ablation")


def measure(
    pipe: Voice2FacePipeline, trained: Path, group: str, options: argparse.Namespace, report: Report
) -> None:
    """Draw portraits of the validation speakers and enter the figures.

    Args:
        pipe: the variant.
        trained: folder of the training whose held-out loss is entered.
        group: of the figures.
        options: the command's.
        report: takes the figures.
    """
    voices = str(options.data / "voices-*.parquet")
    heard = hear(pipe.to(options.device), load_voices(voices, "validation", limit=options.limit))
    loss, without_voice = (
        logged(trained, name)[-1] for name in ("held_out_loss", "held_out_loss_without_voice")
    )
    report.add(group, "held-out loss", loss)
    report.add(group, "what the voice takes off the loss, x1000", 1000 * (without_voice - loss))
    comparison = Comparison(heard, PORTRAITS_A_VOICE, options.instruments, report)
    artist = Artist(pipe, options.preset, options.variety)
    comparison.measure(group, comparison.draw(artist))


def measure_prior(tables: EncodedTables, sex: np.ndarray, report: Report) -> None:
    """How far the prior of Eq. 3 moves from one number of faces to the next."""
    sizes = [count for count in PRIOR_SIZES if count <= len(tables.latents)]
    priors = [diffusion.balanced_prior(tables, sex, count, 1.0) for count in sizes]
    means = {prior.config.num_faces: prior() for prior in priors}  # fewer where a sex has fewer
    for (fewer, before), (more, after) in pairwise(means.items()):
        name = f"from N = {fewer:,} to {more:,}"
        report.add("the prior, L1 it moves", name, float((after - before).abs().sum()))


def parse(
    module: str, documentation: str | None, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read an ablation's command line, and load what it measures with."""
    parser = measuring_parser(module, documentation)
    parser.add_argument("--collaborative", type=Path, required=True, help="output of stage 1")
    add_measuring_options(parser)
    parser.add_argument(
        "--steps",
        type=int,
        default=500,
        help="training steps of each variant (default: %(default)s)",
    )
    parser.add_argument(
        "--block-channels",
        type=int,
        nargs="+",
        default=[64, 128],
        help="widths of the UNets (default: 64 128)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the denoisers: a minute at the start, then steps a quarter quicker",
    )
    add_drawing_options(parser)
    parser.set_defaults(device="cpu")
    options = parse_options(parser, arguments)
    options.device = choose_device(options.device)
    faces = str(options.data / "faces-*.parquet")
    options.instruments = Instruments.load(faces, options.networks, options.limit)
    return options


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure every variant; write ``ablation.md`` and ``ablation.json``."""
    options = parse("voice2face.evaluation.ablation", __doc__, arguments)
    report, table = Report(), f"Parts of SCLDM, {options.steps:,} steps"
    for variant in VARIANTS:
        measure(*pipeline_of(variant, options), f"{table}: {variant.name}", options, report)
    faces = str(options.data / "faces-*.parquet")
    sex = load_faces(faces, "train", 8, limit=options.limit).sex
    encoded = load_file(latents_folder(VARIANTS[1], options) / "latents_train.safetensors")
    measure_prior(EncodedTables(**encoded), sex, report)
    write_and_print(report, options.out, "ablation")


if __name__ == "__main__":
    main()
