"""What distillation adds to a denoiser's weights, so that it draws in a few steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voice2face.errors import ArchitectureError
from voice2face.models.denoiser import Denoiser
from voice2face.tensor_files import save_tensors

UPDATE_FILE = "update.safetensors"
FORMAT = "voice2face few-step update 1"
UP, DOWN, ADDED = ".up", ".down", ".added"
MOST_STEPS = 100
KINDS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class FewStepUpdate:
    """Low-rank matrices for a denoiser's weights (Hu et al. 2021, LoRA), whole ones for the rest.

    A weight ``W`` of ``(out, ...)`` becomes ``W + (up @ down)`` in W's shape; a vector ``b``
    becomes ``b + added``. The denoiser so made needs no second look without the voice: guidance is
    learnt in.

    Attributes:
        tensors: by the parameter's name and ``.up`` ``(out, rank)``, ``.down`` ``(rank, in)`` or
            ``.added`` (the vector's shape).
        steps: of DDIM, evenly spaced, that it was trained to take.
        guidance_scale: that was learnt in.
    """

    tensors: Mapping[str, Tensor]
    steps: int
    guidance_scale: float

    def applied_to(self, denoiser: Denoiser) -> Denoiser:
        """A copy of the denoiser with the update in its weights.

        Raises:
            ArchitectureError: the update is of another denoiser.
        """
        changed = copy.deepcopy(denoiser)
        parameters = dict(changed.named_parameters())
        with torch.no_grad():
            for name in changed_parameters(self.tensors):
                if name not in parameters:
                    raise ArchitectureError(f"the few-step update changes {name}, which is missing")
                weight = parameters[name]
                if self.size_of(name) != weight.numel():
                    raise ArchitectureError(
                        f"the few-step update of {name} has {self.size_of(name)} numbers, the "
                        f"denoiser's weight {weight.numel()}"
                    )
                change = self.change_of(name)
                if len(change) != len(weight):
                    raise ArchitectureError(
                        f"the few-step update of {name} is {list(change.shape)}, the denoiser's "
                        f"weight {list(weight.shape)}"
                    )
                weight.add_(change.view_as(weight).to(weight))
        return changed

    def size_of(self, name: str) -> int:
        """Into how many numbers of a parameter the update adds; 0 where it is incomplete."""
        empty = torch.empty(0)
        if name + ADDED in self.tensors:
            return self.tensors[name + ADDED].numel()
        up, down = (self.tensors.get(name + part, empty) for part in (UP, DOWN))
        return len(up) * (down.numel() // max(1, len(down)))

    def change_of(self, name: str) -> Tensor:
        """What is added to one parameter, a matrix for a weight, a vector for a bias; float32.

        Raises:
            ArchitectureError: its matrices are missing or do not go together.
        """
        try:
            if name + ADDED in self.tensors:
                return self.tensors[name + ADDED].float()
            return self.tensors[name + UP].float() @ self.tensors[name + DOWN].float()
        except (KeyError, RuntimeError) as error:
            raise ArchitectureError(
                f"the few-step update of {name} is unusable: {error}"
            ) from error

    def save_pretrained(self, folder: Path) -> None:
        """Write the update as ``update.safetensors``, in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.half().contiguous() for name, tensor in self.tensors.items()}
        metadata = {
            "format": FORMAT,
            "steps": str(self.steps),
            "guidance_scale": str(self.guidance_scale),
        }
        save_tensors(tensors, folder / UPDATE_FILE, metadata)

    @classmethod
    def load(cls, folder: Path) -> FewStepUpdate:
        """Read what ``save_pretrained`` wrote.

        Raises:
            ArchitectureError: the file is missing, damaged, or holds something else.
        """
        file = folder / UPDATE_FILE
        try:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ArchitectureError(f"{file} holds no few-step update of this version")
                steps = int(metadata.get("steps", "0"))
                guidance_scale = float(metadata.get("guidance_scale", "nan"))
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise ArchitectureError(f"{file} cannot be read: {error}") from error
        if not 1 <= steps <= MOST_STEPS or not 0.0 <= guidance_scale <= 20.0:
            raise ArchitectureError(f"{file} is of {steps} steps at guidance {guidance_scale}")
        for name, tensor in tensors.items():
            if tensor.dtype not in KINDS or not bool(torch.isfinite(tensor).all()):
                raise ArchitectureError(f"{file}: {name} holds no finite numbers of 16 or 32 bits")
        return cls(tensors, steps, guidance_scale)


def changed_parameters(names: Iterable[str]) -> list[str]:
    """Names of the parameters that an update's tensors change."""
    return sorted({name.rpartition(".")[0] for name in names})
