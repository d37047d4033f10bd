"""Gather what the stages trained into one checkpoint folder, and list it in the manifest."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler

from voice2face.checkpoints.files import component_folder, describe_files, shared_file
from voice2face.checkpoints.manifest import FORMAT_VERSION, MANIFEST_FILE, PACKAGED_WEIGHTS
from voice2face.checkpoints.model_card import read_card
from voice2face.checkpoints.model_index import OUTPUT_SIZES, read_model_index
from voice2face.commands.options import number_argument
from voice2face.components import load_component
from voice2face.errors import SettingError
from voice2face.methods import METHODS
from voice2face.models import FewStepUpdate
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pretrained_networks import components_of
from voice2face.training.learnt_with import refuse_other_networks, unlabelled_attributes
from voice2face.training.part_folders import is_checkpoint, part_folder
from voice2face.training.portraitist import BESIDE
from voice2face.training.starting_denoiser import denoiser_folder
from voice2face.whole_files import replace_file

NO_LABELS = "No voice that it learnt from was labelled with"
SAID = ("licence", "training_data", "hub")
NOTED = ("report", "licence", "training-data")  # options of what a manifest alone says
OF_STAGES = (
    *("collaborative", "decoder", "diffusion", "distillation", "face_check"),
    *("bottom", "upper", "retriever", "bottom_distillation", "upper_distillation"),
)


def places(arguments: argparse.Namespace) -> dict[str, Path]:
    """Where each component of the checkpoint lies; none where no stage is given.

    Raises:
        SettingError: a stage is given that would have no part in it.
    """
    given = {name: getattr(arguments, name) for name in OF_STAGES}
    found = gathered(given)
    left_over = [
        f"--{name.replace('_', '-')}"
        for name, place in given.items()
        if place is not None and not any(part.is_relative_to(place) for part in found.values())
    ]
    if left_over:
        raise SettingError(
            f"{', '.join(left_over)} would have no part in the checkpoint; SCLDM's is made of "
            "--collaborative and --diffusion (and --distillation), Fine-portraitist's of "
            "--collaborative, --bottom, --upper and --retriever (and --bottom-distillation and "
            "--upper-distillation; either with --decoder and --face-check)"
        )
    return found


def gathered(stages: Mapping[str, Path | None]) -> dict[str, Path]:
    """Where each component of what can be made of the stages lies; none where too few are given.

    Args:
        stages: their output folders, by the names in ``OF_STAGES``.
    """
    one, two, check = (stages.get(name) for name in ("collaborative", "diffusion", "face_check"))
    bottom, upper, retriever = (stages.get(name) for name in ("bottom", "upper", "retriever"))
    if one is None:
        return {}
    shared = {
        "speech_encoder": one / "speech_encoder",
        "face_encoder": one / "face_encoder",
        "face_decoder": (stages.get("decoder") or one) / "face_decoder",
    }
    if check is not None:
        shared["face_check"] = check / "face_check"
    if two is not None:
        distilled = stages.get("distillation")
        few_step = {} if distilled is None else {"few_step_update": distilled / "few_step_update"}
        stage_two = {part: two / part for part in ("face_prior", "denoiser", "scheduler")}
        return shared | stage_two | few_step
    if bottom is not None and upper is not None and retriever is not None:
        schedules = [
            load_component(DDIMScheduler, part_folder(half, "scheduler"))
            for half in (bottom, upper)
        ]
        if len({schedule.config.prediction_type for schedule in schedules}) > 1:
            raise SettingError(
                "--bottom and --upper learnt with different --prediction-type, and a checkpoint "
                "has one; train one of them anew, with that of the other"
            )
        updates = {
            f"{half}_few_step_update": distilled / f"{half}_few_step_update"
            for half in ("bottom", "upper")
            if (distilled := stages.get(f"{half}_distillation")) is not None
        }
        return (
            shared
            | updates
            | {
                "retriever": retriever / "retriever" if is_checkpoint(retriever) else retriever,
                "bottom_denoiser": denoiser_folder(bottom, "bottom_denoiser"),
                "upper_denoiser": denoiser_folder(upper, "upper_denoiser"),
                "scheduler": upper / "scheduler",
            }
        )
    return {}


def load_parts(folders: dict[str, Path]) -> dict[str, Any]:
    """The components that a pipeline is made of, from where ``gathered`` says that they lie.

    Raises:
        SettingError: a denoiser of Fine-portraitist is where the other one is wanted.
    """
    method = next(name for name in METHODS if components_of(name, folders).keys() == folders.keys())
    kinds = components_of(method, folders)
    parts: dict[str, Any] = {
        part: load_component(kind, part_folder(folders[part].parent, folders[part].name))
        for part, kind in kinds.items()
    }
    for half, beside in BESIDE.items():
        name = f"{half}_denoiser"
        config = parts[name].config if name in parts else None
        if config and config.beside_channels != beside * config.latent_channels:
            raise SettingError(
                f"the denoiser in --{half} {folders[name].parent} was trained by another stage"
            )
    return parts


def gather(components: dict[str, Any], to: Path, *, output_size: int, card: str | None) -> None:
    """Write the checkpoint in half precision."""
    for component in components.values():
        if isinstance(component, torch.nn.Module):
            torch.nn.Module.to(component, torch.float16)
    pipe = Voice2FacePipeline(**components, output_size=output_size, name=to.name, card=card)
    pipe.save_pretrained(to)


def card_without_labels(card: str | None, name: str, unlabelled: list[str]) -> str | None:
    """The model card, which says where sex and age mean nothing as no voice was labelled.

    Args:
        card: as it is; ``None`` for that of a new checkpoint.
        name: of the checkpoint.
        unlabelled: of ``unlabelled_attributes``.
    """
    if card is not None and NO_LABELS in card:
        lines = card.splitlines(keepends=True)
        card = "".join(line for line in lines if not line.startswith(NO_LABELS))
    if not unlabelled:
        return card
    card = card or f"# {name}\n\nA checkpoint of voice2face, without a model card yet.\n"
    said = f"{NO_LABELS} {' and '.join(unlabelled)}: what its evidence says of it means nothing."
    return f"{card.rstrip()}\n\n{said}\n"


def describe(folder: Path, report: Path | None) -> dict[str, Any]:
    """A checkpoint folder's entry for the manifest.

    Args:
        folder: the checkpoint.
        report: ``report.json`` of the evaluation command, for the figures.
    """
    index = read_model_index(folder)
    files = index["files"]
    kinds = components_of(index["method"], {name.partition("/")[0] for name in files})
    components: dict[str, Any] = {
        part: load_component(kind, component_folder(folder, part, files))
        for part, kind in kinds.items()
    }
    return {
        "method": index["method"],
        "resolution": components["face_decoder"].config.image_size,
        "output_size": index["output_size"],
        "parameters": {
            part: sum(tensor.numel() for tensor in learnt_by(component))
            for part, component in components.items()
            if learnt_by(component)
        },
        "figures": json.loads(report.read_text()) if report is not None else {},
        "files": dict(sorted((files | describe_files(folder)).items())),
    }


def learnt_by(component: object) -> list[torch.Tensor]:
    """What training found of a component; nothing of a schedule, or of faces to retrieve."""
    if isinstance(component, torch.nn.Module):
        return list(component.parameters())
    return list(component.tensors.values()) if isinstance(component, FewStepUpdate) else []


def leave_out_shared(folder: Path) -> None:
    """Take out of a packaged checkpoint what another one holds already."""
    for name, facts in read_model_index(folder)["files"].items():
        if shared_file(folder, name, facts) is not None:
            (folder / name).unlink(missing_ok=True)
    for part in folder.iterdir():
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()


def write_manifest(
    folder: Path,
    file: Path,
    report: Path | None,
    said: Mapping[str, Any] | None = None,
    *,
    changed: bool = True,
) -> None:
    """Enter a packaged checkpoint into the manifest, and make it the default of a new one.

    Args:
        folder: the checkpoint.
        file: the manifest.
        report: see ``describe``.
        said: licence and training data, where they are said anew; an entry that is there keeps its
            own otherwise.
        changed: whether the networks did, so that figures that were measured before say nothing.
    """
    content: dict[str, Any] = {"format_version": FORMAT_VERSION, "checkpoints": {}}
    if file.exists():
        content = json.loads(file.read_text())
    content.setdefault("default", folder.name)
    before = {"licence": "", "training_data": []} | content["checkpoints"].get(folder.name, {})
    kept = {name: value for name, value in before.items() if name in SAID}
    entry = describe(folder, report)
    if report is None and not changed:
        entry["figures"] = before.get("figures", {})
    long = {name: entry.pop(name) for name in ("figures", "files")}
    content["checkpoints"][folder.name] = entry | kept | dict(said or {}) | long
    text = json.dumps(content, indent=2) + "\n"
    replace_file(file, partial(Path.write_text, data=text))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--collaborative", type=Path, help="output folder of stage 1")
    parser.add_argument(
        "--decoder", type=Path, help="output folder of the decoder's fine-tuning (default: stage 1)"
    )
    parser.add_argument("--diffusion", type=Path, help="output folder of stage 2 of SCLDM")
    parser.add_argument(
        "--distillation", type=Path, help="output folder of its distillation (default: none)"
    )
    parser.add_argument(
        "--face-check", type=Path, help="output folder of the face check (default: none)"
    )
    parser.add_argument("--bottom", type=Path, help="output folder of Fine-portraitist's bottom")
    parser.add_argument("--upper", type=Path, help="output folder of Fine-portraitist's upper")
    parser.add_argument("--retriever", type=Path, help="folder of Fine-portraitist's retriever")
    for half in ("bottom", "upper"):
        parser.add_argument(
            f"--{half}-distillation",
            type=Path,
            help=f"output folder of the distillation of its {half}_denoiser (default: none)",
        )
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to write or list")
    parser.add_argument(
        "--output-size",
        type=number_argument(int, *OUTPUT_SIZES),
        default=256,
        help="side of saved pictures (default: %(default)s)",
    )
    parser.add_argument("--report", type=Path, help="report.json of the evaluation command")
    parser.add_argument("--licence", help="of the weights (default: as the manifest says)")
    parser.add_argument(
        "--training-data",
        nargs=2,
        action="append",
        metavar=("NAME", "LICENCE"),
        help="what the weights learnt from, once for each data set (default: as the manifest says)",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        help="manifest to list it in (default: for a folder of the package, the package's; else "
        "none)",
    )


def refuse_without_manifest(arguments: argparse.Namespace) -> None:
    """Do not pass over in silence what only a manifest would hold.

    Raises:
        SettingError: an option would mean nothing.
    """
    noted = [f"--{name}" for name in NOTED if vars(arguments)[name.replace("-", "_")] is not None]
    if noted:
        raise SettingError(
            f"{', '.join(noted)} would be noted in a manifest alone: give --manifest, too"
        )


def main(arguments: argparse.Namespace) -> None:
    """Gather the stages where they are given, then list the folder in the manifest."""
    to = Path(arguments.to).absolute()
    folders = places(arguments)
    manifest = arguments.manifest
    if manifest is None and to.parent == PACKAGED_WEIGHTS:
        manifest = MANIFEST_FILE
    if manifest is None:
        refuse_without_manifest(arguments)
    if not folders and manifest is None:
        raise SettingError("nothing is released: give stages' folders, or --manifest to list --to")
    if folders:
        components = load_parts(folders)
        refuse_other_networks({name: getattr(arguments, name) for name in OF_STAGES}, components)
        unlabelled = unlabelled_attributes(arguments.collaborative)
        card = card_without_labels(read_card(to), to.name, unlabelled)
        gather(components, to, output_size=arguments.output_size, card=card)
        leave_out_shared(to)
        print(to)
    said: dict[str, Any] = {} if arguments.licence is None else {"licence": arguments.licence}
    if arguments.training_data is not None:
        said["training_data"] = [
            {"name": name, "licence": licence} for name, licence in arguments.training_data
        ]
    if manifest is not None:
        write_manifest(to, manifest, arguments.report, said, changed=bool(folders))
        print(manifest)
