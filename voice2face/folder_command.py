"""``voice2face recordings/ -o portraits/``: one portrait for each recording under a folder."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from voice2face.errors import AudioNotFoundError, OutputError, SettingError, Voice2FaceError
from voice2face.fast_import import import_pipeline
from voice2face.paths import exists, expanded, is_file
from voice2face.picture_files import format_of, open_picture, save_marked, side_by_side
from voice2face.portrait import Portrait
from voice2face.settings import choose_seeds, seed_of_name
from voice2face.whole_files import check_folder_of, write_atomically

AUDIO_ENDINGS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au"}
)
UNREAD_ENDINGS = frozenset(  # of recordings in formats that are not read
    {".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp", ".caf", ".mka"}
)
REPORT_ENDINGS = (".csv", ".json")
SHEET_PICTURES = 400
SHEET_COLUMNS = 16
SHEET_PICTURE_SIZE = 128


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    Attributes:
        recording: its path.
        portrait: where its portrait lies, or would.
        status: ``"made"``, ``"there already"`` or ``"failed"``.
        seed: of the portrait.
        sex: that the voice sounds like.
        age: decade that the voice sounds like.
        speech_seconds: length of the speech found.
        warnings: what is wrong with a recording that could be used all the same.
        error: what was wrong with a recording that failed.
    """

    recording: str
    portrait: str
    status: str
    seed: int | None = None
    sex: str | None = None
    age: str | None = None
    speech_seconds: float | None = None
    warnings: str | None = None
    error: str | None = None


