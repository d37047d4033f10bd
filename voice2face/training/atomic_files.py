"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place and move it there, so that a crash leaves old or new."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)
