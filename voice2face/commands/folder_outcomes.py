"""What is known of each recording while a run goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from voice2face.audio.media import OTHER_FORMATS
from voice2face.commands.folder_places import is_there
from voice2face.commands.folder_report import Outcome, places
from voice2face.commands.folder_run import FolderRun
from voice2face.saved_portraits import Making


class Outcomes:
    """What became of a run's recordings, as far as it came.

    It begins with what is known before: of portraits that are there already, what an earlier report
    told; and where something else is in a portrait's place, why, which is printed, too.

    Args:
        run: as it is before anything is drawn.
    """

    def __init__(self, run: FolderRun) -> None:
        self._in_order = [str(path) for path in sorted(run.found.recordings + run.found.unread)]
        self._known = {str(path): left_out(path) for path in run.found.unread}
        for recording, path in run.pairs:
            if recording in run.makings:
                known = there_already(recording, path, run.makings[recording], run.earlier)
            elif recording in run.in_the_way:
                known = failed(recording, path, run.in_the_way[recording])
            else:
                continue
            self._known[str(recording)] = known
        self._others = of_other_recordings(run.earlier, run.pairs)

    def add(self, outcome: Outcome) -> None:
        """Note one more; where it failed, what was known of a portrait that is there stays."""
        before = self._known.get(outcome.recording)
        if before is not None and outcome.error is not None:
            outcome = replace(before, status="failed", error=outcome.error)
        self._known[outcome.recording] = outcome

    def told(self) -> list[Outcome]:
        """What a report tells: the recordings that were reached, in order, and other ones."""
        reached = [
            self._known[recording] for recording in self._in_order if recording in self._known
        ]
        return reached + self._others

    def count(self) -> dict[str, int]:
        """How many there are of each status; the first three are always told."""
        count = dict.fromkeys(("made", "there already", "failed"), 0)
        for outcome in self._known.values():
            count[outcome.status] = count.get(outcome.status, 0) + 1
        return count


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
    advice = f"{recording.suffix} is a format that is not read; {OTHER_FORMATS}"
    return Outcome(str(recording), None, "left out", error=advice)
