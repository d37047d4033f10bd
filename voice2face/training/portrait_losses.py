"""Whole portraits that a few-step denoiser draws as it learns, and who judges them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voice2face.models import Denoiser, SpeakerEncoder, SpeechEncoder
from voice2face.models.heard_attributes import heard_attributes
from voice2face.training.attribute_reader import AttributeReader
from voice2face.training.face_doubt import FaceDoubt
from voice2face.training.few_step_student import Student
from voice2face.training.latent_discriminator import DenoiserFeatures, LatentDiscriminator
from voice2face.training.latent_pairs import Batch, LatentPairs
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.trajectories import Trajectories


@dataclass(frozen=True)
class PortraitLosses:
    """Draws portraits from noise and compares them with voices and with real faces.

    Attributes:
        denoiser: that learns.
        discriminator: of its portraits' latents.
        student: how the denoiser draws.
        reader: reads sex and age off latents, where that is asked for.
        features: what the discriminator sees in latents.
        doubt: says in which portraits the face is hardly found, or misshapen.
        speech_encoder: tells sex and age of Z^s.
        train: what the teacher drew, for more voices.
        faces: real ones, whose pictures are as good as portraits are to be, with voices.
        count: of portraits that are drawn at once, 2 or more.
        learning_steps: last sampling steps through which gradients flow.
        adversarial: whether the discriminator is asked.
    """

    denoiser: Denoiser
    discriminator: LatentDiscriminator
    student: Student
    reader: AttributeReader | None
    features: DenoiserFeatures
    doubt: FaceDoubt | None
    speech_encoder: SpeechEncoder | SpeakerEncoder
    train: Trajectories
    faces: LatentPairs
    count: int
    learning_steps: int
    adversarial: bool

    @property
    def enabled(self) -> bool:
        """Whether anything judges whole portraits."""
        return self.adversarial or self.reader is not None or self.doubt is not None

    def draw(self, rng: np.random.Generator) -> tuple[Batch, Tensor, Tensor]:
        """Real faces with voices, and the voices and latents of as many portraits and more.

        The first are drawn for those voices, with the picture qualities of those faces and beside
        what goes with them, the others like some that the teacher drew, which differ more.
        """
        denoiser, train, count = self.denoiser, self.train, self.count
        compared = -(-count // 2)
        faces = self.faces.sample(rng, compared).to(denoiser.device)
        rows = torch.from_numpy(rng.integers(0, len(train.speech), count - compared))
        speech = torch.cat([faces.speech, train.speech[rows].to(faces.speech)])
        quality = torch.cat([faces.quality, train.quality[rows].to(faces.quality)])
        condition = denoiser.condition(speech, quality)
        if faces.beside is not None:
            beside = torch.cat([faces.beside, train.beside[rows].to(faces.beside)])
            condition = condition._replace(beside=beside)
        noise = torch.randn((count, *faces.clean.shape[1:]), device=denoiser.device)
        drawn = self.student.draw(denoiser, condition, noise, self.learning_steps)
        return faces, speech, drawn

    def losses(self, faces: Batch, speech: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """Of the latents of portraits of some voices.

        The discriminator compares the first of them with the real faces whose qualities they were
        asked for; it is not told of the voice: whether a portrait goes with it is for the reader
        to say. ``attributes`` is the mean square of what is read off them all less what is
        expected of what was heard; ``doubt`` is of them all, too, see ``FaceDoubt``.
        """
        nothing = drawn.new_zeros(())
        losses = {
            "attributes": self.misread(drawn, speech) if self.reader else nothing,
            "adversarial": nothing,
            "discriminator": nothing,
            "doubt": self.doubt(drawn) if self.doubt else nothing,
        }
        if not self.adversarial:
            return losses
        device = drawn.device
        with mixed_precision(device):
            voiceless = torch.zeros(len(faces.clean), dtype=torch.bool, device=device)
            told = self.features.denoiser.condition(faces.speech, faces.quality, voiceless)
            if self.features.denoiser.config.beside_channels:
                told = told._replace(beside=faces.beside)
            with torch.no_grad():
                real = self.features(faces.clean, told)
            generated = self.features(drawn[: len(faces.clean)], told)
            adversarial, discriminator = self.discriminator.losses(real, generated)
        return losses | {"adversarial": adversarial, "discriminator": discriminator}

    def misread(self, latents: Tensor, speech: Tensor) -> Tensor:
        """Mean square of what is read off latents less what is expected of what was heard."""
        assert self.reader is not None
        with torch.no_grad():
            heard = heard_attributes(self.speech_encoder.describe(speech))
        return (self.reader(latents) - self.reader.expected(heard)).square().mean()
