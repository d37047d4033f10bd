"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voice2face.errors import OutputError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def partial_in(folder: Path) -> Path:
    """A new name for a file that is not whole yet."""
    return folder / f".{secrets.token_hex(8)}.partial"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there, so that a crash leaves old or new.

    Args:
        path: the file's place.
        write: writes what belongs there to the path it is given; its errors are passed on.
    """
    partial = partial_in(path.parent)
    try:
        write(partial)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a place that cannot be written to into an ``OutputError``."""
    try:
        yield
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {reason}; choose another place") from error


def check_folder_of(path: Path) -> None:
    """Refuse a file whose folder is not there, before the work that it is to hold.

    Raises:
        OutputError: says so.
    """
    with output_errors(path):
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is not a folder; make it first")


def check_no_folder(path: Path) -> None:
    """Refuse a file in whose place a folder is.

    Raises:
        OutputError: says so, or that the name is none.
    """
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name the file to write in it")


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is to hold.

    Raises:
        OutputError: the folder is missing or cannot be written to, or the name is a folder's or
            none.
    """
    check_folder_of(path)
    check_no_folder(path)
    with output_errors(path), suppress(FileNotFoundError):
        path.lstat()  # says what is wrong with a name
    check_folder_writable(path.parent)


def check_folder_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made, by making one.

    Raises:
        OutputError: says so.
    """
    partial = partial_in(folder)
    with output_errors(folder):
        partial.touch(exist_ok=False)
        partial.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    check_no_folder(path)
    with output_errors(path):
        replace_file(path, lambda partial: partial.write_bytes(data))


def is_of_full_disk(error: OutputError) -> bool:
    """Whether a place can take no file at all, as it is full, over its quota, or read-only."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL_DISK:
            return True
        cause = cause.__cause__
    return False