def find_recordings(folder: Path) -> tuple[list[Path], list[Path]]:
    """Audio files under a folder, by their endings, in order; hidden ones are left out.

    Returns:
        Those that are read, and those of formats that are not.

    Raises:
        AudioNotFoundError: there is none that is read.
    """
    visible = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_ENDINGS | UNREAD_ENDINGS
        and is_file(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    found = [path for path in visible if path.suffix.lower() in AUDIO_ENDINGS]
    unread = [path for path in visible if path.suffix.lower() in UNREAD_ENDINGS]
    if not found:
        advice = f"; {advice_on(unread)}" if unread else ""
        endings = ", ".join(sorted(AUDIO_ENDINGS))
        raise AudioNotFoundError(f"{folder} holds no recordings ({endings}){advice}")
    return found, unread


def advice_on(unread: Sequence[Path]) -> str:
    """What to do with recordings of formats that are not read."""
    endings = ", ".join(sorted({path.suffix.lower() for path in unread}))
    return f"left out {len(unread)} of formats that are not read ({endings}); convert them first"


def portrait_paths(recordings: Sequence[Path], folder: Path, output: Path) -> list[Path]:
    """Where each portrait goes: the same path under ``output``, ending in ``.png``.

    Recordings whose portraits would have the same path, as they differ in their ending alone, keep
    the ending: ``a.wav.png`` and ``a.mp3.png``. Capitals make no difference, as on many file
    systems.
    """
    below = [path.relative_to(folder) for path in recordings]
    paths = [output / path.with_suffix(".png") for path in below]
    while True:
        counts = Counter(str(path).casefold() for path in paths)
        longer = [output / f"{path}.png" for path in below]
        clashing = [
            k
            for k, path in enumerate(paths)
            if counts[str(path).casefold()] > 1 and path != longer[k]
        ]
        if not clashing:
            return paths
        for k in clashing:
            paths[k] = longer[k]


def make_portraits_of_folder(options: argparse.Namespace) -> bool:
    """Do what the parsed command line asks; tells whether every recording has its portrait.

    The report tells of a run that was ended early, too; of portraits that were there already, it
    repeats what it told before.

    Raises:
        AudioNotFoundError: there are no recordings.
        OutputError: the folder, the report or the sheet cannot be written.
        SettingError: an argument does not go with a folder.
    """
    folder, output = expanded(options.audio), expanded(options.output or "portraits")
    if options.num_images != 1:
        raise SettingError("a folder gets one portrait a recording; leave out --num-images")
    if options.report is not None and options.report.suffix.lower() not in REPORT_ENDINGS:
        raise OutputError(f"{options.report}: reports are written as {' or '.join(REPORT_ENDINGS)}")
    if options.contact_sheet is not None:
        format_of(options.contact_sheet)
    recordings, unread = find_recordings(folder)
    if unread:
        print(advice_on(unread), file=sys.stderr)
    paths = portrait_paths(recordings, folder, output)
    waiting = [
        (recording, path)
        for recording, path in zip(recordings, paths, strict=True)
        if options.overwrite or not exists(path)
    ]
    for parent in {path.parent for _, path in waiting} | {output}:
        make_folder(parent)
    for file in (options.report, options.contact_sheet):
        if file is not None:
            check_folder_of(expanded(file))

    earlier = {} if options.report is None else read_report(expanded(options.report))
    known = {}
    for recording, path in zip(recordings, paths, strict=True):
        if exists(path):
            there = Outcome(str(recording), str(path), "there already")
            known[str(recording)] = earlier.get((there.recording, there.portrait), there)

    began = time.monotonic()
    drawing = draw(waiting, options)  # its errors leave an earlier report as it is
    try:
        for outcome in drawing:
            known[outcome.recording] = outcome
    finally:
        outcomes = [known[str(name)] for name in recordings if str(name) in known]
        if options.report is not None:
            write_atomically(expanded(options.report), report(outcomes, options.report.suffix))
    seconds = time.monotonic() - began
    if options.contact_sheet is not None:
        write_sheet([path for path in paths if exists(path)], expanded(options.contact_sheet))
    count = dict.fromkeys(("made", "there already", "failed"), 0)
    for outcome in outcomes:
        count[outcome.status] += 1
    if not options.quiet:
        rate = f", {count['made'] / seconds:.1f} a second" if count["made"] else ""
        print(", ".join(f"{number} {status}" for status, number in count.items()) + rate)
    return count["failed"] == 0


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
    folder, seeds = expanded(options.audio), None
    if options.seed is not None:
        choose_seeds(1, options.seed, None)
        names = [recording.relative_to(folder).as_posix() for recording, _ in waiting]
        seeds = [seed_of_name(name, options.seed) for name in names]
    results = pipe.map(
        [recording for recording, _ in waiting],
        batch_size=options.batch_size,
        seed=seeds,
        preset=options.preset,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        variety=options.variety,
        watermark=options.watermark,
        progress=not options.quiet,
        on_error="return",
    )
    return settle_all(waiting, results)


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
    """Save one portrait, or note why there is none."""
    if isinstance(result, Voice2FaceError):
        return Outcome(str(recording), str(path), "failed", error=str(result))
    result.save(path)
    evidence = result.evidence
    return Outcome(
        str(recording),
        str(path),
        "made",
        seed=result.seed,
        sex=evidence.sex,
        age=evidence.age,
        speech_seconds=evidence.speech_seconds,
        warnings="; ".join(evidence.warnings) or None,
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made: {error.strerror or error}; choose another place"
        ) from error


def report(outcomes: Iterable[Outcome], ending: str) -> bytes:
    """The outcomes as CSV or JSON."""
    rows = [asdict(outcome) for outcome in outcomes]
    if ending.lower() == ".json":
        return (json.dumps(rows, indent=2) + "\n").encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Outcome)])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def read_report(file: Path) -> dict[tuple[str, str], Outcome]:
    """What an earlier report tells, by recording and portrait; nothing if there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        as_json = file.suffix.lower() == ".json"
        rows = json.loads(text) if as_json else csv.DictReader(io.StringIO(text, newline=""))
        found = {}
        for row in rows:
            told: dict[str, Any] = {
                name: value for name, value in row.items() if value not in (None, "")
            }
            for name, kind in (("seed", int), ("speech_seconds", float)):
                if name in told:
                    told[name] = kind(told[name])
            outcome = Outcome(**told | {"status": "there already"})
            found[outcome.recording, outcome.portrait] = outcome
        return found
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, csv.Error):
        return {}


def write_sheet(paths: Sequence[Path], file: Path) -> None:
    """Write the first portraits side by side.

    Raises:
        OutputError: there is no portrait, or the sheet cannot be written.
        PictureError: a portrait that was there already cannot be read.
    """
    if not paths:
        raise OutputError("no portrait was made, so there is no contact sheet")
    size = (SHEET_PICTURE_SIZE, SHEET_PICTURE_SIZE)
    pictures = [
        open_picture(path).resize(size, Image.Resampling.LANCZOS) for path in paths[:SHEET_PICTURES]
    ]
    save_marked(side_by_side(pictures, min(SHEET_COLUMNS, len(pictures))), file, {})
