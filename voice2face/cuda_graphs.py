"""CUDA graphs: the hundreds of kernels of a network, started as one.

A small network's kernels take a GPU less time than the host needs to start them one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Call = Callable[..., Any]

WARM_UPS = 3  # in which libraries choose their kernels and take their memory
RECORDING = threading.Lock()  # PyTorch records one graph at a time
of_this_thread = threading.local()


class Graph:
    """One recorded call: the same kernels, on the same memory, whenever it is replayed.

    Args:
        call: of tensors with as many rows each, all on one CUDA device; it never waits for it.
        inputs: an example; they become the memory that the graph reads.
        pool: of the memory between its kernels.
    """

    def __init__(self, call: Call, inputs: tuple[Any, ...], pool: Any) -> None:
        leaves, structure = tree_flatten(inputs)
        self.buffers = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        held = tree_unflatten(self.buffers, structure)
        self.device = inputs[0].device
        with RECORDING, torch.cuda.device(self.device), inside_a_recording():
            aside, current = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    call(*held)
            current.wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            # other threads may use the device meanwhile
            with torch.cuda.graph(self.graph, pool, capture_error_mode="thread_local"):
                self.answer = call(*held)

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        """What the call answers to these, no more rows than the example has; in memory of its own.

        Rows that are not given keep what they held, and nobody looks at their answers.
        """
        rows = len(inputs[0])
        for buffer, leaf in zip(self.buffers, tree_flatten(inputs)[0], strict=True):
            if isinstance(leaf, Tensor):
                buffer[:rows].copy_(leaf)
        with torch.cuda.device(self.device):
            self.graph.replay()
        return tree_map(lambda answer: answer[:rows].clone(), self.answer)


class Graphs:
    """A network's call through graphs, one for each power of two of rows.

    The size of a batch depends on how many portraits the face check refuses, and recording a graph
    takes longer than many runs of it. Threads take turns.

    Args:
        call: see ``Graph``.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.graphs: dict[tuple[Any, ...], Graph] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.done = torch.cuda.Event()
        self.turn = threading.Lock()

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Any:
        """Answer as the call does.

        Args:
            inputs: tensors, or tuples of them, of any number of rows. Whatever else there is
                is compared by its hash: each has graphs of its own.
        """
        if getattr(of_this_thread, "is_recording", False):
            return self.call(*inputs)
        kind = tuple(
            (next_power_of_two(len(leaf)), leaf.shape[1:], leaf.dtype)
            if isinstance(leaf, Tensor)
            else leaf
            for leaf in tree_flatten(inputs)[0]
        )
        with self.turn:
            # another thread's stream may still read what this one is about to overwrite
            stream = torch.cuda.current_stream(inputs[0].device)
            stream.wait_event(self.done)
            if kind not in self.graphs:
                self.graphs[kind] = Graph(self.call, filled_up(inputs), self.pool)
            answer = self.graphs[kind].replay(inputs)
            self.done.record(stream)
        return answer


@contextmanager
def inside_a_recording() -> Iterator[None]:
    """What is recorded inside of another recording is called as it is, and is part of that one."""
    of_this_thread.is_recording = True
    try:
        yield
    finally:
        of_this_thread.is_recording = False


def next_power_of_two(rows: int) -> int:
    """The least ``2**k`` that is no less."""
    return 1 << (rows - 1).bit_length()


def filled_up(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs whose tensors have ``2**k`` rows, the last ones repeated as often as that takes."""
    rows = len(inputs[0])
    added = next_power_of_two(rows) - rows

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or added == 0:
            return leaf
        return torch.cat([leaf, leaf[-1:].expand(added, *leaf.shape[1:])])

    filled: tuple[Any, ...] = tree_map(fill, inputs)
    return filled
