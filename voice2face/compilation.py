"""Compiling networks where they lie with ``torch.compile``, and giving that up again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from voice2face.errors import CompileError

BACKENDS = ("onnxruntime", "inductor")
Call = Callable[..., Tensor]


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have networks compiled when they are next called; their types and states stay as they are.

    They are compiled for the first batch's size, which is fastest, and at a second size for all
    others. On CUDA a network's kernels are launched together, as a CUDA graph that is recorded for
    each size.

    Args:
        networks: on the device, and staying there.
        device: for which.

    Raises:
        CompileError: nothing can be compiled for the device.
    """
    check_compiler(device)
    for network in networks:
        if device.type == "cuda":
            nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.compile(mode="reduce-overhead")
            assert network._compiled_call_impl is not None
            network._compiled_call_impl = in_the_graphs_thread(network._compiled_call_impl, device)
        else:
            network.compile()


def leave_uncompiled(networks: Iterable[nn.Module]) -> None:
    """Have networks called as they were before ``compile_networks``."""
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


def in_the_graphs_thread(call: Call, device: torch.device) -> Call:
    """A call made in one thread for all: CUDA graphs belong to the thread that recorded them.

    The answer is a copy, since the graph's next run overwrites what it answered.
    """

    @torch.no_grad()
    def run(stream: torch.cuda.Stream, inputs: tuple[Any, ...]) -> Tensor:
        with torch.cuda.stream(stream):
            torch.compiler.cudagraph_mark_step_begin()
            return call(*inputs).clone()

    def call_there(*inputs: Any) -> Tensor:
        return graphs_thread().submit(run, torch.cuda.current_stream(device), inputs).result()

    return call_there


@lru_cache(maxsize=1)
def graphs_thread() -> ThreadPoolExecutor:
    """The thread, one a process, that records and runs CUDA graphs."""
    return ThreadPoolExecutor(1, "voice2face-cuda-graphs")
