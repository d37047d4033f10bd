"""From what the face decoder says to finished pictures, on the device that it ran on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from voice2face.devices import constant_on
from voice2face.watermark import marked, means_of, tiled

LANCZOS_LOBES = 3


def finish(images: Tensor, size: int, *, mark: bool) -> Tensor:
    """Bring decoded faces to their size, mark them, and round them to bytes.

    Args:
        images: ``(B, 3, H, H)`` in [-1, 1].
        size: side of the pictures.
        mark: add the watermark.

    Returns:
        ``(B, size, size, 3)`` uint8, on the same device.
    """
    levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round()
    side, device = images.shape[-1], images.device
    if side != size:
        # as Pillow resizes: rows first, rounded to whole levels after each direction
        weights = constant_on(device, lanczos, side, size)
        levels = (levels @ weights.T).round().clamp(0, 255)
        levels = (weights @ levels).round().clamp(0, 255)
    pictures = levels.permute(0, 2, 3, 1).contiguous()
    if mark:
        means, tile = constant_on(device, means_of, size), constant_on(device, tiled, size, size)
        pictures = marked(pictures, tile, means, means.T)
    return pictures.byte()


class Finishing(nn.Module):
    """``finish`` as a module, so that it can be recorded as networks are; see ``cuda_graphs``."""

    def forward(self, images: Tensor, size: int, mark: bool) -> Tensor:
        """See ``finish``."""
        return finish(images, size, mark=mark)


def lanczos(inputs: int, outputs: int) -> NDArray[np.float32]:
    """The matrix that resizes a line of pixels with Lanczos's kernel, ``(outputs, inputs)``."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)  # of the kernel, where pixels become fewer
    centres = (np.arange(outputs) + 0.5) * scale
    distances = (np.arange(inputs) + 0.5 - centres[:, None]) / stretch
    kernel = np.sinc(distances) * np.sinc(distances / LANCZOS_LOBES)
    kernel[np.abs(distances) >= LANCZOS_LOBES] = 0.0
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
