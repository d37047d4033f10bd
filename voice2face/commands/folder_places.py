"""The places of portraits: what lies there, and whether it can be written to."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from voice2face.errors import OutputError, PictureError
from voice2face.paths import expanded, is_folder, names_folder, resolved
from voice2face.picture_files import FORMATS
from voice2face.saved_portraits import Making, read_making


def portraits_folder(written: str) -> Path:
    """The folder that a command line names for portraits.

    Raises:
        OutputError: a picture is named, which would become a folder of that name.
    """
    folder = expanded(written)
    is_picture = folder.suffix.lower() in FORMATS and not names_folder(written)
    if is_picture and not is_folder(folder):
        raise OutputError(
            f"{written} is a picture's name; portraits of several recordings go to a folder: "
            f"-o {folder.with_suffix('')}"
        )
    return folder


def is_there(file: Path) -> bool:
    """Whether a file is there; an empty one, as a crash may leave, is none."""
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def look_at_places(
    pairs: Iterable[tuple[Path, Path]],
) -> tuple[dict[Path, Making], dict[Path, str]]:
    """What lies where portraits go.

    Args:
        pairs: recordings, and where their portraits go.

    Returns:
        By recording, how the portraits that are there were made; and why what is there is none.
    """
    makings, in_the_way = {}, {}
    for recording, path in pairs:
        if not is_there(path):
            continue
        try:
            makings[recording] = read_making(path)
        except PictureError:
            in_the_way[recording] = (
                f"{path} is there and is no portrait of voice2face; move it away, or choose "
                "another folder"
            )
    return makings, in_the_way


def check_no_portrait(files: Iterable[Path], portraits: Iterable[Path]) -> None:
    """Refuse files in whose place a portrait goes; capitals make no difference.

    Raises:
        OutputError: names one.
    """
    taken = {resolved(path).casefold() for path in portraits}
    for file in files:
        if resolved(file).casefold() in taken:
            raise OutputError(f"{file} is the place of a portrait; choose another one")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made: {error.strerror or error}; choose another place"
        ) from error
