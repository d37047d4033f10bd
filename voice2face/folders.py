"""Putting a whole folder in another's place at once."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2


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
