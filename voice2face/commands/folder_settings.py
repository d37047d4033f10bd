"""How a folder's portraits are to be drawn, and which of those that are there were drawn so."""

from __future__ import annotations

import argparse
from pathlib import Path

from voice2face.checkpoints.learnt_preset import learnt_preset
from voice2face.checkpoints.model_index import read_model_index
from voice2face.checkpoints.resolving import find_folder
from voice2face.commands.named_recordings import name_of
from voice2face.commands.options import draw_settings
from voice2face.errors import CheckpointError
from voice2face.saved_portraits import Making
from voice2face.seeds import seed_of_name
from voice2face.settings import MOST_STEPS, Settings, choose_settings


def seed_of(recording: Path, options: argparse.Namespace) -> int:
    """The seed that ``--seed`` gives a recording."""
    return seed_of_name(name_of(recording, options.audio).as_posix(), options.seed)


def settings_asked(options: argparse.Namespace) -> Settings | None:
    """The settings that a command line draws with; ``None`` where its checkpoint is not here.

    No network is loaded.
    """
    try:
        folder = find_folder(options.model, local_files_only=True)
        learnt = learnt_preset(folder)
        name = read_model_index(folder)["name"]
    except (CheckpointError, OSError):
        return None
    return choose_settings(name, learnt, MOST_STEPS, **draw_settings(options))


def drawn_otherwise(makings: dict[Path, Making], options: argparse.Namespace) -> int:
    """How many recordings' portraits were drawn with other settings, or another seed than asked.

    Args:
        makings: how they were made, by recording.
        options: of the command line.
    """
    if not makings:
        return 0
    asked = settings_asked(options)
    return sum(
        (asked is not None and making.settings != asked)
        or (options.seed is not None and making.seed != seed_of(recording, options))
        for recording, making in makings.items()
    )
