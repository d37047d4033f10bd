"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from voice2face.errors import OutputError


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


def check_folder_of(path: Path) -> None:
    """Refuse a file whose folder is not there, before the work that it is to hold.

    Raises:
        OutputError: says so.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is not a folder; make it first")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; choose another place"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name the file to write in it")
        replace_file(path, lambda partial: partial.write_bytes(data))
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {reason}; choose another place") from error
