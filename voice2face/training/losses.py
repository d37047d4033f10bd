"""Losses of the two stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.data.tables import UNKNOWN, VoiceTable
from voice2face.errors import SettingError
from voice2face.models.attribute_heads import SpeechEncoding


def contrastive_loss(speech: Tensor, face: Tensor, matches: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy between speech and face embeddings.

    With one match a row this is the loss of SCLDM's stage 1; where several rows match (people of
    the same sex and age decade, say) each of them is as right as the others.

    Args:
        speech: ``(batch, dim)`` unit vectors.
        face: ``(batch, dim)`` unit vectors.
        matches: ``(batch, batch)`` boolean, entry (i, j): voice i may belong to face j.
        log_scale: scalar, the logarithm of the inverse temperature.
    """
    logits = log_scale.exp().clamp(max=100.0) * speech @ face.T
    target = matches.to(logits.dtype)
    to_face = target / target.sum(1, keepdim=True).clamp(min=1.0)
    to_speech = target / target.sum(0, keepdim=True).clamp(min=1.0)
    forward = -(to_face * logits.log_softmax(1)).sum(1).mean()
    backward = -(to_speech * logits.log_softmax(0)).sum(0).mean()
    return (forward + backward) / 2


def known_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, mean over the rows ``(N, classes)`` whose label ``(N,)`` is known."""
    known = labels != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known], labels[known], label_smoothing=label_smoothing)


def age_loss(logits: Tensor, age: Tensor) -> Tensor:
    """Cross-entropy to the decade with some weight on its neighbours; unknown ages don't count."""
    known = age != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    decades = torch.arange(logits.shape[1], device=logits.device)
    distance = (decades[None] - age[known][:, None]).abs().float()
    target = torch.softmax(-1.5 * distance, dim=1)
    return F.cross_entropy(logits[known], target)


def head_losses(
    encoding: SpeechEncoding, voices: VoiceTable, rows: np.ndarray
) -> dict[str, Tensor]:
    """Losses of a speech encoder's heads for sex and age on some rows of a table."""
    device = encoding.sex_logits.device
    sex, age = (torch.from_numpy(labels[rows]).to(device) for labels in (voices.sex, voices.age))
    return {
        "sex": known_loss(encoding.sex_logits.float(), sex, label_smoothing=0.05),
        "age": age_loss(encoding.age_logits.float(), age),
    }


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Losses with their weighted sum as ``loss``; what has no weight counts once."""
    parts = [weights.get(name, 1.0) * value for name, value in losses.items()]
    return {**losses, "loss": torch.stack(parts).sum()}


class Fire(nn.Module):
    """SqueezeNet's squeeze and expand."""

    def __init__(self, channels_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(features))
        return F.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1))


class PerceptualLoss(nn.Module):
    """LPIPS-style distance (Zhang et al. 2018): squared difference of unit-normalised features.

    Args:
        weights: a safetensors file of ImageNet SqueezeNet 1.0 features, torchvision's names;
            ``None`` leaves the features random.

    Raises:
        SettingError: there is no such file.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 96, 7, stride=2),
                "3": Fire(96, 16, 64),
                "4": Fire(128, 16, 64),
                "5": Fire(128, 32, 128),
                "7": Fire(256, 32, 128),
                "8": Fire(256, 48, 192),
                "9": Fire(384, 48, 192),
                "10": Fire(384, 64, 256),
                "12": Fire(512, 64, 256),
            }
        )
        if weights is not None and not weights.is_file():
            raise SettingError(f"there is no {weights}; docs/training.md says how to make it")
        if weights is not None:
            self.load_state_dict(load_file(weights))
        self.requires_grad_(False)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of RGB pictures in [-1, 1], each position of unit length."""
        features = ((images + 1) / 2 - self.mean) / self.std
        collected = []
        for name, layer in self.features.items():
            if name in {"3", "7", "12"}:
                features = F.max_pool2d(features, 3, 2, ceil_mode=True)
            features = F.relu(layer(features)) if name == "0" else layer(features)
            if name in {"0", "4", "7", "9", "12"}:
                collected.append(F.normalize(features.float(), dim=1))
        return collected

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Scalar distance between two batches of pictures ``(B, 3, H, W)`` in [-1, 1]."""
        with torch.no_grad():
            wanted = self.maps(target)
        distances = [
            (one - other).square().sum(1).mean()
            for one, other in zip(self.maps(images), wanted, strict=True)
        ]
        return torch.stack(distances).mean()
