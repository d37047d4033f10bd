"""Stage 2 of SCLDM: the denoiser learns to draw face latents for a voice, the encoders frozen."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from voice2face.commands.options import number_argument
from voice2face.models import FacePrior
from voice2face.training.denoiser_training import add_denoiser_options, train_denoiser
from voice2face.training.encoders import Encoders
from voice2face.training.latent_pairs import FacePairs
from voice2face.training.latents import EncodedTables
from voice2face.training.options import MOST, count_argument
from voice2face.training.starting_denoiser import starting_point
from voice2face.training.target_quality import quality_settings


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_denoiser_options(parser)
    parser.add_argument(
        "--beta",
        type=number_argument(float, *FacePrior.ranges["weight"]),
        default=0.01,
        help="weight of the face prior (default: %(default)s)",
    )
    parser.add_argument(
        "--prior-faces",
        type=count_argument,
        default=10_000,
        help="N of Eq. 3 (default: %(default)s)",
    )
    parser.add_argument(
        "--moves",
        type=number_argument(int, 0, MOST),
        default=0,
        metavar="COUNT",
        help="learn from each face moved by a few pixels too, that many times, against learning "
        "faces by heart in long runs (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train stage 2 as the command line asks."""
    torch.manual_seed(arguments.seed)
    encoders = Encoders.load(arguments.encoders)
    start = starting_point(arguments, beside_channels=0)
    train = encoders.encode(arguments, "train", arguments.moves)
    if arguments.heard_attributes:
        train.check_labels()
    held_out = encoders.encode(arguments, "validation")
    prior = balanced_prior(train.tables, train.faces.sex, arguments.prior_faces, arguments.beta)
    pairs = [FacePairs(of.faces, of.tables, of.pairing) for of in (train, held_out)]
    quality = quality_settings(train.faces)
    train_denoiser(arguments, start, encoders, prior, quality, (pairs[0], pairs[1]))
