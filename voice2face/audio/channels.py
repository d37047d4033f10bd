"""Channels brought to one: their average, or where it loses nearly all of them, the loudest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the power that the loudest channel alone leaves in the average. Of two channels that are
# equally loud, this little is left where their correlation is under -0.95.
LEAST_LEFT = 0.1
AT_ONCE = 1 << 13  # samples a channel, few enough for a cache


class Mixing:
    """Whether channels cancel each other out, of a recording that comes in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: NDArray[np.float64] = np.zeros(1)
        self._squares: NDArray[np.float64] = np.zeros(1)

    def add(self, channels: NDArray[Any], average: NDArray[Any]) -> None:
        """Take note of a part.

        Args:
            channels: ``(channels, samples)``.
            average: of the channels, ``(samples,)``.
        """
        with np.errstate(all="ignore"):  # samples that are no numbers are refused elsewhere
            for start in range(0, len(average), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                exact = [one[part].astype(np.float64) for one in (*channels, average)]
                self._sums = self._sums + [one.sum() for one in exact]
                self._squares = self._squares + [one @ one for one in exact]
        self._count += len(average)

    def loudest_if_lost(self) -> int | None:
        """The loudest channel, where far less is left of it in the average than of one alone.

        Power is measured about the mean: a constant offset is no sound.
        """
        if self._count == 0:
            return None
        with np.errstate(all="ignore"):
            *powers, left = self._squares / self._count - np.square(self._sums / self._count)
            lost = left < LEAST_LEFT * max(powers) / len(powers) ** 2
        return int(np.argmax(powers)) if lost else None


def mixed(read: Callable[[], Iterator[NDArray[np.float32]]]) -> NDArray[np.float32]:
    """What ``to_mono`` gives of a recording that comes in parts, ``(samples,)``.

    Args:
        read: gives the parts, ``(samples, channels)``, from the beginning on; called again where
            the loudest channel is taken, so that no other is held.
    """
    parts, mixing = [], Mixing()
    for block in read():
        parts.append(block[:, 0] if block.shape[1] == 1 else block.mean(1))
        if block.shape[1] > 1:
            mixing.add(block.T, parts[-1])
    loudest = mixing.loudest_if_lost()
    if loudest is not None:
        parts = [block[:, loudest].copy() for block in read()]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def to_mono(channels: NDArray[Any], average: NDArray[Any]) -> NDArray[Any]:
    """The average of ``(channels, samples)``, or where it loses them the loudest channel."""
    mixing = Mixing()
    mixing.add(channels, average)
    loudest = mixing.loudest_if_lost()
    return average if loudest is None else channels[loudest]
