"""Name, folder or Hub id to a folder of verified files; saving and copying checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from voice2face.errors import (
    ArchitectureError,
    CheckpointError,
    CheckpointNotFoundError,
    ChecksumError,
)
from voice2face.folders import fresh_folder
from voice2face.hub import download
from voice2face.paths import exists, expanded, is_file
from voice2face.verified_files import is_remembered, remember

FORMAT_VERSION = 1
MODEL_INDEX = "model_index.json"
CARD = "README.md"
LARGEST_CARD_BYTES = 4 << 20
INDEX_KEYS = {"format_version", "method", "name", "output_size", "files"}
METHODS = ("scldm", "fine_portraitist")
PACKAGED_WEIGHTS = Path(__file__).parent / "weights"
MANIFEST_FILE = PACKAGED_WEIGHTS / "weights_manifest.json"
DOWNLOADED_FILES = (MODEL_INDEX, CARD, "*/*.json", "*/*.safetensors")
LARGEST_JSON_BYTES = 1 << 20
LARGEST_FILE_BYTES = 8 << 30
MOST_FILES = 64
OUTPUT_SIZES = (8, 4096)
FILE_NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?", re.ASCII)
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
            ``None`` is the checkpoint in the package.
        revision: branch, tag or commit of a Hub id; names of the manifest have theirs pinned.
        cache_dir: where downloads are kept; the Hub's usual cache by default.
        local_files_only: never open a connection.
        token: for private Hub repositories.

    Raises:
        CheckpointNotFoundError: nothing of that name, here or on the Hub.
        ChecksumError: a file is damaged.
        ArchitectureError: the checkpoint's table of contents cannot be used.
    """
    name = manifest()["default"] if name_or_path is None else os.fspath(name_or_path)
    entry = manifest()["checkpoints"].get(name)
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
        if not is_file(folder / MODEL_INDEX):
            check_hub_id(name, folder)
            folder = download(name, DOWNLOADED_FILES, revision, cache_dir, local_files_only, token)
    if entry is not None:
        verify(folder, entry["files"])
    verify(folder, read_model_index(folder)["files"])
    return folder


def check_hub_id(name: str, folder: Path) -> None:
    """Refuse what is neither a checkpoint folder nor ``owner/name``.

    Raises:
        CheckpointNotFoundError: says what was looked for.
    """
    if exists(folder):
        raise CheckpointNotFoundError(
            f"{folder} is no checkpoint: it holds no {MODEL_INDEX} that can be read; name the "
            "folder that save_pretrained wrote"
        )
    if not HUB_ID.fullmatch(name):
        known = ", ".join(manifest()["checkpoints"])
        raise CheckpointNotFoundError(
            f"{name!r} is neither a folder, nor a released checkpoint ({known}), nor an "
            "owner/name on the Hub"
        )


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


