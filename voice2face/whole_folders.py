"""Folders that appear as a whole, in another's place if there was one."""

from __future__ import annotations

import ctypes
import os
import shutil
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
def fresh_folder(
    folder: Path, own_files: Callable[[Path], Collection[str]], last: str
) -> Iterator[Path]:
    """Give an empty folder to fill, and put it at its place once it was filled without error.

    Args:
        folder: a new folder, an empty one, or one to replace that holds nothing of anybody else's;
            or a link to it, which stays.
        own_files: the paths in such a folder, from there, that may be replaced with it.
        last: the file without which nobody takes the folder for whole.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
    """
    place = followed(folder)
    try:
        if place.exists():
            check_alone(place, own_files(place))
        place.parent.mkdir(parents=True, exist_ok=True)
        stays = place.exists() and has_to_stay(place)
        space_in = place if stays and place.is_mount() else place.parent
        with tempfile.TemporaryDirectory(dir=space_in, prefix=prefix_of(place)) as space:
            fresh = Path(space) / "fresh"
            fresh.mkdir()
            yield fresh
            if stays:
                replace_contents(fresh, place, last)
            else:
                replace_folder(fresh, place)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder} cannot be written: {reason}; choose another place") from error


def followed(folder: Path) -> Path:
    """Where links lead.

    Raises:
        OutputError: they lead in a circle, or the name holds a NUL.
    """
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{folder} cannot be written: {error}; choose another place") from error


def prefix_of(folder: Path) -> str:
    """How the folders begin in which others are filled first, and which a crash may leave."""
    return f".{folder.name}.voice2face-"


def has_to_stay(folder: Path) -> bool:
    """Whether a folder is to be filled rather than exchanged for another.

    An empty one loses nothing by it, and keeps its owner and permissions. A mount cannot be
    exchanged, and who works in a folder would go on in the old one.
    """
    return not any(folder.iterdir()) or folder.is_mount() or folder.samefile(".")


def replace_contents(fresh: Path, folder: Path, last: str) -> None:
    """Move what a folder holds into another, in place of what that one holds.

    A crash leaves a folder without the file that comes last.

    Args:
        fresh: in a folder of its own, which lies in the other or beside it.
        folder: the other.
        last: name of that file, which of the old ones is the first to go.

    Raises:
        OSError: the move failed.
    """
    (folder / last).unlink(missing_ok=True)
    for old in folder.iterdir():
        if old.name.startswith(prefix_of(folder)):
            continue  # this one's space, or that of somebody who saves at the same time
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for new in sorted(fresh.iterdir(), key=lambda path: path.name == last):
        new.replace(folder / new.name)


def check_alone(folder: Path, own: Collection[str]) -> None:
    """Refuse a folder that holds anything else than what may be replaced.

    Raises:
        OSError: it cannot be listed, or is none.
        OutputError: names a file that would be lost.
    """
    within = folder.rglob("*") if any(folder.iterdir()) else ()
    for path in within:
        name = path.relative_to(folder).as_posix()
        if name.startswith(prefix_of(folder)):
            continue
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
