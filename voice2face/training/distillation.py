"""Few-step distillation: a low-rank update with which SCLDM's denoiser draws in four steps.

The denoiser draws portraits with guidance in many steps. The update learns to take, without
guidance and in one step, what they went through in several (Salimans and Ho 2022, all halvings at
once). Of each portrait it is told the age that can be read off it, not the age that was asked for,
and portraits of the wrong sex or without a findable face are left out: so it follows what it is
told more closely than the denoiser that it learns from.
"""

from __future__ import annotations

import argparse
import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.evaluation.judge import Judge
from voice2face.evaluation.pictures import PerceptualFeatures, face_found
from voice2face.methods.scldm import SCLDM
from voice2face.models import Denoiser
from voice2face.models.heard_attributes import heard_attributes, median_age
from voice2face.pipeline import Voice2FacePipeline
from voice2face.sampling import split_prediction, trailing_timesteps
from voice2face.settings import Settings
from voice2face.training.images import contact_sheet
from voice2face.training.loop import TrainingLoop
from voice2face.training.losses import PerceptualLoss
from voice2face.training.low_rank import make_low_rank, update_of
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    load_split,
    loop_options,
)
from voice2face.training.pairing import Pairing
from voice2face.training.speech_scores import embed_clips
from voice2face.training.tables import FaceTable
from voice2face.training.trajectories import Trajectories, draw_trajectories, kept_trajectories

SHARD = 64
FIRST_SEED = 10**9  # far from those of portraits that are measured
HELD_OUT_SHARDS = 2
SPEECH_NOISE = 0.1
JUDGE_MEMBERS = 2


class Distillation:
    """The step and the held-out evaluation of an update.

    Args:
        student: the denoiser that ``make_low_rank`` prepared.
        original: as it was before.
        teacher: the checkpoint, with its decoder and noise schedule.
        shift: what its prior adds to every latent that the denoiser is shown.
        train: trajectories to learn.
        held_out: trajectories to measure with.
        settings: of the teacher's steps.
        steps: that the student takes.
        batch_size: parts of trajectories a step.
        out: folder for the update and the contact sheet.
    """

    def __init__(
        self,
        student: Denoiser,
        original: Denoiser,
        teacher: Voice2FacePipeline,
        shift: Tensor,
        train: Trajectories,
        held_out: Trajectories,
        settings: Settings,
        steps: int,
        batch_size: int,
        out: Path,
    ) -> None:
        self.student, self.original = student, original
        self.teacher, self.shift = teacher, shift
        self.train, self.held_out, self.settings = train, held_out, settings
        self.steps, self.batch_size, self.out = steps, batch_size, out
        schedule = teacher.scheduler
        timesteps = trailing_timesteps(steps, schedule.config.num_train_timesteps)
        self.timesteps = torch.tensor(timesteps)
        self.alpha_bar = schedule.alphas_cumprod[timesteps]
        angles = torch.acos(self.alpha_bar.double().sqrt())
        self.turns = (angles - torch.cat([angles[1:], torch.zeros(1)])).float()

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Loss of one batch of steps, each of one trajectory.

        DDIM turns (Z^t, v) by the angle between two noise levels, so the v that leads from one
        end of a step to the other is ``(cos(turn) Z^t - Z^s) / sin(turn)``.
        """
        device = self.student.device
        parts = torch.from_numpy(rng.integers(0, self.steps, self.batch_size))
        rows = torch.from_numpy(rng.integers(0, len(self.train.speech), self.batch_size))
        noisy, wanted = (
            self.train.latents[rows, ends].float().to(device) for ends in (parts, parts + 1)
        )
        turn = self.turns[parts].to(device)[:, None, None, None]
        velocity = (turn.cos() * noisy - wanted) / turn.sin()
        with mixed_precision(device):
            predicted = self._predict(self.student, self.train.take(rows), noisy, parts)
        return {"loss": (predicted - velocity).square().mean()}

    def _predict(self, student: Denoiser, of: Trajectories, noisy: Tensor, parts: Tensor) -> Tensor:
        """The velocity seen in Z^t, whatever the student's prediction type."""
        device = student.device
        condition = student.condition(
            of.speech.to(device), of.quality.to(device), attributes=of.attributes.to(device)
        )
        output = student(noisy + self.shift, self.timesteps[parts].to(device), condition)
        alpha_bar = self.alpha_bar[parts].to(device)[:, None, None, None]
        kind = self.teacher.scheduler.config.prediction_type
        seen = split_prediction(output.float(), noisy, alpha_bar, kind)
        return alpha_bar.sqrt() * seen.noise - (1.0 - alpha_bar).sqrt() * seen.clean

    def evaluate(self, student: Any) -> dict[str, float]:
        """How far held-out portraits end from the teacher's; writes update and contact sheet.

        The distance is the root of the mean square, in units of the latents' own.
        """
        latents = self.held_out.latents[:, 0].float().to(student.device)
        for part in range(self.steps):
            turn = self.turns[part]
            parts = torch.full((len(latents),), part)
            velocity = self._predict(student, self.held_out, latents, parts)
            latents = turn.cos() * latents - turn.sin() * velocity
        goal = self.held_out.latents[:, -1].float().to(latents.device)
        update = update_of(student, self.original, self.steps, self.settings.guidance_scale)
        update.save_pretrained(self.out / "few_step_update")
        decode = self.teacher.decode
        rows = [decode(drawn[:10], watermark=False) for drawn in (goal, latents)]
        contact_sheet(rows).save(self.out / "portraits.png")
        distance = (latents - goal).square().mean().sqrt() / goal.square().mean().sqrt()
        return {"distance": float(distance)}


