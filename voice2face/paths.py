"""Paths as people write them."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path
from typing import IO

from voice2face.errors import AudioNotFoundError

STANDARD_INPUT = Path("-")
STANDARD_OUTPUT = "-"
WILDCARDS = frozenset("*?[")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` and ``~name`` read as home folders.

    A name like ``~take.wav``, of which there is no such home, is taken as it is.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def is_folder(path: Path) -> bool:
    """Whether a folder is there; false where the system does not say, as of names too long.

    There, pathlib's own questions raise in Python before 3.14.
    """
    return os.path.isdir(path)  # noqa: PTH112


def names_folder(written: str) -> bool:
    """Whether a path is written as a folder's, with a slash at its end."""
    return written.endswith(("/", os.sep))


def is_file(path: Path) -> bool:
    """Whether a file is there, as ``is_folder``."""
    return os.path.isfile(path)  # noqa: PTH113


def exists(path: Path) -> bool:
    """Whether anything is there, as ``is_folder``."""
    return os.path.exists(path)  # noqa: PTH110


def matching(path: Path) -> list[Path]:
    """What a path names: itself, or what ``*.wav`` stands for, which Windows' shells do not expand.

    Returns:
        The path where it is there, or is no pattern; else what matches, in order, if anything.
    """
    if exists(expanded(path)) or WILDCARDS.isdisjoint(str(path)):
        return [path]
    return [Path(found) for found in sorted(glob.glob(str(expanded(path))))]  # noqa: PTH207


def resolved(path: str | os.PathLike[str]) -> str:
    """The one absolute path of a place, without links, as far as the system says."""
    return os.path.realpath(path)


def recording_of(path: Path) -> Path | IO[bytes]:
    """The recording that a command line names, ``-`` for standard input.

    Raises:
        AudioNotFoundError: standard input is closed.
    """
    if path == STANDARD_INPUT and sys.stdin is None:
        raise AudioNotFoundError("standard input is closed; name a recording, or give one there")
    return sys.stdin.buffer if path == STANDARD_INPUT else path
