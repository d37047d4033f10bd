"""Recordings under a folder, and where their portraits go."""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from voice2face.audio.media import OTHER_FORMATS, reads_media
from voice2face.errors import AudioNotFoundError
from voice2face.paths import resolved

AUDIO_ENDINGS = frozenset(  # of recordings in formats that libsndfile reads
    {".wav", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".sph"}
)
MEDIA_ENDINGS = frozenset(  # of those that FFmpeg reads, where it is installed
    {".m4a", ".m4b", ".aac", ".mka", ".wma", ".amr", ".3gp"}
    | {".mp4", ".m4v", ".mov", ".webm", ".mkv"}
)


class Found(NamedTuple):
    """What lies under a folder.

    Attributes:
        recordings: audio files that are read, in order.
        unread: those of formats that would need FFmpeg, which is not installed, in order.
        unreadable: why folders under it could not be looked into, in words, by their paths.
    """

    recordings: list[Path]
    unread: list[Path]
    unreadable: dict[Path, str]


def find_recordings(folder: Path) -> Found:
    """Audio files under a folder, by their endings; hidden ones are left out.

    Raises:
        AudioNotFoundError: there is none that is read.
    """
    unreadable: dict[Path, str] = {}

    def note(error: OSError) -> None:
        unreadable[Path(error.filename)] = (
            f"{error.filename} cannot be read: {error.strerror or error}"
        )

    visible = sorted(
        path
        for path in files_below(folder, note)
        if path.suffix.lower() in AUDIO_ENDINGS | MEDIA_ENDINGS and may_be_file(path)
    )
    read = AUDIO_ENDINGS | MEDIA_ENDINGS if reads_media() else AUDIO_ENDINGS
    recordings = [path for path in visible if path.suffix.lower() in read]
    unread = [path for path in visible if path.suffix.lower() not in read]
    if folder in unreadable:
        raise AudioNotFoundError(unreadable[folder])
    if not recordings:
        endings = ", ".join(sorted(read))
        advice = [advice_on(unread)] if unread else []
        none = f"{folder} holds no recordings ({endings})"
        raise AudioNotFoundError("; ".join([none, *advice, *unreadable.values()]))
    return Found(recordings, unread, unreadable)


def files_below(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Files under a folder that are not hidden, and under the folders that links in it lead to.

    No folder is entered twice, and by a link only where no other way leads there.

    Args:
        folder: where to begin.
        on_error: told of folders that cannot be read.
    """
    entered: set[str] = set()
    waiting = deque([folder])
    while waiting:
        beginning = waiting.popleft()
        if resolved(beginning) in entered:
            continue
        for place, folders, files in os.walk(beginning, onerror=on_error):
            entered.add(resolved(place))
            below = [Path(place, name) for name in sorted(folders) if not name.startswith(".")]
            waiting.extend(path for path in below if path.is_symlink())
            folders[:] = [
                path.name
                for path in below
                if not path.is_symlink() and resolved(path) not in entered
            ]
            yield from (Path(place, name) for name in files if not name.startswith("."))


def may_be_file(path: Path) -> bool:
    """Whether a path is a file, or the system does not say: then reading it will tell why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def advice_on(unread: Sequence[Path]) -> str:
    """What to do with recordings of formats that are not read."""
    endings = ", ".join(sorted({path.suffix.lower() for path in unread}))
    return f"left out {len(unread)} of formats that are not read ({endings}); {OTHER_FORMATS}"


def portrait_paths(names: Sequence[Path], output: Path) -> list[Path]:
    """Where the portraits go of recordings by those names: the same under ``output``, as ``.png``.

    Recordings whose portraits would have the same path, as they differ in their ending alone, keep
    the ending: ``a.wav.png`` and ``a.mp3.png``. Capitals make no difference, as on many file
    systems.
    """
    paths = [output / name.with_suffix(".png") for name in names]
    while True:
        counts = Counter(str(path).casefold() for path in paths)
        longer = [output / f"{name}.png" for name in names]
        clashing = [
            k
            for k, path in enumerate(paths)
            if counts[str(path).casefold()] > 1 and path != longer[k]
        ]
        if not clashing:
            return paths
        for k in clashing:
            paths[k] = longer[k]
