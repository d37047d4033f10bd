"""``voice2face recordings/ -o portraits/``: a portrait for each recording, of a folder or named."""

from __future__ import annotations

import argparse
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voice2face.commands.contact_sheet import write_sheet
from voice2face.commands.ending_signals import ending_as_interrupts
from voice2face.commands.folder_report import (
    REPORT_ENDINGS,
    Outcome,
    ReportFile,
    places,
    read_report,
)
from voice2face.commands.folder_settings import drawn_otherwise, seed_of
from voice2face.commands.named_recordings import name_of, several_recordings
from voice2face.commands.options import BATCH_SIZE, draw_settings, wants_bars
from voice2face.errors import OutputError, PictureError, SettingError, Voice2FaceError
from voice2face.fast_import import import_pipeline
from voice2face.paths import expanded, is_folder, names_folder, resolved
from voice2face.picture_files import FORMATS, format_of
from voice2face.portrait import Portrait
from voice2face.recordings import advice_on, find_recordings, portrait_paths
from voice2face.replay import Making, read_making
from voice2face.seeds import choose_seeds
from voice2face.whole_files import (
    check_folder_writable,
    check_no_folder,
    check_writable,
    is_of_full_disk,
)


@ending_as_interrupts()
def make_portraits_of_folder(options: argparse.Namespace) -> bool:
    """Do what the parsed command line asks; tells whether every recording has its portrait.

    Those that lie in folders that cannot be read have none; those in formats that are not read are
    left out.

    The report tells of a run that was ended early, too, as far as it came; of portraits that were
    there already, it repeats what it told before.

    Raises:
        AudioNotFoundError: there are no recordings, or one that was named is not there.
        OutputError: the folder, the report or the sheet cannot be written.
        SettingError: an argument does not go with many recordings.
    """
    output = portraits_folder(options.output or "portraits")
    if options.num_images != 1:
        raise SettingError(
            "a folder, or several recordings, get one portrait a recording; leave out --num-images"
        )
    if options.report is not None and options.report.suffix.lower() not in REPORT_ENDINGS:
        raise OutputError(f"{options.report}: reports are written as {' or '.join(REPORT_ENDINGS)}")
    if options.contact_sheet is not None:
        format_of(options.contact_sheet)
    if len(options.audio) == 1:
        recordings, unread, unreadable = find_recordings(expanded(options.audio[0]))
    else:
        recordings, unread, unreadable = several_recordings(options.audio), [], {}
    if unread and not options.quiet:
        print(advice_on(unread), file=sys.stderr)
    for reason in unreadable.values():
        print(f"voice2face: {reason}", file=sys.stderr)
    names = [name_of(recording, options.audio) for recording in recordings]
    paths = portrait_paths(names, output)
    pairs = list(zip(recordings, paths, strict=True))
    makings, in_the_way = look_at_places(pairs)
    skipped = in_the_way.keys() | (() if options.overwrite else makings.keys())
    waiting = [(recording, path) for recording, path in pairs if recording not in skipped]
    files = [expanded(file) for file in (options.report, options.contact_sheet) if file is not None]
    check_no_portrait(files, paths)
    for file in files:
        check_no_folder(file)
    earlier = {} if options.report is None else read_report(expanded(options.report))
    parents = {path.parent for _, path in waiting}
    for parent in parents | {output}:
        make_folder(parent)
    for parent in parents:
        check_folder_writable(parent)
    for file in files:
        check_writable(file)
    known = {str(path): left_out(path) for path in unread}
    for recording, path in pairs:
        if recording in makings:
            known[str(recording)] = there_already(recording, path, makings[recording], earlier)
        elif recording in in_the_way:
            known[str(recording)] = failed(recording, path, in_the_way[recording])
    others = of_other_recordings(earlier, pairs)
    kept = None if options.report is None else ReportFile(expanded(options.report))

    def told() -> list[Outcome]:
        reached = [known[str(path)] for path in sorted(recordings + unread) if str(path) in known]
        return reached + others

    began = time.monotonic()
    drawing = draw(waiting, options)  # its errors leave an earlier report as it is
    try:
        for number, outcome in enumerate(drawing, 1):
            before = known.get(outcome.recording)
            if before is not None and outcome.error is not None:
                outcome = replace(before, status="failed", error=outcome.error)
            known[outcome.recording] = outcome
            if kept is not None and number % batch_size(options) == 0:
                kept.write_if_due(told)
    finally:
        if kept is not None:
            kept.write(told())
    seconds = time.monotonic() - began
    count = dict.fromkeys(("made", "there already", "failed"), 0)
    for outcome in known.values():
        count[outcome.status] = count.get(outcome.status, 0) + 1
    try:
        if not options.quiet:
            rate = f", {count['made'] / seconds:.1f} a second" if count["made"] else ""
            print(", ".join(f"{number} {status}" for status, number in count.items()) + rate)
            if not options.overwrite:
                tell_of_other_settings(drawn_otherwise(makings, options))
    finally:  # whether or not anything can be printed
        if options.contact_sheet is not None:
            portraits = [path for recording, path in pairs if recording not in in_the_way]
            write_sheet(filter(is_there, portraits), expanded(options.contact_sheet))
    return count["failed"] == 0 and not unreadable


