"""A memory of files whose checksum was right, so that they are not read again on each load."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from voice2face.paths import expanded
from voice2face.whole_files import replace_file

MOST_ENTRIES = 1000


def memory_file() -> Path:
    """Where the memory lies: beside the Hub's cache, in ``HF_HOME``."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return expanded(home) / "voice2face" / "verified_files.json"


def is_remembered(path: Path, sha256: str) -> bool:
    """Whether this file, with its present size and time, had this checksum before."""
    return read_memory().get(str(path.resolve())) == [*fingerprint(path), sha256]


def remember(path: Path, before: tuple[int, int], sha256: str) -> None:
    """Note that a file has a checksum; a folder that cannot be written to is no error.

    Args:
        path: the file.
        before: its fingerprint before it was read; it may have changed since.
        sha256: of what was read.
    """
    entries = read_memory()
    entries.pop(str(path.resolve()), None)
    entries[str(path.resolve())] = [*before, sha256]
    kept = dict(list(entries.items())[-MOST_ENTRIES:])
    file = memory_file()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(kept, indent=0)
        replace_file(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_memory() -> dict[str, Any]:
    """All entries; none where the memory is missing or damaged."""
    try:
        entries = json.loads(memory_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def fingerprint(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
