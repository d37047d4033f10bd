"""Having networks compiled, or recorded, where they lie, and giving that up again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from voice2face.cuda_graphs import Graphs
from voice2face.errors import CompileError

Call = Callable[..., Any]

# those that compiled anything: this process or the ones that it was forked from
COMPILING_PROCESSES: set[int] = set()


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have networks compiled when they are next called; their types and states stay as they are.

    They are compiled for the first batch's size, which is fastest, and at a second size for all
    others.

    Args:
        networks: on the device, and staying there.
        device: for which.

    Raises:
        CompileError: nothing can be compiled for the device, or in this process.
    """
    if COMPILING_PROCESSES - {os.getpid()}:
        raise CompileError(
            "this process was forked from one that compiled, and PyTorch would wait for threads "
            "that stayed behind; compile in spawned processes, or after the fork alone"
        )
    COMPILING_PROCESSES.add(os.getpid())
    check_compiler(device)
    for network in networks:
        network.compile()
        call = network._compiled_call_impl
        assert call is not None
        network._compiled_call_impl = in_this_process(network, call)


def record_networks(networks: Iterable[nn.Module]) -> None:
    """Have networks called through CUDA graphs, recorded when they are next called.

    Those that were compiled are recorded as they were compiled.

    Args:
        networks: on a CUDA device, and staying there.
    """
    for network in networks:
        call = network._compiled_call_impl or partial(nn.Module._call_impl, network)
        network._compiled_call_impl = in_this_process(network, Graphs(call))


def leave_uncompiled(networks: Iterable[nn.Module]) -> None:
    """Have networks called as they were before they were compiled or recorded."""
    for network in networks:
        network._compiled_call_impl = None


def next_to_nothing(numbers: Tensor) -> Tensor:
    """What ``check_compiler`` compiles."""
    return numbers.sin() + 1.0


def check_compiler(device: torch.device) -> None:
    """Try whether anything can be compiled.

    Raises:
        CompileError: says why that failed, and what is needed.
    """
    try:
        torch.compile(next_to_nothing)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise CompileError(
            f"nothing can be compiled for {device}: {reason}. For a CPU, PyTorch needs a C++ "
            "compiler (g++, clang++ or Visual C++; the variable CXX names another), for CUDA a C "
            "compiler and Triton. Without compile() the pipeline works as it is"
        ) from error


def in_this_process(network: nn.Module, call: Call) -> Call:
    """The call, but in forked processes the network as it is.

    The threads that compile, or that run what was compiled, stay behind when a process forks, and
    would be waited for without end.
    """
    owner = os.getpid()

    def call_here(*inputs: Any) -> Any:
        if os.getpid() != owner:
            return nn.Module._call_impl(network, *inputs)
        return call(*inputs)

    return call_here
