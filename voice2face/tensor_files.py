"""Safetensors files with the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

LENGTH_BYTES = 8  # of the header's length, at the file's beginning


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata; safetensors by itself writes the latter in any order.

    Raises:
        OSError: the file cannot be written.
        SafetensorError: a tensor cannot be.
    """
    data = save(dict(tensors), dict(metadata))
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    sorted_header = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    with path.open("wb") as file:
        file.write(data[:LENGTH_BYTES])
        file.write(sorted_header.ljust(end - LENGTH_BYTES))
        file.write(data[end:])


def halve_where_exact(path: Path) -> None:
    """Write a file's float32 numbers as float16, if every one of them stays as it is.

    Raises:
        OSError: the file cannot be read or written.
    """
    tensors = load(path.read_bytes())
    single = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    halved = {name: tensor.half() for name, tensor in single.items()}
    if not single or not all(torch.equal(halved[name].float(), single[name]) for name in single):
        return
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors | halved, path, metadata)
