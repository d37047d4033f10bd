"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there, so that a crash leaves old or new.

    Args:
        path: the file's place.
        write: writes what belongs there to the path it is given; its errors are passed on.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
