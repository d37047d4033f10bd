"""A judge that tells sex and age decade from a face picture, trained on labelled faces.

A small perceptron reads the features of a face-recognition network that neither the face
autoencoder nor the denoiser has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from voice2face.data.tables import SEXES, FaceTable
from voice2face.errors import SettingError
from voice2face.models.attribute_heads import AGE_DECADES
from voice2face.training.losses import known_loss

# from the alignment of the 192-pixel training faces to the 112-pixel recognition template
TO_TEMPLATE = np.array([[0.479365, 0.002236, 9.7613], [-0.002236, 0.479365, 24.9783]])
ALIGNED_SIZE = 192
TEMPLATE_SIZE = 112
FEATURES = 256  # of ``FaceFeatures``
MEMBERS = 8
SEED = 0


class Verdict(NamedTuple):
    """What the judge says of each picture: ``(N,)`` index into SEXES and into AGE_DECADES."""

    sex: np.ndarray
    age: np.ndarray


class FaceFeatures:
    """Unit-length face-recognition features of aligned faces.

    Args:
        network: a TorchScript file; RGB 0 … 255, ``(N, 3, 112, 112)`` to ``(N, 256)``.

    Raises:
        SettingError: there is no such file.
    """

    def __init__(self, network: Path) -> None:
        if not network.is_file():
            raise SettingError(f"there is no {network}; docs/figures.md says what it holds")
        self.network = torch.jit.load(str(network)).eval()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        """Features ``(N, 256)`` of ``(N, size, size, 3)`` uint8 faces in the data's alignment."""
        features = []
        for start in range(0, len(images), 64):
            batch = np.stack([self._to_template(image) for image in images[start : start + 64]])
            features.append(self.network(torch.from_numpy(batch).permute(0, 3, 1, 2).float()))
        return torch.cat(features).clone()

    @staticmethod
    def _to_template(image: np.ndarray) -> np.ndarray:
        if image.shape[0] != ALIGNED_SIZE:
            image = cv2.resize(image, (ALIGNED_SIZE, ALIGNED_SIZE), interpolation=cv2.INTER_LINEAR)
        size = (TEMPLATE_SIZE, TEMPLATE_SIZE)
        return cv2.warpAffine(
            image, TO_TEMPLATE, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )


class Judge:
    """Several perceptrons over face features, whose opinions are averaged.

    One alone comes out a little different each time it is trained, by more than what sets two
    checkpoints apart.

    Args:
        features: the frozen feature network.
        members: perceptrons.
    """

    def __init__(self, features: FaceFeatures, members: int = MEMBERS) -> None:
        self.features = features
        torch.manual_seed(SEED)
        self.members = [
            nn.Sequential(
                nn.Linear(FEATURES, 256),
                nn.SiLU(),
                nn.Dropout(0.5),
                nn.Linear(256, len(SEXES) + len(AGE_DECADES)),
            )
            for _ in range(members)
        ]

    def fit(self, faces: FaceTable, *, epochs: int = 12) -> None:
        """Train on labelled faces, as they are and as poor photographs."""
        torch.manual_seed(SEED)
        rng = np.random.default_rng(SEED)
        poor = np.stack([poor_photograph(image, rng) for image in faces.images])
        features = torch.cat([self._scaled(faces.images), self._scaled(poor)])
        sex, age = (torch.from_numpy(labels).repeat(2) for labels in (faces.sex, faces.age))
        for member in self.members:
            optimizer = torch.optim.AdamW(member.parameters(), 1e-3, weight_decay=0.1)
            member.train()
            for _ in range(epochs):
                for rows in torch.randperm(len(features)).split(256):
                    logits = member(features[rows])
                    loss = known_loss(logits[:, :2], sex[rows])
                    loss = loss + known_loss(logits[:, 2:], age[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            member.eval()

    @torch.no_grad()
    def __call__(self, images: np.ndarray, people: np.ndarray | None = None) -> Verdict:
        """Judge ``(N, size, size, 3)`` uint8 faces in the data's alignment.

        Each face is looked at as it is and mirrored. With ``people``, ``(N,)`` names, all faces
        of a person count for each of them.
        """
        mirrored = np.ascontiguousarray(images[:, :, ::-1])
        features = torch.stack([self._scaled(images), self._scaled(mirrored)])
        logits = torch.cat([member(features) for member in self.members])
        sex, age = (
            part.softmax(2).mean(0).numpy() for part in logits.split([2, len(AGE_DECADES)], 2)
        )
        if people is not None:
            same = (people[:, None] == people[None]).astype(float)
            sex, age = same @ sex, same @ age
        return Verdict(sex.argmax(1), age.argmax(1))

    def _scaled(self, images: np.ndarray) -> Tensor:
        features = self.features(images)
        return features * features.shape[1] ** 0.5


def poor_photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face as a bad camera shows it: mirrored or not, blurred, too dark or too bright."""
    size = image.shape[0]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    small = max(8, round(size * rng.uniform(0.15, 0.6)))
    image = cv2.resize(np.ascontiguousarray(image), (small, small), interpolation=cv2.INTER_AREA)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    scaled = (image / 255.0) ** np.exp(rng.uniform(-0.6, 0.8)) * rng.uniform(0.5, 1.1)
    return (scaled.clip(0.0, 1.0) * 255.0).astype(np.uint8)
