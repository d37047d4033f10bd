"""Heads for sex and age over Z^s, and what a speech encoder says of a voice with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

AGE_DECADES = ("20-29", "30-39", "40-49", "50-59", "60-69", "70+")


class SpeechEncoding(NamedTuple):
    """What the speech encoder says of a batch of windows.

    Attributes:
        embedding: Z^s, ``(batch, embedding_dim)``, unit length.
        sex_logits: ``(batch, 2)``, female and male.
        age_logits: ``(batch, 6)``, the decades of ``AGE_DECADES``.
        speaker: ``(batch, dim)``, unit length: what tells speakers apart best.
    """

    embedding: Tensor
    sex_logits: Tensor
    age_logits: Tensor
    speaker: Tensor


class AttributeHeads:
    """Heads for sex and age over Z^s, of speech encoders and of denoisers conditioned on both.

    They shape the embedding while training and give the evidence of a portrait.
    """

    dtype: torch.dtype

    def add_heads(self, embedding_dim: int) -> None:
        """Make the heads, once ``nn.Module`` is ready."""
        self.sex_head = nn.Linear(embedding_dim, 2)
        self.age_head = nn.Linear(embedding_dim, len(AGE_DECADES))

    def describe(self, embedding: Tensor) -> SpeechEncoding:
        """Attach the heads' logits to unit-length embeddings ``(batch, embedding_dim)``."""
        scaled = (embedding * embedding.shape[-1] ** 0.5).to(self.dtype)
        return SpeechEncoding(embedding, self.sex_head(scaled), self.age_head(scaled), embedding)