def read_model_index(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint's table of contents.

    Raises:
        ArchitectureError: unreadable, of a newer format, or of an unknown method.
    """
    path = folder / MODEL_INDEX
    check_place(folder, MODEL_INDEX)
    index = read_json(path)
    if type(index.get("format_version")) is not int:
        raise ArchitectureError(f"{path} is not of a voice2face checkpoint")
    if index["format_version"] > FORMAT_VERSION:
        raise ArchitectureError(
            f"{folder} was made by a newer version (format {index['format_version']}, this one "
            f"reads {FORMAT_VERSION}); upgrade voice2face"
        )
    if index.get("method") not in METHODS:
        raise ArchitectureError(
            f"{folder} is of method {index.get('method')!r}; this version knows "
            f"{', '.join(METHODS)}"
        )
    if set(index) != INDEX_KEYS:
        raise ArchitectureError(f"{path} has the keys {sorted(index)}, not {sorted(INDEX_KEYS)}")
    size, files = index["output_size"], index["files"]
    if type(size) is not int or not OUTPUT_SIZES[0] <= size <= OUTPUT_SIZES[1]:
        raise ArchitectureError(f"{path}: output_size is {OUTPUT_SIZES[0]} to {OUTPUT_SIZES[1]}")
    if not isinstance(index["name"], str) or len(index["name"]) > 100:
        raise ArchitectureError(f"{path}: name is a string of at most 100 characters")
    check_files(path, files)
    return index


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
                raise CheckpointNotFoundError(f"{path} is missing; {_repair(folder)}")
            size = path.stat().st_size
            if size != expected["size"] or size > LARGEST_FILE_BYTES:
                raise ChecksumError(
                    f"{path} has {size} bytes, not the {expected['size']} written down; "
                    f"{_repair(folder)}"
                )
            if not again and is_remembered(path, expected["sha256"]):
                continue
            if sha256_of(path) != expected["sha256"]:
                raise ChecksumError(
                    f"{path} is damaged: its sha256 is not the one written down; {_repair(folder)}"
                )
            remember(path, expected["sha256"])
        except OSError as error:
            raise CheckpointNotFoundError(
                f"{folder / name} cannot be read: {error.strerror or error}; {_repair(folder)}"
            ) from error


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


def files_of(folder: Path) -> set[str]:
    """What a checkpoint's folder holds, by its index; nothing where there is no checkpoint."""
    try:
        return {*read_model_index(folder)["files"], MODEL_INDEX, CARD}
    except CheckpointError:
        return set()


def save_checkpoint(
    folder: str | os.PathLike[str],
    components: Mapping[str, Any],
    *,
    method: str,
    name: str,
    output_size: int,
    card: str,
) -> Path:
    """Write a checkpoint; an older one at that place is replaced as a whole.

    Args:
        folder: a new folder, an empty one, or an older checkpoint.
        components: what has ``save_pretrained``, by folder name.
        method: the paper it implements.
        name: what results call the checkpoint.
        output_size: side of the pictures in pixels.
        card: text of the model card.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
    """
    folder = expanded(folder).absolute()
    with fresh_folder(folder, files_of) as fresh:
        for part, component in components.items():
            component.save_pretrained(fresh / part)
            _tidy(fresh / part)
        index = {
            "format_version": FORMAT_VERSION,
            "method": method,
            "name": name,
            "output_size": output_size,
            "files": describe_files(fresh),
        }
        (fresh / MODEL_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        (fresh / CARD).write_text(card, encoding="utf-8")
    return folder


def read_card(folder: Path) -> str | None:
    """The model card of a checkpoint, if there is one.

    Raises:
        ArchitectureError: it is a link that leads out of the folder, or too large.
    """
    path = check_place(folder, CARD)
    if not path.is_file():
        return None
    if path.stat().st_size > LARGEST_CARD_BYTES:
        raise ArchitectureError(f"{path} is over {LARGEST_CARD_BYTES >> 20} MiB: no model card")
    return path.read_text(encoding="utf-8", errors="replace")


def copy_checkpoint(source: Path, folder: str | os.PathLike[str]) -> Path:
    """Copy a resolved checkpoint's own files to another folder and verify the copy.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
        CheckpointError: the copy is damaged.
    """
    folder = expanded(folder).absolute()
    files = read_model_index(source)["files"]
    extra = [MODEL_INDEX] + ([CARD] if (source / CARD).is_file() else [])
    with fresh_folder(folder, files_of) as fresh:
        for name in (*files, *extra):
            target = fresh / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(locate(source, name, files.get(name)), target)
        verify(fresh, files, again=True)
    return folder


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


def _repair(folder: Path) -> str:
    """What to do about a damaged checkpoint, by where it lies."""
    if folder.is_relative_to(PACKAGED_WEIGHTS):
        return "reinstall voice2face"
    if folder.parent.name == "snapshots":
        return f"delete {folder.parent.parent} and download it again"
    return "save or copy the checkpoint again"


def _tidy(folder: Path) -> None:
    """Forget where a component was loaded from, and let everyone read its files."""
    for path in folder.iterdir():
        if path.suffix == ".json":
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        path.chmod(0o644)
