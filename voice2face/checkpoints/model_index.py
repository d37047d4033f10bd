"""A checkpoint's table of contents, ``model_index.json``, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voice2face.checkpoints.files import check_place
from voice2face.checkpoints.manifest import FORMAT_VERSION, check_files, read_json
from voice2face.errors import ArchitectureError

MODEL_INDEX = "model_index.json"
INDEX_KEYS = {"format_version", "method", "name", "output_size", "files"}
METHOD_NAMES = ("scldm", "fine_portraitist")
OUTPUT_SIZES = (8, 4096)


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
    if index.get("method") not in METHOD_NAMES:
        raise ArchitectureError(
            f"{folder} is of method {index.get('method')!r}; this version knows "
            f"{', '.join(METHOD_NAMES)}"
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
