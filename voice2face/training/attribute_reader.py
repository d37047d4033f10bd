"""Reads sex and age off latents, so that a loss may ask for what is heard to be seen."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable
from voice2face.errors import SettingError
from voice2face.models.heard_attributes import ATTRIBUTES
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.kept_files import fingerprint, kept_in
from voice2face.training.latent_pairs import labelled_attributes
from voice2face.training.latent_reader import LatentReader, held_out_and_train
from voice2face.training.picture_reader import PictureReader

logger = logging.getLogger("voice2face.training")

AT_ONCE = 64
EMPHASIS = 1.5


class AttributeReader(nn.Module):
    """The mean opinion of several readers of latents, and what it should be.

    Opinions of faces that are hard to read lie nearer to the middle than the truth. ``expected``
    says what to ask for: what is read on average off faces of an age, further from the middle by
    ``EMPHASIS``, so that a portrait looks its age more clearly than the average photograph.

    Args:
        readers: of the same latents.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, readers: list[LatentReader]) -> None:
        super().__init__()
        self.readers = nn.ModuleList(readers)
        self.register_buffer("slope", torch.ones(len(ATTRIBUTES)))
        self.register_buffer("offset", torch.zeros(len(ATTRIBUTES)))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents ``(N, C, H, W)`` to sex and age ``(N, 2)``, see ``heard_attributes``."""
        return torch.stack([reader(latents) for reader in self.readers]).mean(0)

    def expected(self, attributes: Tensor) -> Tensor:
        """What should be read off a portrait of such sex and age, ``(N, 2)``."""
        return self.slope * attributes + self.offset

    @torch.no_grad()
    def calibrate(self, latents: Tensor, attributes: Tensor) -> None:
        """Learn what to expect from faces that no reader saw, ``(N, C, H, W)`` and ``(N, 2)``."""
        read = torch.cat([self(part) for part in latents.split(AT_ONCE)])
        middle = attributes.mean(0)
        spread = attributes - middle
        self.slope.copy_((spread * read).mean(0) / spread.square().mean(0).clamp_min(1e-6))
        self.slope.mul_(torch.tensor([1.0, EMPHASIS]))
        self.offset.copy_(read.mean(0) - self.slope * middle)


def trained_reader(
    teacher: Voice2FacePipeline,
    faces: FaceTable,
    latents: Tensor,
    portraits: Tensor,
    perceptual_weights: Path,
    kept: Path,
    seed: int,
) -> AttributeReader:
    """A reader of the teacher's latents, kept in a folder and read from there the next time.

    One part learns from labelled faces, the other from portraits, off whose pictures a
    ``PictureReader`` reads sex and age.

    Args:
        teacher: decodes portraits.
        faces: labelled ones.
        latents: their Z^f, ``(faces, C, H, W)``.
        portraits: Z^f that the teacher drew, ``(N, C, H, W)``.
        perceptual_weights: of the network whose features the picture reader looks at.
        kept: the folder.
        seed: of everything random.

    Raises:
        SettingError: no face is labelled, or what is kept was learnt from something else.
    """
    of_faces, of_portraits = (LatentReader(*portraits.shape[1:3]) for _ in range(2))
    reader = AttributeReader([of_faces, of_portraits])
    attributes = labelled_attributes(faces, np.arange(len(faces)), np.random.default_rng(seed))
    known = attributes.isfinite().all(1)
    if not known.any():
        raise SettingError("no face is labelled with sex and age: give --attribute-weight 0")

    network = PerceptualLoss(perceptual_weights)

    def learn() -> dict[str, Tensor]:
        of_known, labels = latents[known], attributes[known]
        figures = of_faces.fit(of_known, labels, seed=seed)
        logger.info("reader of faces' latents: %s", figures)
        pictures = PictureReader(network.to(teacher.device))
        figures = pictures.fit(faces.images[known.numpy()], labels, seed=seed)
        logger.info("reader of pictures: %s", figures)
        seen = pictures(decode_portraits(teacher, portraits))
        figures = of_portraits.fit(portraits, seen, seed=seed)
        logger.info("reader of portraits' latents: %s", figures)
        held_out, _ = held_out_and_train(len(of_known), seed)
        reader.calibrate(of_known[held_out], labels[held_out])
        return reader.state_dict()

    drawn = (teacher.face_decoder, portraits)
    made_of = fingerprint(*drawn, latents, attributes, network, [seed])
    reader.load_state_dict(kept_in(kept / "reader.safetensors", made_of, learn))
    return reader.eval().requires_grad_(False).to(teacher.device)


def decode_portraits(teacher: Voice2FacePipeline, portraits: Tensor) -> np.ndarray:
    """Pictures ``(N, size, size, 3)`` uint8 of portraits ``(N, C, H, W)``."""
    parts = [
        teacher.decode(part.to(teacher.device), watermark=False)
        for part in tqdm(portraits.split(AT_ONCE), desc="portraits", unit="batch")
    ]
    return np.concatenate(parts)
