"""bfloat16 where it is quick."""

from __future__ import annotations

import torch

from voice2face.devices import default_dtype


def mixed_precision(device: torch.device) -> torch.autocast:
    """Compute in bfloat16, but in float32 on a device without instructions for it.

    On such a CPU bfloat16 is emulated, and a convolution takes ten times as long as in float32.
    """
    if device.type == "cpu":
        quick = torch.backends.mkldnn.is_available()
        quick = quick and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        quick = default_dtype(device) is torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=quick)