def voices_of(pairing: Pairing, embeddings: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Z^s of ``count`` voices, as often of each sex and age as training pairs them, disturbed."""
    drawn = embeddings[torch.from_numpy(pairing.sample(rng, count)[1])]
    noise = torch.from_numpy(rng.standard_normal(drawn.shape, dtype=np.float32))
    return nn.functional.normalize(drawn + SPEECH_NOISE * nn.functional.normalize(noise), dim=1)


def as_they_look(drawn: Trajectories, judge: Judge, decode: Any) -> Trajectories:
    """The portraits that show a face of the sex asked for, told the age that the judge reads."""
    pictures = decode(drawn.latents[:, -1].float(), watermark=False)
    opinion = judge.opinion(pictures)
    found = torch.tensor([face_found(picture) for picture in pictures])
    male = torch.from_numpy(opinion.sex[:, 1] > opinion.sex[:, 0])
    kept = found & (male == (drawn.attributes[:, 0] > 0))
    ages = median_age(torch.from_numpy(opinion.age).float())
    return drawn._replace(attributes=torch.stack([drawn.attributes[:, 0], ages], 1)).take(kept)


def trained_judge(faces: FaceTable, perceptual_weights: Path) -> Judge:
    """A judge of other features than the one that portraits are measured with."""
    features = PerceptualFeatures(PerceptualLoss(perceptual_weights))
    judge = Judge(features, features(faces.images[:1]).shape[1], JUDGE_MEMBERS)
    judge.fit(faces)
    return judge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    add_perceptual_option(parser)
    parser.add_argument(
        "--checkpoint", help="folder or name of what to distil (default: the one in the package)"
    )
    parser.add_argument(
        "--trajectories",
        type=Path,
        metavar="FOLDER",
        help="where to keep what was drawn to learn from (default: in --out)",
    )
    parser.add_argument(
        "--portraits", type=int, default=4096, help="to draw and learn from (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher-steps",
        type=int,
        default=16,
        help="of UniPC, in which they are drawn; a multiple of --steps (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=4, help="to learn (default: %(default)s)")
    parser.add_argument(
        "--guidance", type=float, default=2.0, help="to learn (default: %(default)s)"
    )
    parser.add_argument(
        "--rank", type=int, default=12, help="of the change of each weight (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--batch-size", type=int, default=64, help="parts of trajectories a step")


def main(arguments: argparse.Namespace) -> None:
    """Distil as the command line asks."""
    torch.manual_seed(arguments.seed)
    if arguments.teacher_steps % arguments.steps:
        raise SystemExit("--teacher-steps is a multiple of --steps")
    teacher = Voice2FacePipeline.from_pretrained(
        arguments.checkpoint, device=arguments.device, dtype=torch.float32
    )
    method = teacher.method
    if not isinstance(method, SCLDM):
        raise SystemExit(f"{teacher.name} is of {method.name}; checkpoints of scldm are distilled")
    settings = Settings(
        arguments.teacher_steps,
        arguments.guidance,
        0.0,
        teacher.name,
        sampler="unipc",
        guidance_every=2,
    )

    @cache
    def judge() -> Judge:
        faces, _, _ = load_split(arguments, "train", teacher.face_encoder.config.image_size)
        return trained_judge(faces, arguments.perceptual_weights)

    def drawn(split: str, shards: int, *, as_asked: bool) -> Trajectories:
        @cache
        def voices() -> tuple[Pairing, Tensor]:
            side = teacher.face_encoder.config.image_size
            _, table, pairing = load_split(arguments, split, side)
            with torch.inference_mode():
                heard = embed_clips(
                    teacher.speech_encoder, table.waveforms, teacher.device, disturbed=False
                )
            return pairing, heard.float().cpu()

        def shard(number: int) -> Trajectories:
            rng = np.random.default_rng([arguments.seed, number])
            first = FIRST_SEED + number * SHARD
            speech = voices_of(*voices(), rng, SHARD).to(teacher.device)
            made = draw_trajectories(
                method.denoiser,
                method.face_prior,
                teacher.scheduler,
                speech,
                heard_attributes(teacher.speech_encoder.describe(speech)),
                range(first, first + SHARD),
                settings,
                arguments.steps,
            )
            return made if as_asked else as_they_look(made, judge(), teacher.decode)

        folder = (arguments.trajectories or arguments.out / "trajectories") / split
        return kept_trajectories(folder, shards, shard)

    train = drawn("train", -(-arguments.portraits // SHARD), as_asked=False)
    held_out = drawn("validation", HELD_OUT_SHARDS, as_asked=True)
    student = copy.deepcopy(method.denoiser)
    make_low_rank(student, arguments.rank)
    student.to(teacher.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in student.parameters() if parameter.requires_grad],
        arguments.rate,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    stage = Distillation(
        student,
        method.denoiser,
        teacher,
        method.face_prior().detach(),
        train,
        held_out,
        settings,
        arguments.steps,
        arguments.batch_size,
        arguments.out,
    )
    TrainingLoop(student, optimizer, loop_options(arguments)).run(stage.step, stage.evaluate)
