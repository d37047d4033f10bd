"""bfloat16 where it is quick."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device) -> torch.autocast:
    """Compute in bfloat16, but in float32 on a CPU without instructions for it.

    There bfloat16 is emulated, and a convolution takes ten times as long as in float32.
    """
    quick = device.type != "cpu" or (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return torch.autocast(device.type, torch.bfloat16, enabled=quick)
