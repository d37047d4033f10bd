"""Compiling networks where they lie with ``torch.compile``, and giving that up again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils._pytree import tree_map

from voice2face.errors import CompileError

BACKENDS = ("onnxruntime", "inductor")
Call = Callable[..., Tensor]

# those that compiled anything: this process or the ones that it was forked from
COMPILING_PROCESSES: set[int] = set()

# of the process; it starts when it is first needed
GRAPHS_THREAD = ThreadPoolExecutor(1, "voice2face-cuda-graphs")


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have networks compiled when they are next called; their types and states stay as they are.

    They are compiled for the first batch's size, which is fastest, and at a second size for all
    others. On CUDA a network's kernels are launched together, as a CUDA graph; one is recorded for
    each power of two, to which batches are filled up.

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
        if device.type == "cuda":
            convert_conv2d_weight_memory_format(network, torch.channels_last)
            network.compile(mode="reduce-overhead")
        else:
            network.compile()
        call = network._compiled_call_impl
        assert call is not None
        if device.type == "cuda":
            call = in_the_graphs_thread(call, device)
        network._compiled_call_impl = in_this_process(network, call)


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


def in_this_process(network: nn.Module, call: Call) -> Call:
    """The call, but in forked processes the network as it is.

    The threads that compile, or that run what was compiled, stay behind when a process forks, and
    would be waited for without end.
    """
    owner = os.getpid()

    def call_here(*inputs: Any) -> Tensor:
        if os.getpid() != owner:
            answer: Tensor = nn.Module._call_impl(network, *inputs)  # type: ignore[attr-defined]
            return answer
        return call(*inputs)

    return call_here


def filled_up(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs whose tensors have ``2**k`` rows, the last ones repeated as often as that takes.

    The size of a batch hangs on how many portraits the face check refuses, and recording a graph
    takes longer than many runs of it.
    """
    rows = len(inputs[0])
    added = (1 << (rows - 1).bit_length()) - rows

    def fill(value: Any) -> Any:
        if not isinstance(value, Tensor) or added == 0:
            return value
        return torch.cat([value, value[-1:].expand(added, *value.shape[1:])])

    filled: tuple[Any, ...] = tree_map(fill, inputs)
    return filled


def in_the_graphs_thread(call: Call, device: torch.device) -> Call:
    """The call, made in one thread for all: CUDA graphs belong to the thread that recorded them.

    The answer is a copy, since the graph's next run overwrites what it answered.
    """

    @torch.no_grad()
    def run(stream: torch.cuda.Stream, inputs: tuple[Any, ...]) -> Tensor:
        with torch.cuda.stream(stream):
            torch.compiler.cudagraph_mark_step_begin()
            return call(*filled_up(inputs))[: len(inputs[0])].clone()

    def call_there(*inputs: Any) -> Tensor:
        return GRAPHS_THREAD.submit(run, torch.cuda.current_stream(device), inputs).result()

    return call_there
