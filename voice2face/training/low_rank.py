"""Low-rank changes of a denoiser's weights while they are trained (Hu et al. 2021, LoRA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from voice2face.errors import SettingError
from voice2face.models import Denoiser, FewStepUpdate
from voice2face.models.few_step_update import ADDED, DOWN, UP

OF_WEIGHT = ".parametrizations.weight.0"


class LowRank(nn.Module):
    """``W + up @ down``, at first W itself.

    Args:
        weight: W, ``(out, ...)``.
        rank: columns of ``up``, rows of ``down``.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter((torch.randn(rank, columns) / columns**0.5).to(weight))
        self.up = nn.Parameter(torch.zeros(rows, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the same shape."""
        return weight + (self.up @ self.down).view_as(weight)


def make_low_rank(denoiser: Denoiser, rank: int, start: FewStepUpdate | None = None) -> None:
    """Have training change the UNet's weights by low-rank ones, its vectors as a whole.

    Args:
        denoiser: to be changed.
        rank: of the changes.
        start: an update of that rank to go on from.

    Raises:
        SettingError: the update has another rank, or is of another network.
    """
    denoiser.requires_grad_(False)
    for module in list(denoiser.unet.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
    for name, parameter in denoiser.unet.named_parameters():
        parameter.requires_grad_(name.endswith((UP, DOWN)) or parameter.ndim == 1)
    if start is None:
        return
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            known = name.replace(OF_WEIGHT, ".weight")
            if known in start.tensors:
                if start.tensors[known].shape != parameter.shape:
                    raise SettingError(
                        f"the update to go on from has {known} of {[*start.tensors[known].shape]}, "
                        f"not {[*parameter.shape]}: say the --rank that it learnt with"
                    )
                parameter.copy_(start.tensors[known])
            elif known + ADDED in start.tensors:
                parameter.add_(start.tensors[known + ADDED].to(parameter))


def update_of(
    trained: Denoiser, original: Denoiser, steps: int, guidance_scale: float
) -> FewStepUpdate:
    """What training changed.

    Args:
        trained: after ``make_low_rank`` and training.
        original: as it was before.
        steps: that it learnt to take.
        guidance_scale: that it learnt.
    """
    before = dict(original.named_parameters())
    tensors = {}
    for name, parameter in trained.named_parameters():
        value = parameter.detach().cpu()
        if name.endswith((UP, DOWN)):
            tensors[name.replace(OF_WEIGHT, ".weight")] = value.clone()
        elif parameter.ndim == 1 and parameter.requires_grad:
            tensors[name + ADDED] = value - before[name].detach().cpu()
    return FewStepUpdate(tensors, steps, guidance_scale)
