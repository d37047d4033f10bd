"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` and ``~name`` read as home folders.

    A name like ``~take.wav``, of which there is no such home, is taken as it is.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
