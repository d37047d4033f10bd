"""Drawing the portraits of many recordings, and saving them as they are made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from voice2face.commands.folder_report import Outcome
from voice2face.commands.folder_settings import seed_of
from voice2face.commands.options import BATCH_SIZE, draw_settings, wants_bars
from voice2face.errors import OutputError, Voice2FaceError
from voice2face.fast_import import import_pipeline
from voice2face.portrait import Portrait
from voice2face.seeds import choose_seeds
from voice2face.whole_files import is_of_full_disk


def draw(waiting: Sequence[tuple[Path, Path]], options: argparse.Namespace) -> Iterator[Outcome]:
    """Make and save the portraits that are asked for; a bad recording stops nothing.

    Raises:
        CheckpointError: the checkpoint cannot be used; this and the next at once.
        DeviceError: there is no such device.
        SettingError: an argument is out of range.
    """
    if not waiting:
        return iter(())
    import_pipeline()
    from voice2face.pipeline import Voice2FacePipeline

    pipe = Voice2FacePipeline.from_pretrained(options.model, device=options.device)
    seeds = None
    if options.seed is not None:
        choose_seeds(1, options.seed, None)
        seeds = [seed_of(recording, options) for recording, _ in waiting]
    results = pipe.map(
        [recording for recording, _ in waiting],
        batch_size=batch_size(options),
        seed=seeds,
        **draw_settings(options),
        progress=wants_bars(options),
        on_error="return",
    )
    return settle_all(waiting, results)


def batch_size(options: argparse.Namespace) -> int:
    """Recordings of which portraits are drawn together."""
    return BATCH_SIZE if options.batch_size is None else int(options.batch_size)


def settle_all(
    waiting: Sequence[tuple[Path, Path]], results: Iterable[Portrait | Voice2FaceError]
) -> Iterator[Outcome]:
    """Save the portraits as they are made, and print why others are not."""
    from tqdm.auto import tqdm

    for (recording, path), result in zip(waiting, results, strict=True):
        outcome = settle(recording, path, result)
        if outcome.error is not None:
            tqdm.write(f"voice2face: {outcome.error}", file=sys.stderr)
        yield outcome


def settle(recording: Path, path: Path, result: Portrait | Voice2FaceError) -> Outcome:
    """Save one portrait, or note why there is none.

    Raises:
        OutputError: nothing more can be written there.
    """
    if isinstance(result, Voice2FaceError):
        return Outcome(str(recording), str(path), "failed", error=str(result))
    try:
        result.save(path)
    except OutputError as error:
        if is_of_full_disk(error):
            raise
        return Outcome(str(recording), str(path), "failed", error=str(error))
    return outcome_of_portrait(recording, path, result)


def outcome_of_portrait(recording: Path, path: Path | None, portrait: Portrait) -> Outcome:
    """What is told of a portrait that was made, and lies at a path, if at any."""
    evidence = portrait.evidence
    return Outcome(
        str(recording),
        None if path is None else str(path),
        "made",
        seed=portrait.seed,
        sex=evidence.sex,
        age=evidence.age,
        speech_seconds=evidence.speech_seconds,
        warnings="; ".join(evidence.warnings) or None,
    )
