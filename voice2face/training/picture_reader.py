"""Reads sex and age off pictures of faces, by the features of a network for other things."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import SEXES
from voice2face.models.attribute_heads import AGE_DECADES
from voice2face.pixels import to_model_range
from voice2face.training.latent_reader import agreement, held_out_and_train

PICTURE_SIZE = 128
MAPS_READ = 3
CELLS = 3
FARTHEST = 6.0


class PictureReader:
    """Perceptrons over ImageNet features, whose opinions are averaged.

    What it reads is as coarse as a latent reader's but errs in other ways, so that both together
    see more.

    Args:
        network: whose deepest feature maps are looked at.
        members: perceptrons.
    """

    def __init__(self, network: PerceptualLoss, members: int = 2) -> None:
        self.network = network
        self.count = members
        self.members: list[nn.Module] = []
        self.mean, self.std = torch.zeros(1), torch.ones(1)

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> Tensor:
        """``(N, size, size, 3)`` uint8 faces to ``(N, dim)`` float16."""
        device = self.network.mean.device
        size = (PICTURE_SIZE, PICTURE_SIZE)
        parts = []
        for start in tqdm(range(0, len(images), 32), desc="face features", unit="batch"):
            small = [
                cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
                for image in images[start : start + 32]
            ]
            maps = self.network.maps(to_model_range(np.stack(small)).to(device))[-MAPS_READ:]
            pooled = [F.adaptive_avg_pool2d(map_, CELLS).flatten(1) for map_ in maps]
            parts.append(torch.cat(pooled, 1).half().cpu())
        return torch.cat(parts).clone()

    def fit(
        self, images: np.ndarray, attributes: Tensor, *, epochs: int = 8, seed: int = 0
    ) -> dict[str, float]:
        """Train on pictures of faces, as they are and mirrored.

        Args:
            images: ``(N, size, size, 3)`` uint8.
            attributes: of each, ``(N, 2)``.
            epochs: passes over them.
            seed: of everything random.

        Returns:
            As ``LatentReader.fit``.
        """
        both = torch.stack([self.features(images), self.features(images[:, :, ::-1])], 1)
        self.mean, self.std = both[:, 0].float().mean(0), both[:, 0].float().std(0) + 1e-6
        sex, age = (attributes[:, 0] > 0).long(), attributes[:, 1].long()
        held_out, train = held_out_and_train(len(images), seed)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.members = [_member(both.shape[2]) for _ in range(self.count)]
        for member in self.members:
            optimizer = torch.optim.AdamW(member.parameters(), 5e-4, weight_decay=0.1)
            for _ in range(epochs):
                for rows in train[torch.randperm(len(train), generator=generator)].split(256):
                    side = torch.randint(2, (len(rows),), generator=generator)
                    logits = member(self._scaled(both[rows, side]))
                    loss = F.cross_entropy(logits[:, : len(SEXES)], sex[rows]) + F.cross_entropy(
                        logits[:, len(SEXES) :], age[rows]
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            member.eval()
        return agreement(self._read(both[held_out, 0]), attributes[held_out])

    def __call__(self, images: np.ndarray) -> Tensor:
        """Sex and age ``(N, 2)`` of faces, looked at as they are and mirrored.

        See ``heard_attributes``; the sex lies between -1 and 1.
        """
        sides = (images, images[:, :, ::-1])
        return torch.stack([self._read(self.features(side)) for side in sides]).mean(0)

    @torch.no_grad()
    def _read(self, features: Tensor) -> Tensor:
        scaled = self._scaled(features)
        logits = torch.stack([member(scaled) for member in self.members])
        sex, age = (
            part.softmax(2).mean(0) for part in logits.split([len(SEXES), len(AGE_DECADES)], 2)
        )
        decades = torch.arange(len(AGE_DECADES)) + 0.5
        return torch.stack([sex[:, 1] * 2.0 - 1.0, (age * decades).sum(1)], 1)

    def _scaled(self, features: Tensor) -> Tensor:
        return ((features.float() - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)


def _member(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(features, 128),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.Linear(128, len(SEXES) + len(AGE_DECADES)),
    )
