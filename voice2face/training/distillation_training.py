"""How a few-step update learns: from single steps of a teacher, and from whole portraits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from voice2face.data.contact_sheets import contact_sheet
from voice2face.models import Denoiser
from voice2face.models.denoiser import Condition
from voice2face.training.distilled_denoiser import DistilledDenoiser
from voice2face.training.few_step_student import Student
from voice2face.training.latent_discriminator import LatentDiscriminator
from voice2face.training.losses import weighted
from voice2face.training.low_rank import update_of
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.portrait_losses import PortraitLosses
from voice2face.training.trajectories import Trajectories

SHOWN = 10
ADVERSARIAL_FROM = 40


class DistillationNetworks(nn.Module):
    """The denoiser that learns and what it learns against.

    Args:
        denoiser: that ``make_low_rank`` prepared.
        discriminator: of its portraits' latents.
    """

    def __init__(self, denoiser: Denoiser, discriminator: LatentDiscriminator) -> None:
        super().__init__()
        self.denoiser, self.discriminator = denoiser, discriminator


@dataclass(frozen=True)
class DistillationOptions:
    """Weights and sizes.

    Attributes:
        steps: that the update is to draw in.
        guidance: scale of the guidance whose effect is learnt in.
        batch_size: sampling steps to imitate in each training step.
        learning_rate: of AdamW.
        attribute_weight: weight of the loss of sex and age that are read off whole portraits.
        adversarial_weight: weight of the loss against a discriminator that knows real faces.
        face_weight: weight of the face check's doubt that the face is drawn well.
        whole_portraits: drawn in each training step for these three losses, 2 or more.
        learning_steps: last sampling steps of theirs through which gradients flow.
    """

    steps: int = 4
    guidance: float = 2.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    attribute_weight: float = 0.05
    adversarial_weight: float = 0.02
    face_weight: float = 0.2
    whole_portraits: int = 36
    learning_steps: int = 2


@dataclass
class DistillationTraining:
    """The step and the held-out evaluation of an update.

    Attributes:
        networks: that learn.
        original: what is distilled.
        student: how it draws.
        portraits: what is learnt from whole portraits.
        train: trajectories to learn.
        held_out: trajectories to measure with.
        options: weights and sizes.
        out: folder for update and contact sheet.
    """

    networks: DistillationNetworks
    original: DistilledDenoiser
    student: Student
    portraits: PortraitLosses
    train: Trajectories
    held_out: Trajectories
    options: DistillationOptions
    out: Path

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of single steps of some trajectories, and of whole ways from noise of others."""
        options, denoiser = self.options, self.networks.denoiser
        device = denoiser.device
        parts = torch.from_numpy(rng.integers(0, options.steps, options.batch_size))
        rows = torch.from_numpy(rng.integers(0, len(self.train.speech), options.batch_size))
        start, end = (self.train.latents[rows, k].float().to(device) for k in (parts, parts + 1))
        parts = parts.to(device)
        # the student's weights may be cached; the discriminator's spectral norm may not: one of its
        # passes needs gradients, the other must not have them
        with parametrize.cached(), mixed_precision(device):
            told = self._told_of(self.train, rows)
            seen = self.student.velocity(denoiser, told, start, parts)
            portraits = self.portraits.draw(rng) if self.portraits.enabled else None
        imitation = (seen - self.student.target_velocity(start, end, parts)).square().mean()
        losses = {"imitation": imitation}
        if portraits is not None:
            losses |= self.portraits.losses(*portraits)
        weights = {
            "attributes": options.attribute_weight,
            "adversarial": options.adversarial_weight * (number >= ADVERSARIAL_FROM),
            "doubt": options.face_weight,
        }
        return weighted(losses, weights)

    def _told_of(self, drawn: Trajectories, rows: Tensor | slice) -> Condition:
        """What the denoiser is told as it draws some portraits again."""
        speech, quality, beside = (
            part[rows].float().to(self.networks.denoiser.device) for part in drawn[:3]
        )
        return self.networks.denoiser.condition(speech, quality)._replace(beside=beside)

    def evaluate(self, networks: DistillationNetworks) -> dict[str, float]:
        """How held-out portraits compare with the teacher's; writes update and contact sheet.

        The distance is the root of the mean square, by that of the teacher's latents.
        """
        denoiser, held_out, original = networks.denoiser, self.held_out, self.original
        options, out, device = self.options, self.out, denoiser.device
        told = self._told_of(held_out, slice(None))
        noise, goal = (held_out.latents[:, end].float().to(device) for end in (0, -1))
        drawn = self.student.draw(denoiser, told, noise)
        update = update_of(denoiser, original.denoiser, options.steps, options.guidance)
        update.save_pretrained(out / original.update_name)
        teacher, speech = original.teacher, held_out.speech.to(device)
        rows = [teacher.decode(part[:SHOWN], watermark=False) for part in (goal, drawn)]
        contact_sheet(rows).save(out / "portraits.png")
        figures = {"distance": (drawn - goal).square().mean().sqrt() / goal.square().mean().sqrt()}
        for of, latents in (("", drawn), ("_of_teacher", goal)):
            if self.portraits.reader is not None:
                figures["attributes" + of] = self.portraits.misread(latents, speech)
            if self.portraits.doubt is not None:
                figures["doubt" + of] = self.portraits.doubt(latents)
        return {name: float(figure) for name, figure in figures.items()}
