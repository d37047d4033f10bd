"""Losses of stage 1, and the weighted sum of those of all stages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voice2face.data.tables import UNKNOWN, VoiceTable
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
