"""Checkpoints written, and copied, to a folder that appears as a whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voice2face.checkpoints.files import describe_files, locate, verify
from voice2face.checkpoints.manifest import FORMAT_VERSION
from voice2face.checkpoints.model_card import CARD
from voice2face.checkpoints.model_index import MODEL_INDEX, read_model_index
from voice2face.errors import CheckpointError
from voice2face.paths import expanded, is_file
from voice2face.whole_folders import fresh_folder


def save_checkpoint(
    folder: str | os.PathLike[str],
    components: Mapping[str, Any],
    *,
    method: str,
    name: str,
    output_size: int,
    card: str,
) -> Path:
    """Write a checkpoint; an older one at that place is replaced, see ``whole_folders``.

    Networks are written in half precision where that changes no weight.

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
    from voice2face.components import WEIGHTS_FILE
    from voice2face.tensor_files import halve_where_exact

    folder = expanded(folder).absolute()
    with fresh_folder(folder, checkpoint_file_names, MODEL_INDEX) as fresh:
        for part, component in components.items():
            component.save_pretrained(fresh / part)
            if is_file(fresh / part / WEIGHTS_FILE):
                halve_where_exact(fresh / part / WEIGHTS_FILE)
            tidy(fresh / part)
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


def copy_checkpoint(source: Path, folder: str | os.PathLike[str]) -> Path:
    """Copy a resolved checkpoint's own files to another folder and verify the copy.

    Raises:
        OutputError: the place cannot be written to, or holds something else.
        CheckpointError: the copy is damaged.
    """
    folder = expanded(folder).absolute()
    files = read_model_index(source)["files"]
    extra = [MODEL_INDEX] + ([CARD] if (source / CARD).is_file() else [])
    with fresh_folder(folder, checkpoint_file_names, MODEL_INDEX) as fresh:
        for name in (*files, *extra):
            target = fresh / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(locate(source, name, files.get(name)), target)
        verify(fresh, files, again=True)
    return folder


def checkpoint_file_names(folder: Path) -> set[str]:
    """What a checkpoint's folder holds, by its index; nothing where there is no checkpoint."""
    try:
        return {*read_model_index(folder)["files"], MODEL_INDEX, CARD}
    except CheckpointError:
        return set()


def tidy(folder: Path) -> None:
    """Forget where a component was loaded from, and let everyone read its files."""
    for path in folder.iterdir():
        if path.suffix == ".json":
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        path.chmod(0o644)
