"""Name, folder or Hub id to a folder of verified files."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from voice2face.checkpoints.files import verify
from voice2face.checkpoints.hub import download
from voice2face.checkpoints.manifest import HUB_ID, PACKAGED_WEIGHTS, manifest
from voice2face.checkpoints.model_card import CARD
from voice2face.checkpoints.model_index import MODEL_INDEX, read_model_index
from voice2face.errors import CheckpointError, CheckpointNotFoundError
from voice2face.paths import exists, expanded, is_file

logger = logging.getLogger("voice2face")

DOWNLOADED_FILES = (MODEL_INDEX, CARD, "*/*.json", "*/*.safetensors")


def resolve(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Find a checkpoint's folder and verify its files; download only what is on the Hub.

    Args:
        name_or_path: a name of the manifest, a folder, or ``owner/name`` on the Hugging Face Hub;
            ``None`` is the checkpoint in the package. A ``Path`` is always a folder; as text,
            one that has a name of the manifest is ``./name``.
        revision: branch, tag or commit of a Hub id; names of the manifest have theirs pinned, and
            folders have none.
        cache_dir: where downloads are kept; the Hub's usual cache by default.
        local_files_only: never open a connection.
        token: for private Hub repositories.

    Raises:
        CheckpointNotFoundError: nothing of that name, here or on the Hub, or a revision is given
            with another name than a Hub id.
        ChecksumError: a file is damaged.
        ArchitectureError: the checkpoint's table of contents cannot be used.
    """
    folder = find_folder(
        name_or_path,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    entry = released(name_or_path)
    if entry is not None:
        verify(folder, entry["files"])
    if entry is not None and name_or_path is not None:
        tell_of_namesake(name_of(name_or_path), folder)
    verify(folder, read_model_index(folder)["files"])
    return folder


def name_of(name_or_path: str | os.PathLike[str] | None) -> str:
    """What names a checkpoint; ``None`` is the one in the package."""
    return manifest()["default"] if name_or_path is None else os.fspath(name_or_path)


def released(name_or_path: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """The manifest's entry of a name; ``None`` of all else, as of every ``Path``."""
    if isinstance(name_or_path, os.PathLike):
        return None
    entry: dict[str, Any] | None = manifest()["checkpoints"].get(name_of(name_or_path))
    return entry


def tell_of_namesake(name: str, folder: Path) -> None:
    """Say of a folder here with the name of a released checkpoint that it is not what is used.

    A copy of that checkpoint makes no difference.

    Args:
        name: of the released checkpoint.
        folder: where that lies.
    """
    here = expanded(name)
    if not is_file(here / MODEL_INDEX):
        return
    try:
        copied = (here / MODEL_INDEX).read_bytes() == (folder / MODEL_INDEX).read_bytes()
    except OSError:
        copied = False
    if not copied:
        logger.warning(
            "%s is the released checkpoint, not the folder of that name here; write ./%s for that",
            name,
            name,
        )


def find_folder(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Find a checkpoint's folder, and leave its files unread; the arguments are ``resolve``'s.

    Raises:
        CheckpointNotFoundError: nothing of that name, here or on the Hub.
    """
    name = name_of(name_or_path)
    entry = released(name_or_path)
    if entry is not None and revision is not None:
        raise CheckpointNotFoundError(
            f"{name} is a released checkpoint, its revision is pinned; leave revision out, "
            "or give owner/name with it"
        )
    if entry is not None and (PACKAGED_WEIGHTS / name).is_dir():
        folder = PACKAGED_WEIGHTS / name
    elif entry is not None:
        if "hub" not in entry:
            raise CheckpointNotFoundError(
                f"{PACKAGED_WEIGHTS / name} is missing; reinstall voice2face"
            )
        hub = entry["hub"]
        folder = download(
            hub["repo_id"], DOWNLOADED_FILES, hub["revision"], cache_dir, local_files_only, token
        )
    else:
        folder = expanded(name)
        if is_file(folder / MODEL_INDEX):
            if revision is not None:
                raise CheckpointNotFoundError(
                    f"{folder} is a folder, which has no revisions; leave revision out"
                )
        else:
            check_hub_id(name_or_path, folder)
            folder = download(name, DOWNLOADED_FILES, revision, cache_dir, local_files_only, token)
    return folder


def check_hub_id(name_or_path: str | os.PathLike[str] | None, folder: Path) -> None:
    """Refuse what is neither a checkpoint folder nor ``owner/name``.

    Args:
        name_or_path: as of ``resolve``.
        folder: that it would be.

    Raises:
        CheckpointNotFoundError: says what was looked for.
    """
    if exists(folder):
        raise CheckpointNotFoundError(
            f"{folder} is no checkpoint: it holds no {MODEL_INDEX} that can be read; name the "
            "folder that save_pretrained wrote"
        )
    name = name_of(name_or_path)
    if isinstance(name_or_path, os.PathLike):
        raise CheckpointNotFoundError(
            f"{folder} is not there, and a Path is a folder; for a released checkpoint, or "
            f"owner/name on the Hub, give a text: {name!r}"
        )
    if not HUB_ID.fullmatch(name):
        known = ", ".join(manifest()["checkpoints"])
        raise CheckpointNotFoundError(
            f"{name!r} is neither a folder, nor a released checkpoint ({known}), nor an "
            "owner/name on the Hub"
        )


def where(name: str) -> str:
    """Where a checkpoint of the manifest lies: in the package, or on the Hub."""
    entry = manifest()["checkpoints"][name]
    if (PACKAGED_WEIGHTS / name).is_dir():
        return f"in the package, {PACKAGED_WEIGHTS / name}"
    if "hub" not in entry:
        return "missing; reinstall voice2face"
    hub = entry["hub"]
    try:
        folder = download(hub["repo_id"], DOWNLOADED_FILES, hub["revision"], local_files_only=True)
    except CheckpointError:
        return f"on the Hub, {hub['repo_id']} at {hub['revision'][:12]}, not downloaded"
    return f"in the cache, {folder}"
