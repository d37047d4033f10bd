"""What a checkpoint's distilled denoiser has learnt, without loading a network."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from voice2face.checkpoints.files import locate
from voice2face.checkpoints.model_index import read_model_index
from voice2face.errors import ArchitectureError
from voice2face.settings import Preset

FEW_STEP_UPDATE = "few_step_update"  # how the names of such components end


def learnt_preset(folder: Path) -> Preset | None:
    """Steps and guidance, as the header of the few-step update says; ``None`` without one.

    Raises:
        ArchitectureError: the checkpoint's table of contents, or the header, cannot be used.
        OSError: a file cannot be read.
    """
    files = read_model_index(folder)["files"]
    updates = [name for name in files if name.partition("/")[0].endswith(FEW_STEP_UPDATE)]
    if not updates:
        return None
    file = locate(folder, updates[0], files[updates[0]])
    try:
        with safe_open(file, "np") as opened:
            told = opened.metadata() or {}
        return Preset.learnt(int(told["steps"]), float(told["guidance_scale"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArchitectureError(f"{file} does not say what it has learnt: {error}") from error
