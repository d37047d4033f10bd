"""``voice2face recordings/ -o portraits/``: a portrait for each recording, of a folder or named."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from voice2face.commands.contact_sheet import write_sheet
from voice2face.commands.ending_signals import ending_as_interrupts
from voice2face.commands.folder_drawing import batch_size, draw
from voice2face.commands.folder_outcomes import Outcomes
from voice2face.commands.folder_places import is_there, portraits_folder
from voice2face.commands.folder_report import Outcome, ReportFile
from voice2face.commands.folder_run import (
    check_options,
    make_places,
    plan_run,
    recordings_of,
    tell_of_unread,
)
from voice2face.commands.folder_settings import drawn_otherwise


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
    check_options(options)
    output = portraits_folder(options.output or "portraits")
    found = recordings_of(options)
    tell_of_unread(found, options)
    run = plan_run(found, output, options)
    make_places(run)
    outcomes = Outcomes(run)
    began = time.monotonic()
    drawing = draw(run.waiting, options)  # its errors leave an earlier report as it is
    note_outcomes(drawing, outcomes, run.report, batch_size(options))
    seconds = time.monotonic() - began
    count = outcomes.count()
    try:
        if not options.quiet:
            tell_of_count(count, seconds)
            if not options.overwrite:
                tell_of_other_settings(drawn_otherwise(run.makings, options))
    finally:  # whether or not anything can be printed
        if run.sheet is not None:
            write_sheet(filter(is_there, run.portraits), run.sheet)
    return count["failed"] == 0 and not found.unreadable


def note_outcomes(
    drawing: Iterable[Outcome], outcomes: Outcomes, report: Path | None, batch: int
) -> None:
    """Draw, and note what becomes of each recording; a report tells of it however that ends.

    Args:
        drawing: what becomes of them, as it is drawn.
        outcomes: what is known; is added to.
        report: where it is written, if anywhere.
        batch: recordings that are drawn together; between them, the report may be written anew.

    Raises:
        OutputError: the report cannot be written.
    """
    kept = None if report is None else ReportFile(report)
    try:
        for number, outcome in enumerate(drawing, 1):
            outcomes.add(outcome)
            if kept is not None and number % batch == 0:
                kept.write_if_due(outcomes.told)
    finally:
        if kept is not None:
            kept.write(outcomes.told())


def tell_of_count(count: Mapping[str, int], seconds: float) -> None:
    """Print how many recordings have each status, and how quickly portraits were made."""
    rate = f", {count['made'] / seconds:.1f} a second" if count["made"] else ""
    print(", ".join(f"{number} {status}" for status, number in count.items()) + rate)


def tell_of_other_settings(count: int) -> None:
    """Say how many of the portraits that are there were drawn with other settings, if any."""
    if count:
        were, them = ("was", "it") if count == 1 else ("were", "them")
        print(f"{count} of them {were} drawn with other settings; --overwrite makes {them} again")
