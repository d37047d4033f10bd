"""How much fine detail decoded pictures have, and how strongly their patches show."""

from __future__ import annotations

import torch
from torch import Tensor

DETAIL = (1 / 12, 1 / 4)  # cycles a pixel: of 192 pixels, waves of 4 to 12 pixels


def power_spectrum(images: Tensor) -> Tensor:
    """Mean power of the waves in pictures ``(B, 3, H, H)``, made grey: ``(H, H)``.

    Entry (y, x) is of the waves that rise and fall y times from top to bottom and x times from left
    to right. The pictures' margins are faded out (Hann).
    """
    grey = images.float().mean(1)
    fade = torch.hann_window(grey.shape[-1], periodic=False, device=grey.device)
    faded = (grey - grey.mean((1, 2), keepdim=True)) * fade * fade[:, None]
    return torch.fft.fft2(faded).abs().square().mean(0)


def detail_ratio(decoded: Tensor, photographs: Tensor) -> float:
    """Power of fine waves in decoded pictures, 1 where it is that of the photographs."""
    frequencies = torch.fft.fftfreq(decoded.shape[-1])
    radius = torch.hypot(frequencies[:, None], frequencies)
    fine = (radius >= DETAIL[0]) & (radius < DETAIL[1])
    of_decoded, of_photographs = (power_spectrum(one)[fine] for one in (decoded, photographs))
    return float(of_decoded.mean() / of_photographs.mean())


def patch_pattern_ratio(decoded: Tensor, photographs: Tensor, patch_size: int) -> float:
    """Power of the diagonal waves as long as a decoder's patches, 1 where it is the photographs'.

    A decoder that writes patches side by side leaves a faint grid, or a weave, of that period.
    """
    waves = decoded.shape[-1] // patch_size
    of_decoded, of_photographs = (
        power_spectrum(one)[[waves, waves], [waves, -waves]].mean()
        for one in (decoded, photographs)
    )
    return float(of_decoded / of_photographs)
