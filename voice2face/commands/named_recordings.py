"""Recordings that a command line names one by one, or by their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voice2face.errors import AudioNotFoundError, SettingError
from voice2face.paths import STANDARD_INPUT, exists, expanded, is_folder, matching


def named_recordings(words: Sequence[Path]) -> list[Path]:
    """What a command line names, with what its patterns stand for.

    Raises:
        AudioNotFoundError: nothing matches one.
    """
    named = []
    for word in words:
        found = matching(word)
        if not found:
            raise AudioNotFoundError(
                f"{word} does not exist, and as a pattern it matches nothing; check the path"
            )
        named.extend(found)
    return named


def several_recordings(named: Sequence[Path]) -> list[Path]:
    """The recordings of a command line that names several.

    Raises:
        AudioNotFoundError: one does not exist.
        SettingError: one has no name of its own, by which its portrait could be called, or is a
            folder.
    """
    if STANDARD_INPUT in named:
        raise SettingError("standard input is no recording among several; give it alone")
    recordings = list(dict.fromkeys(expanded(path) for path in named))
    taken: dict[str, Path] = {}
    for recording in recordings:
        if is_folder(recording):
            raise SettingError(
                f"{recording} is a folder; give one folder alone, or recordings: {recording}/*"
            )
        check_there(recording)
        other = taken.setdefault(recording.name.casefold(), recording)
        if other is not recording:
            raise SettingError(
                f"{other} and {recording} would share a portrait; rename one, or give the folder "
                "that both are under"
            )
    return recordings


def check_there(recording: Path) -> None:
    """Refuse a recording that is missing.

    Raises:
        AudioNotFoundError: says so.
    """
    if not exists(expanded(recording)):
        raise AudioNotFoundError(f"{recording} does not exist; check the path")


def name_of(recording: Path, named: Sequence[Path]) -> Path:
    """What a recording's portrait and seed follow from.

    Args:
        recording: one of several that were named, or one in a folder that was.
        named: what was.

    Returns:
        The file's name, or its path in the folder.
    """
    if len(named) == 1:
        return recording.relative_to(expanded(named[0]))
    return Path(recording.name)
