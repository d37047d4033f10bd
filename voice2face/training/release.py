"""Gather what the two stages trained into one checkpoint folder, and list it in the manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler

from voice2face.checkpoints import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MODEL_INDEX,
    load_component,
    sha256_of,
)
from voice2face.pipeline import COMPONENTS, Voice2FacePipeline

STAGE_OF = {
    "speech_encoder": "collaborative",
    "face_encoder": "collaborative",
    "face_decoder": "collaborative",
    "face_prior": "diffusion",
    "denoiser": "diffusion",
    "scheduler": "diffusion",
}


def gather(
    collaborative: Path, diffusion: Path, to: Path, *, name: str, output_size: int
) -> dict[str, Any]:
    """Write the checkpoint in half precision and return its entry for the manifest."""
    folders = {"collaborative": collaborative, "diffusion": diffusion}
    components = {
        part: load_component(kind, folders[STAGE_OF[part]] / part)
        for part, kind in COMPONENTS.items()
    }
    networks = {
        part: network
        for part, network in components.items()
        if not isinstance(network, DDIMScheduler)
    }
    for network in networks.values():
        torch.nn.Module.to(network, torch.float16)
    Voice2FacePipeline(**components, output_size=output_size, name=name).save_pretrained(to)
    return describe(to)


def describe(folder: Path) -> dict[str, Any]:
    """A checkpoint folder's entry for the manifest: sizes, checksums, parameter counts."""
    index = json.loads((folder / MODEL_INDEX).read_text())
    networks = {
        part: load_component(kind, folder / part)
        for part, kind in COMPONENTS.items()
        if kind is not DDIMScheduler
    }
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "method": index["method"],
        "resolution": networks["face_decoder"].config.image_size,
        "output_size": index["output_size"],
        "parameters": {
            part: sum(p.numel() for p in network.parameters()) for part, network in networks.items()
        },
        "licence": "Apache-2.0",
        "training_data": [
            {"name": "FairFace, adults", "licence": "CC BY 4.0"},
            {"name": "Common Voice, 59 languages", "licence": "CC0-1.0"},
            {"name": "LibriSpeech", "licence": "CC BY 4.0"},
            {"name": "speechocean762, adults", "licence": "free for any use"},
        ],
        "files": {
            path.relative_to(folder).as_posix(): {
                "size": path.stat().st_size,
                "sha256": sha256_of(path),
            }
            for path in files
        },
    }


def write_manifest(folders: list[Path], file: Path) -> None:
    """Write the manifest of packaged checkpoints; the first folder is the default."""
    content = {
        "format_version": FORMAT_VERSION,
        "default": folders[0].name,
        "checkpoints": {folder.name: describe(folder) for folder in folders},
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--collaborative", type=Path, help="output folder of stage 1")
    parser.add_argument("--diffusion", type=Path, help="output folder of stage 2")
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to write or list")
    parser.add_argument("--output-size", type=int, default=256, help="side of saved pictures")
    parser.add_argument("--manifest", type=Path, default=MANIFEST_FILE, help="manifest to write")


def main(arguments: argparse.Namespace) -> None:
    """Gather the stages where they are given, then write the manifest of the folder."""
    to: Path = arguments.to
    if arguments.collaborative and arguments.diffusion:
        card = (to / "README.md").read_text() if (to / "README.md").exists() else None
        gather(
            arguments.collaborative,
            arguments.diffusion,
            to,
            name=to.name,
            output_size=arguments.output_size,
        )
        if card is not None:
            (to / "README.md").write_text(card)
    write_manifest([to], arguments.manifest)
