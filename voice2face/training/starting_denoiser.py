"""The denoiser that a run starts from: a new one, or one that learnt before."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDIMScheduler
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from voice2face.components import load_component
from voice2face.errors import SettingError
from voice2face.models import Denoiser
from voice2face.models.denoiser import QUALITY_NAMES, norm_groups
from voice2face.models.heard_attributes import ATTRIBUTES
from voice2face.training.encoders import Encoders
from voice2face.training.part_folders import part_folder
from voice2face.training.target_quality import NO_STD

# A denoiser follows sex and age less than it is told. Told more, it follows them as far as faces of
# that sex and age go, and portraits differ as much as test faces do.
ATTRIBUTES_EMPHASIS = 1.6
PUBLISHED_PREDICTION = "epsilon"
STANDARDISED_WITH = ("quality_mean", "quality_std")
OUTSIDE = QUALITY_NAMES.index("outside")


def learnt_prediction(folder: Path) -> str | None:
    """What the denoiser of a stage's output, or of a checkpoint, predicts; ``None`` if unsaid."""
    schedule = part_folder(folder, "scheduler")
    if not schedule.is_dir():
        return None
    learnt: str = load_component(DDIMScheduler, schedule).config.prediction_type
    return learnt


def denoiser_folder(folder: Path, name: str) -> Path:
    """Where a denoiser lies in a checkpoint, which calls it so, or in its own stage's output."""
    own = folder / name
    return own if own.is_dir() else folder / "denoiser"


def load_start(folder: Path, stage: str, prediction_type: str | None) -> tuple[Denoiser, str]:
    """The denoiser to go on from, and what it predicts.

    Args:
        folder: a stage's output, or a checkpoint.
        stage: whose denoiser is wanted of Fine-portraitist's two.
        prediction_type: what the command asks for; ``None`` for what the denoiser learnt with.

    Raises:
        SettingError: it learnt to predict something else, or nobody says what.
    """
    denoiser = load_component(Denoiser, denoiser_folder(folder, f"{stage}_denoiser"))
    learnt = learnt_prediction(folder)
    if learnt is None:
        if prediction_type is None:
            raise SettingError(
                f"{folder} has no scheduler that tells what its denoiser predicts; say "
                "--prediction-type"
            )
        return denoiser, prediction_type
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


def asked_anew(denoiser: Denoiser, quality: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """What a denoiser that goes on learning is to be asked for, in the numbers of its faces.

    A number that no face has is 0 in all of them. This 0 then stands for what the denoiser was
    asked for until now: else it would be told that every face is as dark and blurred as can be.
    Where it learnt before from faces without a number that these have, mean and spread are theirs.

    Args:
        denoiser: that learnt before.
        quality: of ``quality_settings``.
    """
    asked = {name: value for name, value in quality.items() if name.startswith("good_portrait")}
    level, spread = (np.array(quality[name]) for name in STANDARDISED_WITH)
    missing = (level == 0) & (spread <= NO_STD)
    mean, std = (np.array(denoiser.config[name]) for name in STANDARDISED_WITH)
    good, good_std = (np.array(denoiser.config[name]) for name in asked)
    mean[missing] -= good[missing]
    lacked = (good == 0) & (good_std == 0)
    lacked[OUTSIDE] = False  # no sign of it there: good portraits lie inside their photographs
    new = ~missing & (lacked | (std <= NO_STD))
    mean[new], std[new] = level[new], spread[new]
    return asked | {"quality_mean": mean.tolist(), "quality_std": std.tolist()}


def set_dropout(denoiser: Denoiser, share: float) -> None:
    """Leave out that share of the activations of every residual block while training."""
    for module in denoiser.unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.dropout.p = share


def starting_point(
    arguments: argparse.Namespace, beside_channels: int
) -> tuple[Denoiser | None, str]:
    """The denoiser of ``--start-from``, ``None`` without it, and what is to be predicted.

    Args:
        arguments: of ``add_denoiser_options``.
        beside_channels: of what the denoiser sees beside the noisy latent.

    Raises:
        SettingError: the arguments do not go together, or do not go with ``--start-from``.
    """
    denoiser, prediction_type = None, arguments.prediction_type or PUBLISHED_PREDICTION
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
    if denoiser is None:
        groups = norm_groups(arguments.block_channels)
        if any(channels % groups for channels in arguments.block_channels):
            raise SettingError(
                f"where the least of --block-channels is {min(arguments.block_channels)}, all are "
                f"multiples of {groups}"
            )
    told = arguments.heard_attributes or (denoiser and denoiser.config.heard_attributes)
    if arguments.drop_attention and not told:
        raise SettingError(
            "with --drop-attention, a denoiser that is not told sex and age hears nothing: give "
            "--heard-attributes, too"
        )
    return denoiser, prediction_type


def denoiser_to_train(
    arguments: argparse.Namespace,
    start: Denoiser | None,
    encoders: Encoders,
    quality: dict[str, Any],
    beside_channels: int,
) -> Denoiser:
    """A new denoiser or that of ``--start-from``, with the heads of stage 1.

    Args:
        arguments: of ``add_denoiser_options``.
        start: of ``starting_point``.
        encoders: of stage 1.
        quality: of ``quality_settings``.
        beside_channels: of what the denoiser sees beside the noisy latent.
    """
    if start is not None:
        denoiser = start
        denoiser.register_to_config(**asked_anew(denoiser, quality))
        if arguments.heard_attributes and not denoiser.config.heard_attributes:
            denoiser = with_attribute_inputs(denoiser)
    else:
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
    if denoiser.config.heard_attributes:
        for name in ("sex_head", "age_head"):
            head = denoiser.get_submodule(name)
            head.load_state_dict(encoders.speech_encoder.get_submodule(name).state_dict())
            head.requires_grad_(False)
    return denoiser
