"""Where a network lies: in a stage's output, in a checkpoint, or in one that shares it."""

from __future__ import annotations

from pathlib import Path

from voice2face.checkpoints.files import component_folder
from voice2face.checkpoints.model_index import MODEL_INDEX, read_model_index


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, rather than what a stage wrote."""
    return (folder / MODEL_INDEX).is_file()


def part_folder(folder: Path, part: str) -> Path:
    """The folder of a part.

    Args:
        folder: what a stage wrote, or a checkpoint; one in the package may share the part with
            another one there.
        part: as a checkpoint calls it, such as ``"face_encoder"``.
    """
    folder = folder.absolute()
    files = read_model_index(folder)["files"] if is_checkpoint(folder) else {}
    return component_folder(folder, part, files)
