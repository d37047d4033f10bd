from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from voice2face.tensor_files import save_tensors


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6).reshape(2, 3), "a": torch.ones(2, dtype=torch.float16)}
    metadata = {name: f'{name} \u00fc "quoted"' for name in "cabfed"}
    files = [tmp_path / f"{k}.safetensors" for k in range(20)]
    for k, file in enumerate(files):
        names = sorted(metadata, key=lambda name: hash((name, k)))
        save_tensors(tensors, file, {name: metadata[name] for name in names})
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "pt") as opened:
        assert opened.metadata() == metadata
        for name, tensor in tensors.items():
            assert torch.equal(opened.get_tensor(name), tensor)
