"""The commands ``voice2face models``, ``download``, ``verify-weights`` and ``export-onnx``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from voice2face.checkpoints.files import verify
from voice2face.checkpoints.manifest import PACKAGED_WEIGHTS, manifest
from voice2face.checkpoints.model_index import read_model_index
from voice2face.checkpoints.resolving import resolve, where
from voice2face.checkpoints.saving import copy_checkpoint


def build_parser() -> argparse.ArgumentParser:
    """Declare the four commands."""
    parser = argparse.ArgumentParser(
        prog="voice2face", description="List, fetch, verify and export checkpoints."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    summary = "list the released checkpoints: method, size, licence, where each lies"
    commands.add_parser("models", help=summary, description=summary)

    summary = "copy a released checkpoint, or one from the Hub, to a folder"
    download = commands.add_parser("download", help=summary, description=summary)
    download.add_argument("name", help="a name that 'voice2face models' lists, or owner/name")
    download.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    download.add_argument("--revision", help="branch, tag or commit, of owner/name only")

    summary = "read every file of a checkpoint and compare its sha256"
    verify = commands.add_parser("verify-weights", help=summary, description=summary)
    verify.add_argument(
        "name", nargs="?", help="a listed name, owner/name, or a folder (default: the packaged one)"
    )

    summary = "write a checkpoint's networks as ONNX, for programs without PyTorch"
    export = commands.add_parser("export-onnx", help=summary, description=summary)
    export.add_argument(
        "name", nargs="?", help="a listed name, owner/name, or a folder (default: the packaged one)"
    )
    export.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    return parser


def list_models(_: argparse.Namespace) -> None:
    """Print a table of the manifest."""
    content = manifest()
    for name, entry in content["checkpoints"].items():
        size = sum(file["size"] for file in entry["files"].values())
        parameters = sum(entry["parameters"].values())
        default = ", default" if name == content["default"] else ""
        print(f"{name}{default}")
        print(f"  {entry['method']}, {entry['resolution']} px, saved at {entry['output_size']} px")
        print(f"  {parameters / 1e6:.1f} M parameters, {size / 1e6:.1f} MB, {entry['licence']}")
        print(f"  {where(name)}")


def download_model(options: argparse.Namespace) -> None:
    """Resolve a checkpoint and copy its files."""
    source = resolve(options.name, revision=options.revision)
    folder = copy_checkpoint(source, options.to)
    print(f"{folder}  every file verified")


def verify_weights(options: argparse.Namespace) -> None:
    """Read every file again, whatever is remembered of it."""
    folder = resolve(options.name)
    files = read_model_index(folder)["files"]
    entry = manifest()["checkpoints"].get(folder.name)
    if entry is not None and folder.parent == PACKAGED_WEIGHTS:
        files = entry["files"]
    verify(folder, files, again=True)
    for name, facts in files.items():
        print(f"{facts['sha256']}  {facts['size']:>10}  {name}")
    print(f"{folder}: {len(files)} files are as they were written")


def export_networks(options: argparse.Namespace) -> None:
    """Load a checkpoint and write its networks as ONNX."""
    from voice2face.onnx.export import export_onnx
    from voice2face.pipeline import Voice2FacePipeline

    folder = export_onnx(Voice2FacePipeline.from_pretrained(options.name, device="cpu"), options.to)
    for path in sorted(folder.iterdir()):
        print(path)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "models": list_models,
    "download": download_model,
    "verify-weights": verify_weights,
    "export-onnx": export_networks,
}


def run(arguments: list[str]) -> None:
    """Parse and run one of the commands."""
    options = build_parser().parse_args(arguments)
    COMMANDS[options.command](options)
