"""Sex and age in two numbers, as a voice tells them or as the label of a face says."""

from __future__ import annotations

import torch
from torch import Tensor

from voice2face.models.attribute_heads import SpeechEncoding

ATTRIBUTES = ("sex", "age")
MIDDLE_DECADE = 2.0
SPREAD_DECADES = 1.5
OLDEST_DECADE = 6.0


def heard_attributes(encoding: SpeechEncoding) -> Tensor:
    """What is most plausible of a voice.

    The age is the median of the heads' distribution, which misses the true one by the least on
    average; the share of its decade that lies below the median places it within the decade.

    Returns:
        ``(batch, 2)``: sex, -1 for female and 1 for male, and age in decades above 20.
    """
    sex = encoding.sex_logits.argmax(1).float() * 2.0 - 1.0
    share = encoding.age_logits.float().softmax(1)
    cumulative = share.cumsum(1)
    decade = (cumulative < 0.5).sum(1, keepdim=True).clamp(max=share.shape[1] - 1)
    reached, within = cumulative.gather(1, decade), share.gather(1, decade)
    age = decade + 1.0 - (reached - 0.5) / within
    return torch.stack([sex, age[:, 0]], 1)


def emphasised_attributes(attributes: Tensor, emphasis: float) -> Tensor:
    """Sex and age farther from the middle than heard, as a denoiser that follows too little needs.

    Args:
        attributes: ``(batch, 2)`` as ``heard_attributes`` returns them.
        emphasis: how many times as far; 1 changes nothing. No age leaves the decades of adults that
            occur in training.
    """
    sex, age = attributes.split(1, 1)
    age = MIDDLE_DECADE + emphasis * (age - MIDDLE_DECADE)
    return torch.cat([emphasis * sex, age.clamp(0.0, OLDEST_DECADE)], 1)


def standardised_attributes(attributes: Tensor) -> Tensor:
    """``(batch, 3)``: both numbers at a like scale and a flag; zeros where one is not a number."""
    known = attributes.isfinite().all(1, keepdim=True)
    sex, age = attributes.nan_to_num().split(1, 1)
    scaled = torch.cat([sex, (age - MIDDLE_DECADE) / SPREAD_DECADES, torch.ones_like(sex)], 1)
    return scaled * known
