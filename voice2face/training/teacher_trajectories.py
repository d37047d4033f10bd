"""What a teacher passes through as it draws portraits of a split's voices."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from voice2face.components import load_component
from voice2face.errors import SettingError
from voice2face.methods.guided_sampling import Autoguidance
from voice2face.models import Denoiser
from voice2face.settings import Settings
from voice2face.training.distilled_denoiser import DistilledDenoiser
from voice2face.training.heard_voices import hear_split, voices_of
from voice2face.training.kept_files import fingerprint
from voice2face.training.options import checksum_of_split
from voice2face.training.pairing import Pairing
from voice2face.training.starting_denoiser import denoiser_folder, learnt_prediction
from voice2face.training.trajectories import (
    Trajectories,
    draw_trajectories,
    first_seed,
    kept_trajectories,
)

ALIKE = ("latent_channels", "latent_size", "beside_channels", "speech_dim")
SHARD = 64  # portraits a file


def autoguidance_of(
    original: DistilledDenoiser, arguments: argparse.Namespace
) -> Autoguidance | None:
    """Guidance away from the denoiser that ``--weaker`` names; ``None`` without it.

    Raises:
        SettingError: it predicts something else, or sees other latents.
    """
    if arguments.weaker is None:
        return None
    weaker = load_component(Denoiser, denoiser_folder(arguments.weaker, original.name))
    teacher = original.teacher.scheduler.config.prediction_type
    predicted = learnt_prediction(arguments.weaker) or teacher
    if predicted != teacher:
        raise SettingError(
            f"--weaker {arguments.weaker} learnt with --prediction-type {predicted}, what is "
            f"distilled with {teacher}: it guides nowhere"
        )
    for name in ALIKE:
        its, own = weaker.config[name], original.denoiser.config[name]
        if its != own:
            raise SettingError(
                f"--weaker {arguments.weaker} has a {name} of {its}, what is distilled of {own}: "
                "give an earlier run of the same stage over the same latents"
            )
    return Autoguidance(weaker.to(original.denoiser.device), arguments.autoguidance)


def trajectories_of(
    split: str,
    portraits: int,
    original: DistilledDenoiser,
    settings: Settings,
    autoguidance: Autoguidance | None,
    arguments: argparse.Namespace,
    kept: Path,
) -> Trajectories:
    """What the original denoiser passes through for voices of a split, drawn or read again.

    Args:
        split: whose voices to draw portraits for.
        portraits: how many, at least.
        original: draws.
        settings: of its steps.
        autoguidance: see ``sample_guided``.
        arguments: of the command.
        kept: folder to keep them in.
    """
    teacher = original.teacher
    teaching = [*original.draws_with, teacher.speech_encoder]
    how: list[object] = [settings, arguments.steps, arguments.seed, original.name]
    if autoguidance is not None:
        teaching.append(autoguidance.weaker)
        how.append(autoguidance.scale)

    @cache
    def voices() -> tuple[Pairing, Tensor]:
        return hear_split(arguments, teacher, split)

    def shard(number: int) -> Trajectories:
        first = first_seed(split, arguments.seed) + number * SHARD
        seeds = range(first, first + SHARD)
        rng = np.random.default_rng([arguments.seed, first])
        speech = voices_of(*voices(), rng, SHARD).to(teacher.device)
        return draw_trajectories(
            original.denoiser,
            original.prior,
            teacher.scheduler,
            speech,
            seeds,
            settings,
            arguments.steps,
            autoguidance,
            original.beside(speech, seeds, settings),
        )

    made_of = fingerprint(*teaching, how, [checksum_of_split(arguments, split)])
    return kept_trajectories(kept / split, -(-portraits // SHARD), shard, made_of)
