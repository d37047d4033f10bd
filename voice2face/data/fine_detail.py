"""How much fine detail decoded pictures have."""

from __future__ import annotations

import torch
from torch import Tensor

DETAIL = (1 / 6, 1 / 3)  # cycles a pixel: waves of 3 to 6 pixels


def power_spectrum(images: Tensor) -> Tensor:
    """Mean power of the waves in pictures ``(N, 3, H, H)``, made grey: ``(H, H)``.

    Entry (y, x) is of the waves that rise and fall y times from top to bottom and x times from left
    to right. The pictures' margins are faded out (Hann).
    """
    fade = torch.hann_window(images.shape[-1], periodic=False)
    power = torch.zeros(images.shape[-2:])
    for part in images.split(64):
        grey = part.float().mean(1).cpu()
        faded = (grey - grey.mean((1, 2), keepdim=True)) * fade * fade[:, None]
        power += torch.fft.fft2(faded).abs().square().sum(0)
    return power / len(images)


def detail_ratio(decoded: Tensor, photographs: Tensor) -> float:
    """Power of fine waves in decoded pictures, 1 where it is that of the photographs.

    Both are ``(N, 3, H, H)`` in the same range of values; N may differ.
    """
    frequencies = torch.fft.fftfreq(decoded.shape[-1])
    radius = torch.hypot(frequencies[:, None], frequencies)
    fine = (radius >= DETAIL[0]) & (radius < DETAIL[1])
    of_decoded, of_photographs = (power_spectrum(one)[fine] for one in (decoded, photographs))
    return float(of_decoded.mean() / of_photographs.mean())
