"""Reads sex and age off face latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.models.heard_attributes import ATTRIBUTES

NOISE = 0.15
HELD_OUT = 0.1


class LatentReader(nn.Module):
    """The mean opinion of several small convolutional networks.

    Args:
        channels: of the latents.
        size: their side in positions.
        members: networks.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, size: int, members: int = 3) -> None:
        super().__init__()
        self.members = nn.ModuleList(_member(channels, size) for _ in range(members))
        self.register_buffer("mean", torch.zeros(channels, size, size))
        self.register_buffer("std", torch.ones(channels, size, size))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents ``(N, C, H, W)`` to sex and age ``(N, 2)``, see ``heard_attributes``."""
        scaled = (latents - self.mean) / self.std
        return torch.stack([member(scaled) for member in self.members]).mean(0)

    def fit(
        self, latents: Tensor, attributes: Tensor, *, epochs: int = 15, seed: int = 0
    ) -> dict[str, float]:
        """Train on latents of faces.

        Args:
            latents: ``(N, C, H, W)``.
            attributes: of each, ``(N, 2)``.
            epochs: passes over them.
            seed: of everything random.

        Returns:
            On the tenth that was held out: the share whose sex is read right, and the correlation
            of the ages.
        """
        held_out, train = held_out_and_train(len(latents), seed)
        generator = torch.Generator().manual_seed(seed)
        self.mean.copy_(latents[train].mean(0))
        self.std.copy_(latents[train].std(0) + 1e-3)
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(self.parameters(), 1e-3, weight_decay=0.05)
        self.train()
        for epoch in range(epochs):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - epoch / epochs)
            for rows in train[torch.randperm(len(train), generator=generator)].split(64):
                scaled = (latents[rows] - self.mean) / self.std
                shown = scaled + NOISE * torch.randn_like(scaled)
                losses = [F.mse_loss(member(shown), attributes[rows]) for member in self.members]
                optimizer.zero_grad()
                torch.stack(losses).sum().backward()
                optimizer.step()
        self.eval().requires_grad_(False)
        read, true = self(latents[held_out]), attributes[held_out]
        return agreement(read, true)


def held_out_and_train(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the tenth that readers of that seed do not see, and of all others."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out, train = order.tensor_split([max(2, int(HELD_OUT * count))])
    return held_out, train


def agreement(read: Tensor, true: Tensor) -> dict[str, float]:
    """The share whose sex is read right, and the correlation of the ages; both ``(N, 2)``."""
    return {
        "sex": float((read[:, 0].sign() == true[:, 0].sign()).float().mean()),
        "age_correlation": float(torch.corrcoef(torch.stack([read[:, 1], true[:, 1]]))[0, 1]),
    }


def _member(channels: int, size: int) -> nn.Module:
    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        return [convolution, nn.GroupNorm(8, outputs), nn.SiLU()]

    return nn.Sequential(
        *block(channels, 64),
        *block(64, 128, stride=2),
        nn.Dropout2d(0.2),
        *block(128, 128),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(128 * ((size + 1) // 2) ** 2, len(ATTRIBUTES)),
    )
