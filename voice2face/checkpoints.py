"""Name, folder or Hub id to a folder of verified files; components loaded from it and saved."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from voice2face.errors import ArchitectureError, CheckpointNotFoundError, ChecksumError, OutputError

FORMAT_VERSION = 1
MODEL_INDEX = "model_index.json"
PACKAGED_WEIGHTS = Path(__file__).parent / "weights"
MANIFEST_FILE = PACKAGED_WEIGHTS / "weights_manifest.json"
ALLOWED_FILES = ("*.json", "*.safetensors", "README.md")


@lru_cache(maxsize=1)
def manifest() -> dict[str, Any]:
    """The released checkpoints and their files, as ``weights_manifest.json`` lists them."""
    content: dict[str, Any] = json.loads(MANIFEST_FILE.read_text())
    return content


def resolve(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Find a checkpoint's folder, downloading only if a Hub id is given.

    Args:
        name_or_path: a name of the manifest, a folder, or ``owner/name`` on the Hugging Face Hub;
            ``None`` is the checkpoint in the package.
        revision: branch, tag or commit of a Hub id.
        cache_dir: where downloads are kept; the Hub's usual cache by default.
        local_files_only: never open a connection.
        token: for private Hub repositories.

    Raises:
        CheckpointNotFoundError: nothing of that name, here or on the Hub.
        ChecksumError: a packaged file is damaged.
    """
    if name_or_path is None:
        name_or_path = manifest()["default"]
    if isinstance(name_or_path, str) and name_or_path in manifest()["checkpoints"]:
        folder = PACKAGED_WEIGHTS / name_or_path
        verify(folder, manifest()["checkpoints"][name_or_path]["files"])
        return folder
    folder = Path(name_or_path).expanduser()
    if (folder / MODEL_INDEX).is_file():
        return folder
    if folder.exists():
        raise CheckpointNotFoundError(
            f"{folder} is no checkpoint: it holds no {MODEL_INDEX}; name the folder that "
            "save_pretrained wrote"
        )
    name = os.fspath(name_or_path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = ", ".join(manifest()["checkpoints"])
        raise CheckpointNotFoundError(
            f"{name!r} is neither a folder, nor a released checkpoint ({known}), nor an "
            "owner/name on the Hub"
        )
    return _download(name, revision, cache_dir, local_files_only, token)


def _download(
    repo_id: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(ALLOWED_FILES),
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFoundError(
            f"{repo_id} cannot be fetched from the Hub ({type(error).__name__}); check the name, "
            "the revision, the token and the connection, or pass a local folder"
        ) from error
    return Path(folder)


def verify(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare size and sha256 of every file with what was released.

    Raises:
        CheckpointNotFoundError: a file is missing.
        ChecksumError: a file differs.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointNotFoundError(f"{path} is missing; reinstall voice2face")
        if path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            raise ChecksumError(f"{path} is not the released file; reinstall voice2face")


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_model_index(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint's table of contents.

    Raises:
        ArchitectureError: unreadable, of a newer format, or of an unknown method.
    """
    try:
        index = json.loads((folder / MODEL_INDEX).read_text())
    except (OSError, ValueError) as error:
        raise ArchitectureError(f"{folder / MODEL_INDEX} cannot be read: {error}") from error
    if not isinstance(index, dict) or not isinstance(index.get("format_version"), int):
        raise ArchitectureError(f"{folder / MODEL_INDEX} is not a voice2face checkpoint's")
    if index["format_version"] > FORMAT_VERSION:
        raise ArchitectureError(
            f"{folder} was made by a newer version (format {index['format_version']}, this one "
            f"reads {FORMAT_VERSION}); upgrade voice2face"
        )
    if index.get("method") != "scldm":
        raise ArchitectureError(
            f"{folder} is of method {index.get('method')!r}; this version knows 'scldm'"
        )
    return index


def load_component(kind: Any, folder: Path) -> Any:
    """Load one network or schedule from its folder, every weight exactly accounted for.

    Raises:
        ArchitectureError: files are missing, damaged, or do not fit the configuration.
    """
    from diffusers import ModelMixin

    if not folder.is_dir():
        raise ArchitectureError(f"{folder} is missing from the checkpoint")
    try:
        if not issubclass(kind, ModelMixin):
            return kind.from_pretrained(folder, local_files_only=True)
        network, report = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers, safetensors and torch each raise their own kinds
        raise ArchitectureError(
            f"{folder} does not fit {kind.__name__} of this version: {error}"
        ) from error
    strays = {name: found for name, found in report.items() if found}
    if strays:
        raise ArchitectureError(f"{folder} does not fit {kind.__name__} of this version: {strays}")
    return network.float().eval()


def save_checkpoint(
    folder: str | os.PathLike[str], components: Mapping[str, Any], index: Mapping[str, Any]
) -> Path:
    """Write components and table of contents; an older checkpoint there is replaced as a whole.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not (folder / MODEL_INDEX).is_file() and any(folder.iterdir()):
        raise OutputError(f"{folder} holds other files; choose an empty folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as space:
            fresh, old = Path(space) / "fresh", Path(space) / "old"
            for name, component in components.items():
                component.save_pretrained(fresh / name)
                _tidy(fresh / name)
            (fresh / MODEL_INDEX).write_text(json.dumps(index, indent=2) + "\n")
            if folder.exists():
                shutil.move(folder, old)
            fresh.replace(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _tidy(folder: Path) -> None:
    """Forget where a component was loaded from, and let everyone read its files."""
    for path in folder.iterdir():
        if path.suffix == ".json":
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        path.chmod(0o644)
