"""bfloat16 where it is quick."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch.nn import functional as F

from voice2face.devices import default_dtype

TIMED = 3


def mixed_precision(device: torch.device) -> torch.autocast:
    """Compute in bfloat16, but in float32 where that is quicker.

    CPUs that multiply matrices of bfloat16 in hardware convolve twice as fast in it as in float32,
    others half as fast, and those that have no instructions for it at a tenth of the speed.
    """
    if device.type == "cpu":
        quick = bfloat16_is_quicker()
    else:
        quick = default_dtype(device) is torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=quick)


@cache
def bfloat16_is_quicker() -> bool:
    """Whether this CPU convolves faster in bfloat16 than in float32, which is tried once."""
    return convolution_seconds(torch.bfloat16) < convolution_seconds(torch.float32)


@torch.no_grad()
def convolution_seconds(dtype: torch.dtype) -> float:
    """The shortest time of a few convolutions of a usual size on the CPU."""
    features, weights = torch.zeros(8, 128, 32, 32, dtype=dtype), torch.zeros(128, 128, 3, 3)
    durations = []
    for _ in range(1 + TIMED):
        begun = time.perf_counter()
        F.conv2d(features, weights.to(dtype), padding=1)
        durations.append(time.perf_counter() - begun)
    return min(durations)
