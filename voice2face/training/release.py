"""Gather what the stages trained into one checkpoint folder, and list it in the manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from voice2face.checkpoints import (
    CARD,
    FORMAT_VERSION,
    MANIFEST_FILE,
    describe_files,
    read_model_index,
)
from voice2face.components import load_component
from voice2face.pipeline import Voice2FacePipeline, components_of

METHOD = "scldm"
STAGE_OF = {
    "speech_encoder": "collaborative",
    "face_encoder": "collaborative",
    "face_decoder": "decoder",
    "face_prior": "diffusion",
    "denoiser": "diffusion",
    "scheduler": "diffusion",
}


def gather(folders: dict[str, Path], to: Path, *, output_size: int, card: str | None) -> None:
    """Write the checkpoint in half precision, each part from its stage's folder."""
    components = {
        part: load_component(kind, folders[STAGE_OF[part]] / part)
        for part, kind in components_of(METHOD).items()
    }
    for component in components.values():
        if isinstance(component, torch.nn.Module):
            torch.nn.Module.to(component, torch.float16)
    pipe = Voice2FacePipeline(**components, output_size=output_size, name=to.name, card=card)
    pipe.save_pretrained(to)


def describe(folder: Path, report: Path | None) -> dict[str, Any]:
    """A checkpoint folder's entry for the manifest.

    Args:
        folder: the checkpoint.
        report: ``report.json`` of the evaluation command, for the figures.
    """
    index = read_model_index(folder)
    components: dict[str, Any] = {
        part: load_component(kind, folder / part)
        for part, kind in components_of(index["method"]).items()
    }
    return {
        "method": index["method"],
        "resolution": components["face_decoder"].config.image_size,
        "output_size": index["output_size"],
        "parameters": {
            part: sum(p.numel() for p in component.parameters())
            for part, component in components.items()
            if isinstance(component, torch.nn.Module)
        },
        "licence": "Apache-2.0",
        "training_data": [
            {"name": "FairFace, adults", "licence": "CC BY 4.0"},
            {"name": "Common Voice, 59 languages", "licence": "CC0-1.0"},
            {"name": "LibriSpeech", "licence": "CC BY 4.0"},
            {"name": "speechocean762, adults", "licence": "free for any use"},
        ],
        "figures": json.loads(report.read_text()) if report is not None else {},
        "files": describe_files(folder),
    }


def write_manifest(folder: Path, file: Path, report: Path | None) -> None:
    """Enter a packaged checkpoint into the manifest, and make it the default of a new one."""
    content: dict[str, Any] = {"format_version": FORMAT_VERSION, "checkpoints": {}}
    if file.exists():
        content = json.loads(file.read_text())
    content.setdefault("default", folder.name)
    content["checkpoints"][folder.name] = describe(folder, report)
    file.write_text(json.dumps(content, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--collaborative", type=Path, help="output folder of stage 1")
    parser.add_argument(
        "--decoder", type=Path, help="output folder of the decoder's fine-tuning (default: stage 1)"
    )
    parser.add_argument("--diffusion", type=Path, help="output folder of stage 2")
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to write or list")
    parser.add_argument("--output-size", type=int, default=256, help="side of saved pictures")
    parser.add_argument("--report", type=Path, help="report.json of the evaluation command")
    parser.add_argument("--manifest", type=Path, default=MANIFEST_FILE, help="manifest to write")


def main(arguments: argparse.Namespace) -> None:
    """Gather the stages where they are given, then write the manifest of the folder."""
    to: Path = arguments.to
    if arguments.collaborative and arguments.diffusion:
        gather(
            {
                "collaborative": arguments.collaborative,
                "decoder": arguments.decoder or arguments.collaborative,
                "diffusion": arguments.diffusion,
            },
            to,
            output_size=arguments.output_size,
            card=(to / CARD).read_text() if (to / CARD).exists() else None,
        )
    write_manifest(to, arguments.manifest, arguments.report)
