"""Keeping networks on the CPU and moving each to a GPU for its turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Offload:
    """Lends a small GPU to the networks whose turn it is; threads wait for each other.

    Args:
        device: where networks run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._present: set[nn.Module] = set()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[Offload], tuple[torch.device]]:
        return Offload, (self.device,)

    @contextmanager
    def turn(self, *networks: Any) -> Iterator[None]:
        """Have these networks on the device while the code inside runs.

        A turn inside another's, by a callback say, leaves what the outer one needs in its place.
        """
        with self._lock:
            arriving = set(networks) - self._present
            try:
                self._present |= arriving
                for network in arriving:
                    nn.Module.to(network, self.device)
                yield
            finally:
                for network in arriving:
                    nn.Module.to(network, "cpu")
                self._present -= arriving
