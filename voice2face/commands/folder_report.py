"""What became of each recording of a folder, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from voice2face.errors import OutputError
from voice2face.paths import resolved
from voice2face.whole_files import write_atomically

REPORT_ENDINGS = (".csv", ".json")
LEAST_SECONDS = 5.0  # from one report of a run to the next,
LEAST_TIMES_WRITING = 20.0  # and as many times what writing one takes


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    Attributes:
        recording: its path.
        portrait: where its portrait lies, or would; ``None`` of one that was left out.
        status: ``"made"``, ``"there already"``, ``"failed"``, or ``"left out"`` of one in a format
            that is not read.
        seed: of the portrait.
        sex: that the voice sounds like.
        age: decade that the voice sounds like.
        speech_seconds: length of the speech found.
        warnings: what is wrong with a recording that could be used all the same.
        error: what was wrong with a recording that failed or was left out.
    """

    recording: str
    portrait: str | None
    status: str
    seed: int | None = None
    sex: str | None = None
    age: str | None = None
    speech_seconds: float | None = None
    warnings: str | None = None
    error: str | None = None


COLUMNS = [field.name for field in fields(Outcome)]


class ReportFile:
    """A report that is written while a run goes on, so that one that is killed loses little.

    Attributes:
        file: where it lies.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._due = 0.0

    def write(self, outcomes: Iterable[Outcome]) -> None:
        """Write it anew.

        Raises:
            OutputError: it cannot be written.
        """
        began = time.monotonic()
        write_atomically(self.file, report(outcomes, self.file.suffix))
        now = time.monotonic()
        self._due = now + max(LEAST_SECONDS, LEAST_TIMES_WRITING * (now - began))

    def write_if_due(self, outcomes: Callable[[], Iterable[Outcome]]) -> None:
        """Write it anew if some seconds have passed; where that fails, the next time may do."""
        if time.monotonic() >= self._due:
            with suppress(OutputError):
                self.write(outcomes())


def report(outcomes: Iterable[Outcome], ending: str) -> bytes:
    """The outcomes as CSV or JSON."""
    rows = [asdict(outcome) for outcome in outcomes]
    if ending.lower() == ".json":
        return (json.dumps(rows, indent=2) + "\n").encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def read_report(file: Path) -> dict[tuple[str, str], Outcome]:
    """What an earlier report tells of portraits; nothing if there is none, or an empty file.

    Returns:
        By ``places`` of recording and portrait; each as ``"there already"``.

    Raises:
        OutputError: the file is no report, or one that another program changed too much.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
        rows = rows_of(text, file.suffix) if text.strip() else []
        told = [outcome_of(row) for row in rows]
        return {places(one.recording, one.portrait): one for one in told if one.portrait}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise OutputError(
            f"{file} is there and is no report of this command, or another program changed it; "
            "move it away, or name another file"
        ) from error


def rows_of(text: str, ending: str) -> list[Any]:
    """The rows of a report's text.

    Raises:
        ValueError: it is not that of a report.
    """
    if ending.lower() == ".json":
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise ValueError("a report is a list")
        return rows
    reader = csv.DictReader(io.StringIO(text, newline=""))
    check_columns(reader.fieldnames or ())
    return list(reader)


def check_columns(names: Iterable[str]) -> None:
    """Refuse columns that no report has; in those of older versions, some are missing.

    Raises:
        ValueError: says so.
    """
    if not set(COLUMNS[:3]) <= set(names) <= set(COLUMNS):
        raise ValueError("a report has other columns")


def outcome_of(row: Any) -> Outcome:
    """One row of an earlier report, as of a portrait that is there.

    Raises:
        TypeError: it is none.
        ValueError: a number is none.
    """
    if not isinstance(row, dict):
        raise TypeError("a row has names")
    check_columns(row)
    told: dict[str, Any] = {name: value for name, value in row.items() if value not in (None, "")}
    for name, kind in (("seed", int), ("speech_seconds", float)):
        if name in told:
            told[name] = kind(told[name])
    return Outcome(**{"portrait": None} | told | {"status": "there already", "error": None})


def places(recording: str | Path, portrait: str | Path) -> tuple[str, str]:
    """What tells a row from others, however its paths are written."""
    return resolved(recording), resolved(portrait)
