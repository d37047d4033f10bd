"""Convolutional block attention (Woo et al. 2018, CBAM): which channels, then which positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weigh channels by a shared perceptron over their average and their maximum."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        average = self.perceptron(features.mean((2, 3)))
        maximum = self.perceptron(features.amax((2, 3)))
        return features * torch.sigmoid(average + maximum)[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weigh positions by a convolution over the channels' average and maximum."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, features: Tensor) -> Tensor:
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * torch.sigmoid(self.conv(summary))


class CBAM(nn.Sequential):
    """Channel attention followed by spatial attention; keeps the shape ``(B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(ChannelAttention(channels), SpatialAttention())
