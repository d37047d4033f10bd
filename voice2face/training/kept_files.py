"""What takes long to compute is kept in files, with a note of what it was computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from voice2face.errors import SettingError
from voice2face.whole_files import replace_file

NOTE = "made_of"


def fingerprint(*parts: nn.Module | Tensor | Iterable[object]) -> str:
    """A checksum of networks' weights and configurations, of tensors, and of anything as text.

    Weights count as float16, as which checkpoints keep them.
    """
    digest = hashlib.sha256()
    for part in parts:
        tensors = {"": part} if isinstance(part, Tensor) else {}
        if isinstance(part, nn.Module):
            tensors = part.state_dict()
            config = getattr(part, "config", {})
            told = {name: config[name] for name in sorted(config) if not name.startswith("_")}
            digest.update(json.dumps(told).encode())
        for name, tensor in tensors.items():
            digest.update(name.encode())
            value = tensor.half() if tensor.is_floating_point() else tensor
            digest.update(value.cpu().contiguous().numpy().tobytes())
        if not isinstance(part, (nn.Module, Tensor)):
            digest.update("\0".join(map(str, part)).encode())
    return digest.hexdigest()


def kept_in(
    file: Path, made_of: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Read tensors from a safetensors file, or compute them and keep them there.

    Args:
        file: where they are kept.
        made_of: ``fingerprint`` of what they are computed from.
        compute: makes them.

    Raises:
        SettingError: the file was made of something else.
    """
    if file.exists():
        with safe_open(file, "pt") as kept:
            note = (kept.metadata() or {}).get(NOTE)
        if note != made_of:
            raise SettingError(
                f"{file} was made of other data or by other networks; delete it, or choose "
                "another folder"
            )
    else:
        tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
        replace_file(file, partial(save_file, tensors, metadata={NOTE: made_of}))
    return load_file(file)


def kept_tensor(file: Path, made_of: str, compute: Callable[[], Tensor]) -> Tensor:
    """As ``kept_in``, of one tensor."""
    return kept_in(file, made_of, lambda: {"values": compute()})["values"]