def tell_of_other_settings(count: int) -> None:
    """Say how many of the portraits that are there were drawn with other settings, if any."""
    if count:
        were, them = ("was", "it") if count == 1 else ("were", "them")
        print(f"{count} of them {were} drawn with other settings; --overwrite makes {them} again")


def is_there(file: Path) -> bool:
    """Whether a file is there; an empty one, as a crash may leave, is none."""
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def look_at_places(
    pairs: Iterable[tuple[Path, Path]],
) -> tuple[dict[Path, Making], dict[Path, str]]:
    """What lies where portraits go.

    Args:
        pairs: recordings, and where their portraits go.

    Returns:
        By recording, how the portraits that are there were made; and why what is there is none.
    """
    makings, in_the_way = {}, {}
    for recording, path in pairs:
        if not is_there(path):
            continue
        try:
            makings[recording] = read_making(path)
        except PictureError:
            in_the_way[recording] = (
                f"{path} is there and is no portrait of voice2face; move it away, or choose "
                "another folder"
            )
    return makings, in_the_way


def there_already(
    recording: Path, path: Path, making: Making, earlier: Mapping[tuple[str, str], Outcome]
) -> Outcome:
    """What is known of a portrait that is there, from itself and from an earlier report."""
    there = Outcome(str(recording), str(path), "there already")
    told = earlier.get(places(recording, path), there)
    return replace(told, recording=there.recording, portrait=there.portrait, seed=making.seed)


def of_other_recordings(
    earlier: Mapping[tuple[str, str], Outcome], pairs: Iterable[tuple[Path, Path]]
) -> list[Outcome]:
    """What an earlier report told of portraits that are there, but not of these recordings.

    Their folder may be gone for a while, or cannot be read.
    """
    these = {places(recording, path) for recording, path in pairs}
    return [
        outcome
        for place, outcome in earlier.items()
        if place not in these and outcome.portrait and is_there(Path(outcome.portrait))
    ]


def failed(recording: Path, path: Path, reason: str) -> Outcome:
    """What becomes of a recording that gets no portrait, which is printed, too."""
    print(f"voice2face: {reason}", file=sys.stderr)
    return Outcome(str(recording), str(path), "failed", error=reason)


def left_out(recording: Path) -> Outcome:
    """What becomes of a recording in a format that is not read."""
    advice = f"{recording.suffix} is a format that is not read; convert it first"
    return Outcome(str(recording), None, "left out", error=advice)


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


def check_no_portrait(files: Iterable[Path], portraits: Iterable[Path]) -> None:
    """Refuse files in whose place a portrait goes; capitals make no difference.

    Raises:
        OutputError: names one.
    """
    taken = {resolved(path).casefold() for path in portraits}
    for file in files:
        if resolved(file).casefold() in taken:
            raise OutputError(f"{file} is the place of a portrait; choose another one")


def portraits_folder(written: str) -> Path:
    """The folder that a command line names for portraits.

    Raises:
        OutputError: a picture is named, which would become a folder of that name.
    """
    folder = expanded(written)
    is_picture = folder.suffix.lower() in FORMATS and not names_folder(written)
    if is_picture and not is_folder(folder):
        raise OutputError(
            f"{written} is a picture's name; portraits of several recordings go to a folder: "
            f"-o {folder.with_suffix('')}"
        )
    return folder


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
