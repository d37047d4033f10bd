"""A checkpoint's files: where they lie, and whether they are as they were written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voice2face.checkpoints.manifest import PACKAGED_WEIGHTS, manifest
from voice2face.checkpoints.verified_files import fingerprint, is_remembered, remember
from voice2face.errors import ArchitectureError, CheckpointNotFoundError, ChecksumError

LARGEST_FILE_BYTES = 8 << 30
FILE_NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?", re.ASCII)


def verify(folder: Path, files: Mapping[str, Mapping[str, Any]], *, again: bool = False) -> None:
    """Compare size and sha256 of every file with what was written down.

    A file that was verified before and has kept size and time is not read again.

    Args:
        folder: the checkpoint.
        files: size and sha256 by name.
        again: read every file, whatever is remembered.

    Raises:
        ArchitectureError: a name or a link leads out of the folder.
        CheckpointNotFoundError: a file is missing, or cannot be read.
        ChecksumError: a file differs.
    """
    for name, expected in files.items():
        try:
            path = locate(folder, name, expected)
            if not path.is_file():
                raise CheckpointNotFoundError(f"{path} is missing; {how_to_complete(folder)}")
            size = path.stat().st_size
            if size != expected["size"] or size > LARGEST_FILE_BYTES:
                raise ChecksumError(
                    f"{path} has {size} bytes, not the {expected['size']} written down; "
                    f"{how_to_repair(folder)}"
                )
            if not again and is_remembered(path, expected["sha256"]):
                continue
            before = fingerprint(path)
            if sha256_of(path) != expected["sha256"]:
                raise ChecksumError(
                    f"{path} is damaged: its sha256 is not the one written down; "
                    f"{how_to_repair(folder)}"
                )
            remember(path, before, expected["sha256"])
        except OSError as error:
            raise CheckpointNotFoundError(
                f"{folder / name} cannot be read: {error.strerror or error}; "
                f"{how_to_repair(folder)}"
            ) from error


def how_to_complete(folder: Path) -> str:
    """What to do about a checkpoint that lacks a file, by where it lies."""
    if folder.parent.name == "snapshots":
        return (
            "load the checkpoint once without HF_HUB_OFFLINE and local_files_only, which fetches "
            "what is missing"
        )
    return how_to_repair(folder)


def how_to_repair(folder: Path) -> str:
    """What to do about a damaged checkpoint, by where it lies."""
    if folder.is_relative_to(PACKAGED_WEIGHTS):
        return "reinstall voice2face"
    if folder.parent.name == "snapshots":
        return f"delete {folder.parent.parent} and download it again"
    return "save or copy the checkpoint again"


def check_place(folder: Path, name: str) -> Path:
    """The path of a checkpoint's file, which may not lie outside its folder.

    The links of the Hub's cache, from a snapshot to the blobs beside it, are followed, and those of
    the package, which some installers make of every file.

    Raises:
        ArchitectureError: the name or a link leads elsewhere.
    """
    if not FILE_NAME.fullmatch(name):
        raise ArchitectureError(f"{folder}: {name!r:.80} is no name of a checkpoint's file")
    path = folder / name
    root = folder.parent.parent if folder.parent.name == "snapshots" else folder
    inside = folder.parent == PACKAGED_WEIGHTS or path.resolve().is_relative_to(root.resolve())
    if not inside:
        raise ArchitectureError(f"{path} is a link that leads out of the checkpoint")
    return path


def locate(folder: Path, name: str, expected: Mapping[str, Any] | None) -> Path:
    """Where a checkpoint's file lies: in its folder, or in a packaged one that shares it.

    Args:
        folder: the checkpoint.
        name: the file's path from there.
        expected: the file's size and sha256; ``None`` for one that no checkpoint shares.

    Raises:
        ArchitectureError: the name or a link leads out of the folder.
    """
    path = check_place(folder, name)
    if path.exists() or expected is None:
        return path
    return shared_file(folder, name, expected) or path


def shared_file(folder: Path, name: str, expected: Mapping[str, Any]) -> Path | None:
    """The very same file in another packaged checkpoint: the wheel holds it once.

    Returns:
        ``None`` where no other has it, and for checkpoints outside the package.
    """
    if folder.parent != PACKAGED_WEIGHTS:
        return None
    for other, entry in manifest()["checkpoints"].items():
        if other != folder.name and entry["files"].get(name) == expected:
            path = check_place(PACKAGED_WEIGHTS / other, name)
            if path.is_file():
                return path
    return None


def component_folder(folder: Path, part: str, files: Mapping[str, Mapping[str, Any]]) -> Path:
    """The folder that holds a component's files; see ``locate``."""
    of_part = {name: facts for name, facts in files.items() if name.startswith(f"{part}/")}
    return next((locate(folder, *item).parent for item in of_part.items()), folder / part)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file in a folder, by its path from there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in paths
    }
