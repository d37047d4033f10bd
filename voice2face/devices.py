"""Where the networks run, and what to say when that place is missing or full."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from voice2face.errors import DeviceError

NETWORK_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BFLOAT16_CAPABILITY = (8, 0)  # of CUDA devices that compute in it
LACKS_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "out of memory"),  # Linux, Windows, CUDA
    "ALLOC_FAILED",  # CUDA's libraries
)

if hasattr(os, "register_at_fork"):
    # OpenMP's threads are lost in a fork, and work shared out among them would never be done
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


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
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"{device!r} is no device; use auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "meta":
        raise DeviceError("nothing is computed on meta; use auto, cpu, cuda, cuda:1 or mps")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("CUDA is not available here; use device='cpu' (--device cpu) or 'auto'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"there is no {chosen} here, only {torch.cuda.device_count()} CUDA devices, from cuda:0"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("MPS is not available here; use device='cpu' (--device cpu) or 'auto'")
    return chosen


def default_dtype(device: torch.device) -> torch.dtype:
    """The floating-point type that networks have on a device unless another is asked for.

    GPUs before Ampere have no instructions for bfloat16: there it is slow, or fails.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY:
        return torch.bfloat16
    return torch.float32


def memory_format(device: torch.device) -> torch.memory_format:
    """How convolutions' weights lie in memory where they are quickest.

    Convolutions of CPUs and of CUDA want the channels last, and rearrange their input if the
    weights do not tell that it lies so already.
    """
    wanted = device.type in ("cpu", "cuda")
    return torch.channels_last if wanted else torch.contiguous_format


def move(network: torch.nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Bring a network's weights to a device, as they are quickest there.

    Args:
        network: is changed.
        device: where to.
        dtype: of floating-point weights from now on; ``None`` leaves them as they are.
    """
    torch.nn.Module.to(  # type: ignore[call-overload] # diffusers' own warns of half precision
        network, device, dtype, memory_format=memory_format(device)
    )


@cache
def constant_on(device: torch.device, make: Callable[..., Any], *given: Any) -> Tensor:
    """A tensor, or a NumPy array, of the same numbers every time: made once, kept on a device.

    It is float32, whatever PyTorch's default type is.

    Bringing numbers to a GPU makes the host wait, and cannot be recorded; see ``cuda_graphs``. What
    was recorded goes on reading them where they lie, so none is ever given up.
    """
    return torch.as_tensor(make(*given), dtype=torch.float32, device=device)


@contextmanager
def own_types(device: torch.device) -> Iterator[None]:
    """Have networks compute in their own types, whatever ``torch.autocast`` the caller is within.

    That of the CPU ends, too, where a GPU's networks are given what was computed.
    """
    with torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
        yield


class AtOnce(NamedTuple):
    """How many of a large batch a network is given at once."""

    latents: int
    pictures: int


def at_once(device: torch.device) -> AtOnce:
    """What a device computes quickest at once, with memory to spare.

    A GPU waits for the host, which starts kernels one by one: the fewer batches, the better. On a
    CPU larger ones are no quicker, and the activations of pictures leave the caches.
    """
    return AtOnce(1024, 64) if device.type == "cuda" else AtOnce(256, 16)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in LACKS_OF_MEMORY)


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn running out of memory into an error that says what to do.

    Raises:
        DeviceError: the code inside ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        elsewhere = "" if device.type == "cpu" else " or use the CPU"
        raise DeviceError(
            f"{device} ran out of memory; make fewer pictures at once{elsewhere}"
        ) from error
