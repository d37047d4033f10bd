"""How little a face check believes in portraits, for a denoiser to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from voice2face.models import FaceCheck

CONFIDENT = 0.75
LATENT_NOISE = 0.2


class FaceDoubt:
    """Mean square of what the confidence lacks of a bar that most good portraits reach.

    The latents are disturbed, so that a denoiser learns to draw faces rather than what only the
    check takes for one.

    Args:
        check: its weights stay as they are.
        portraits: Z^f, ``(N, C, H, W)``, of which the share ``CONFIDENT`` reaches the bar.
    """

    def __init__(self, check: FaceCheck, portraits: Tensor) -> None:
        self.check = check.requires_grad_(False)
        noise = torch.randn(portraits.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            confidence = check((portraits + LATENT_NOISE * noise).to(check.device))
        self.bar = confidence.quantile(1.0 - CONFIDENT)

    def __call__(self, latents: Tensor) -> Tensor:
        """The loss of Z^f ``(N, C, H, W)``, a scalar."""
        confidence = self.check(latents + LATENT_NOISE * torch.randn_like(latents))
        loss: Tensor = (self.bar - confidence).relu().square().mean()
        return loss
