"""Where the networks run, and what to say when that place is missing or full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from voice2face.errors import DeviceError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; for ``None`` and ``"auto"`` CUDA, else MPS, else the CPU.

    Raises:
        DeviceError: not a device's name, or not there.
    """
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"{device!r} is no device; use auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("CUDA is not available here; use device='cpu' or 'auto'")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("MPS is not available here; use device='cpu' or 'auto'")
    return chosen


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn running out of memory into an error that says what to do.

    Raises:
        DeviceError: the code inside ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise DeviceError(
            f"{device} ran out of memory; make fewer pictures at once or use the CPU"
        ) from error
