"""The released checkpoints: ``weights_manifest.json``, read and checked."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from voice2face.errors import ArchitectureError

FORMAT_VERSION = 1
PACKAGED_WEIGHTS = Path(__file__).parent.parent / "weights"
MANIFEST_FILE = PACKAGED_WEIGHTS / "weights_manifest.json"
LARGEST_JSON_BYTES = 1 << 20
MOST_FILES = 64
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
RELEASED_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@lru_cache(maxsize=1)
def manifest() -> dict[str, Any]:
    """The released checkpoints and their files, as ``weights_manifest.json`` lists them."""
    return read_manifest(MANIFEST_FILE)


def read_manifest(file: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        ArchitectureError: unreadable, of a newer format, or not as its schema says.
    """
    try:
        content = read_json(file)
    except ArchitectureError as error:
        raise ArchitectureError(f"{error}; reinstall voice2face") from error
    if content.get("format_version") != FORMAT_VERSION:
        raise ArchitectureError(f"{file} is no manifest of this version; reinstall voice2face")
    entries, default = content.get("checkpoints"), content.get("default")
    if not isinstance(entries, dict) or not isinstance(default, str) or default not in entries:
        raise ArchitectureError(f"{file} lists no default checkpoint; reinstall voice2face")
    for name, entry in entries.items():
        if not RELEASED_NAME.fullmatch(name) or not isinstance(entry, dict):
            raise ArchitectureError(f"{file}: {name!r:.80} is no checkpoint's name and entry")
        check_files(file, entry.get("files"))
        if "hub" in entry:
            hub = entry["hub"] if isinstance(entry["hub"], dict) else {}
            if not HUB_ID.fullmatch(str(hub.get("repo_id"))) or not COMMIT.fullmatch(
                str(hub.get("revision"))
            ):
                raise ArchitectureError(f"{file}: {name} needs its hub repo_id and revision")
    return content


def check_files(path: Path, files: Any) -> None:
    """Refuse a list of files without sizes and checksums.

    Raises:
        ArchitectureError: says which file.
    """
    if not isinstance(files, dict) or not 1 <= len(files) <= MOST_FILES:
        raise ArchitectureError(f"{path}: files lists 1 to {MOST_FILES} files")
    for name, facts in files.items():
        if (
            not isinstance(facts, dict)
            or type(facts.get("size")) is not int
            or not isinstance(facts.get("sha256"), str)
            or not SHA256.fullmatch(facts["sha256"])
        ):
            raise ArchitectureError(f"{path}: {name!r:.80} needs its size and sha256")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of reasonable size.

    Raises:
        ArchitectureError: missing, unreadable, too large, or no object.
    """
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise ArchitectureError(f"{path} is over {LARGEST_JSON_BYTES >> 20} MiB: no such file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ArchitectureError(f"{path} holds no JSON object")
    return content
