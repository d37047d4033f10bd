"""Folders that appear as a whole, in another's place if there was one."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from voice2face.errors import OutputError

AT_FDCWD = -100
RENAME_EXCHANGE = 2


@contextmanager
def fresh_folder(folder: Path, own_files: Callable[[Path], Collection[str]]) -> Iterator[Path]:
    """Give an empty folder to fill, and put it at its place once it was filled without error.

    Args:
        folder: a new folder, an empty one, or one to replace that holds nothing of anybody else's.
        own_files: the paths in such a folder, from there, that may be replaced with it.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
    """
    try:
        if folder.exists():
            check_alone(folder, own_files(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as space:
            fresh = Path(space) / "fresh"
            fresh.mkdir()
            yield fresh
            replace_folder(fresh, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder} cannot be written: {reason}; choose another place") from error


def check_alone(folder: Path, own: Collection[str]) -> None:
    """Refuse a folder that holds anything else than what may be replaced.

    Raises:
        OSError: it cannot be listed, or is none.
        OutputError: names a file that would be lost.
    """
    within = folder.rglob("*") if any(folder.iterdir()) else ()
    for path in within:
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in own:
            raise OutputError(f"{folder} holds other files, {name}; choose an empty folder")


def replace_folder(fresh: Path, folder: Path) -> None:
    """Move a folder to its place; what lay there ends up where the fresh one was.

    On Linux the two change places in one step, so that a crash leaves the old or the new.
    Elsewhere there is a moment with neither at its place, and the old one is put back if the
    move fails.

    Raises:
        OSError: the move failed; the old folder is in its place.
    """
    if not folder.exists():
        fresh.replace(folder)
        return
    if exchange(fresh, folder):
        return
    old = fresh.with_name("old")
    folder.replace(old)
    try:
        fresh.replace(folder)
    except OSError:
        old.replace(folder)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; false where the system can't."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return bool(done == 0)
