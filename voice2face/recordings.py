"""Recordings under a folder, and where their portraits go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from voice2face.errors import AudioNotFoundError
from voice2face.paths import is_file

AUDIO_ENDINGS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au"}
)
UNREAD_ENDINGS = frozenset(  # of recordings in formats that are not read
    {".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp", ".caf", ".mka"}
)


def find_recordings(folder: Path) -> tuple[list[Path], list[Path]]:
    """Audio files under a folder, by their endings, in order; hidden ones are left out.

    Returns:
        Those that are read, and those of formats that are not.

    Raises:
        AudioNotFoundError: there is none that is read.
    """
    visible = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_ENDINGS | UNREAD_ENDINGS
        and is_file(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    found = [path for path in visible if path.suffix.lower() in AUDIO_ENDINGS]
    unread = [path for path in visible if path.suffix.lower() in UNREAD_ENDINGS]
    if not found:
        advice = f"; {advice_on(unread)}" if unread else ""
        endings = ", ".join(sorted(AUDIO_ENDINGS))
        raise AudioNotFoundError(f"{folder} holds no recordings ({endings}){advice}")
    return found, unread


def advice_on(unread: Sequence[Path]) -> str:
    """What to do with recordings of formats that are not read."""
    endings = ", ".join(sorted({path.suffix.lower() for path in unread}))
    return f"left out {len(unread)} of formats that are not read ({endings}); convert them first"


def portrait_paths(recordings: Sequence[Path], folder: Path, output: Path) -> list[Path]:
    """Where each portrait goes: the same path under ``output``, ending in ``.png``.

    Recordings whose portraits would have the same path, as they differ in their ending alone, keep
    the ending: ``a.wav.png`` and ``a.mp3.png``. Capitals make no difference, as on many file
    systems.
    """
    below = [path.relative_to(folder) for path in recordings]
    paths = [output / path.with_suffix(".png") for path in below]
    while True:
        counts = Counter(str(path).casefold() for path in paths)
        longer = [output / f"{path}.png" for path in below]
        clashing = [
            k
            for k, path in enumerate(paths)
            if counts[str(path).casefold()] > 1 and path != longer[k]
        ]
        if not clashing:
            return paths
        for k in clashing:
            paths[k] = longer[k]
