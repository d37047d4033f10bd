"""Command-line arguments that training stages share."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from voice2face.commands.options import number_argument
from voice2face.data.tables import FaceTable, VoiceTable, load_faces, load_voices, read_rows
from voice2face.seeds import LARGEST_SEED
from voice2face.training.loop import LoopOptions
from voice2face.training.pairing import AttributeBridge, Pairing, TruePairs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")

MOST = 1_000_000_000  # of anything that is counted
count_argument = number_argument(int, 1, MOST)
seed_argument = number_argument(int, 0, LARGEST_SEED)
share_argument = number_argument(float, 0, 1)
weight_argument = number_argument(float, 0, 1_000)  # of a loss


def multiple_argument(of: int, most: float) -> Callable[[str], float]:
    """What reads an option's whole number, as argparse takes it, and refuses what is no multiple.

    Args:
        of: the least that it may be, and what it is a multiple of.
        most: that it may be.
    """
    in_range = number_argument(int, of, most)

    def parse(text: str) -> float:
        number = in_range(text)
        if number % of:
            raise argparse.ArgumentTypeError(f"give a multiple of {of}, not {text!r}")
        return number

    return parse


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the tables lie."""
    data = parser.add_argument_group("data", "either --faces with --voices, or --pairs")
    data.add_argument("--faces", nargs="+", help="parquet files (or patterns) of labelled faces")
    data.add_argument("--voices", nargs="+", help="parquet files (or patterns) of labelled voices")
    data.add_argument(
        "--pairs", nargs="+", help="parquet files (or patterns) of true pairs: audio, face, person"
    )
    data.add_argument(
        "--limit",
        type=number_argument(int, 2, MOST),
        help="rows to read of each split, for a trial run",
    )


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the faces lie, for a stage that hears nothing."""
    data = parser.add_argument_group("data")
    either = data.add_mutually_exclusive_group(required=True)
    either.add_argument("--faces", nargs="+", help="parquet files (or patterns) of faces")
    either.add_argument("--pairs", nargs="+", help="parquet files (or patterns) of true pairs")
    data.add_argument(
        "--limit",
        type=number_argument(int, 2, MOST),
        help="rows to read of each split, for a trial run",
    )


def add_perceptual_option(parser: argparse.ArgumentParser) -> None:
    """Declare where the features of the perceptual loss lie."""
    parser.add_argument(
        "--perceptual-weights",
        type=Path,
        required=True,
        help="SqueezeNet 1.0 features (safetensors)",
    )


def load_split(
    arguments: argparse.Namespace, split: str, image_size: int
) -> tuple[FaceTable, VoiceTable, Pairing]:
    """Read one split of the tables the command line names, and say how its rows pair.

    What was read is kept, for a process that trains on the same tables several times.
    """
    limit = arguments.limit
    if arguments.pairs:
        return _read_pairs(tuple(arguments.pairs), split, image_size, limit)
    faces, voices = tuple(arguments.faces), tuple(arguments.voices)
    return _read_strangers(faces, voices, split, image_size, limit)


def checksum_of_split(arguments: argparse.Namespace, split: str) -> str:
    """Checksum of all that ``load_split`` reads, for notes of what was made of it."""
    tables = [arguments.pairs] if arguments.pairs else [arguments.faces]
    if not arguments.pairs and hasattr(arguments, "voices"):  # a decoder's training hears nothing
        tables.append(arguments.voices)
    return _checksum(tuple(map(tuple, tables)), split, arguments.limit)


@lru_cache(maxsize=4)
def _checksum(tables: tuple[tuple[str, ...], ...], split: str, limit: int | None) -> str:
    digest = hashlib.sha256()
    for table in tables:
        for row in read_rows(table, split, limit):
            for name, value in sorted(row.items()):
                digest.update(f"\0{name}\0".encode())
                digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _read_pairs(
    pairs: tuple[str, ...], split: str, image_size: int, limit: int | None
) -> tuple[FaceTable, VoiceTable, Pairing]:
    faces = load_faces(pairs, split, image_size, limit=limit, column="face")
    voices = load_voices(pairs, split, limit=limit, speaker_column="person")
    return faces, voices, TruePairs(voices.speaker, voices.speaker)


@lru_cache(maxsize=2)
def _read_strangers(
    faces: tuple[str, ...], voices: tuple[str, ...], split: str, image_size: int, limit: int | None
) -> tuple[FaceTable, VoiceTable, Pairing]:
    read = load_faces(faces, split, image_size, limit=limit)
    heard = load_voices(voices, split, limit=limit)
    return read, heard, AttributeBridge(read, heard)


def add_loop_options(parser: argparse.ArgumentParser) -> None:
    """Declare how long to train and where to write."""
    loop = parser.add_argument_group("training")
    loop.add_argument(
        "--out", type=Path, required=True, help="folder for log, state, components, contact sheets"
    )
    loop.add_argument(
        "--time-budget",
        type=number_argument(float, 1e-3, math.inf),
        default=3600.0,
        metavar="SECONDS",
        help="seconds of training, resumes included (default: %(default)s)",
    )
    loop.add_argument(
        "--max-steps",
        type=count_argument,
        default=10**9,
        help="optimiser steps at most (default: no limit)",
    )
    loop.add_argument(
        "--cooldown",
        type=share_argument,
        default=0.25,
        metavar="SHARE",
        help="last share of the run over which the learning rate falls (default: %(default)s)",
    )
    loop.add_argument(
        "--ema-decay",
        type=share_argument,
        default=LoopOptions.ema_decay,
        help="decay of the averaged weights (default: %(default)s)",
    )
    loop.add_argument(
        "--resume",
        action="store_true",
        help="continue from the state in --out, with the options that the run was begun with: "
        "budget, steps, --cooldown, --evaluate-every, --device, --compile and --latents alone may "
        "change",
    )
    loop.add_argument(
        "--evaluate-every",
        type=number_argument(float, 0, math.inf),
        default=300.0,
        metavar="SECONDS",
        help="seconds between evaluations (default: %(default)s)",
    )
    loop.add_argument(
        "--seed",
        type=seed_argument,
        default=0,
        help="seed of everything random (default: %(default)s)",
    )
    loop.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")


def options_from(arguments: argparse.Namespace, kind: type[Options]) -> Options:
    """A stage's options, with the defaults of those that the command line has no argument for.

    Args:
        arguments: parsed.
        kind: a dataclass, each field called like the argument that sets it.
    """
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in vars(arguments).items() if name in names})


def begun_with(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a run and the checksum of its tables, as JSON holds them."""
    options = {name: _as_json(name, value) for name, value in sorted(vars(arguments).items())}
    tables = [checksum_of_split(arguments, split) for split in ("train", "validation")]
    return {"options": options, "tables": tables}


def _as_json(name: str, value: object) -> Any:
    """Places as whole paths, so that a run may go on from another working directory."""
    is_place = isinstance(value, Path) or (
        name in ("checkpoint", "critic") and isinstance(value, str) and Path(value).exists()
    )
    if is_place:
        return str(Path(str(value)).absolute())
    return json.loads(json.dumps(value, default=str))
