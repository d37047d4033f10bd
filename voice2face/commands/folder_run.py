"""What a run over many recordings is, looked at and refused before anything is drawn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voice2face.commands.folder_places import (
    check_no_portrait,
    look_at_places,
    make_folder,
)
from voice2face.commands.folder_report import Outcome, check_ending, read_report
from voice2face.commands.named_recordings import name_of, several_recordings
from voice2face.errors import SettingError
from voice2face.paths import STANDARD_OUTPUT, expanded
from voice2face.picture_files import format_of
from voice2face.recording_folders import Found, advice_on, find_recordings, portrait_paths
from voice2face.saved_portraits import Making
from voice2face.whole_files import check_folder_writable, check_no_folder, check_writable


@dataclass(frozen=True)
class FolderRun:
    """One run, as it is before anything is drawn.

    Attributes:
        found: the recordings, and what lies beside them.
        pairs: recordings, and where their portraits go.
        makings: how the portraits that are there were made, by recording.
        in_the_way: why what is in the place of a portrait is none, by recording.
        waiting: the pairs that get a portrait now.
        output: the folder of the portraits.
        report: where what became of each recording is written, if anywhere.
        sheet: where the portraits are shown side by side, if anywhere.
        earlier: what an earlier report tells, by ``places``.
    """

    found: Found
    pairs: list[tuple[Path, Path]]
    makings: dict[Path, Making]
    in_the_way: dict[Path, str]
    waiting: list[tuple[Path, Path]]
    output: Path
    report: Path | None
    sheet: Path | None
    earlier: Mapping[tuple[str, str], Outcome]

    @property
    def files(self) -> list[Path]:
        """What is written beside the portraits."""
        return [file for file in (self.report, self.sheet) if file is not None]

    @property
    def portraits(self) -> list[Path]:
        """Where portraits are, or are to be, but for places that something else has taken."""
        return [path for recording, path in self.pairs if recording not in self.in_the_way]


def check_options(options: argparse.Namespace) -> None:
    """Refuse what does not go with many recordings.

    Raises:
        OutputError: the report or the sheet has a name that is none of its kind's.
        SettingError: several portraits of each recording, or all on standard output, are asked for.
    """
    if options.output == STANDARD_OUTPUT:
        raise SettingError(
            "standard output takes one portrait; name the folder of several: -o portraits/"
        )
    if options.num_images != 1:
        raise SettingError(
            "a folder, or several recordings, get one portrait a recording; leave out --num-images"
        )
    if options.report is not None:
        check_ending(options.report)
    if options.contact_sheet is not None:
        format_of(options.contact_sheet)


def recordings_of(options: argparse.Namespace) -> Found:
    """The recordings that a command line names, or those under its folder.

    Raises:
        AudioNotFoundError: there are none, or one that was named is not there.
        SettingError: two of them would share a portrait, or one is a folder.
    """
    if len(options.audio) == 1:
        return find_recordings(expanded(options.audio[0]))
    return Found(several_recordings(options.audio), [], {})


def tell_of_unread(found: Found, options: argparse.Namespace) -> None:
    """Print what is left out, and which folders cannot be read."""
    if found.unread and not options.quiet:
        print(advice_on(found.unread), file=sys.stderr)
    for reason in found.unreadable.values():
        print(f"voice2face: {reason}", file=sys.stderr)


def plan_run(found: Found, output: Path, options: argparse.Namespace) -> FolderRun:
    """Look at the places of what a command line asks for; nothing is written.

    Args:
        found: the recordings.
        output: the folder of their portraits.
        options: of the command line.

    Raises:
        OutputError: the report or the sheet is in the place of something else.
    """
    names = [name_of(recording, options.audio) for recording in found.recordings]
    paths = portrait_paths(names, output)
    pairs = list(zip(found.recordings, paths, strict=True))
    makings, in_the_way = look_at_places(pairs)
    skipped = in_the_way.keys() | (() if options.overwrite else makings.keys())
    report, sheet = (
        None if file is None else expanded(file) for file in (options.report, options.contact_sheet)
    )
    files = [file for file in (report, sheet) if file is not None]
    check_no_portrait(files, paths)
    for file in files:
        check_no_folder(file)
    return FolderRun(
        found=found,
        pairs=pairs,
        makings=makings,
        in_the_way=in_the_way,
        waiting=[(recording, path) for recording, path in pairs if recording not in skipped],
        output=output,
        report=report,
        sheet=sheet,
        earlier={} if report is None else read_report(report),
    )


def make_places(run: FolderRun) -> None:
    """Make the folders that portraits go to, and refuse places that cannot be written to.

    Raises:
        OutputError: names one.
    """
    parents = {path.parent for _, path in run.waiting}
    for parent in parents | {run.output}:
        make_folder(parent)
    for parent in parents:
        check_folder_writable(parent)
    for file in run.files:
        check_writable(file)
