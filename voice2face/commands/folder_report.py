"""What became of each recording of a folder, as CSV or JSON."""

from __future__ import annotations

import codecs
import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from voice2face.errors import OutputError
from voice2face.paths import STANDARD_INPUT, exists, resolved
from voice2face.whole_files import write_atomically

REPORT_ENDINGS = (".csv", ".json")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of cells that spreadsheets compute
DELIMITERS = ",;\t"  # the first is what is written, the others are what spreadsheets save
LEAST_SECONDS = 5.0  # from one report of a run to the next,
LEAST_TIMES_WRITING = 20.0  # and as many times what writing one takes


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    Attributes:
        recording: its path.
        portrait: where its portrait lies, or would; ``None`` of one that was left out, and on
            standard output.
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


def check_ending(file: Path) -> None:
    """Refuse a file that has no report's name.

    Raises:
        OutputError: says which names reports have.
    """
    if file.suffix.lower() not in REPORT_ENDINGS:
        raise OutputError(f"{file}: reports are written as {' or '.join(REPORT_ENDINGS)}")


def report(outcomes: Iterable[Outcome], ending: str) -> bytes:
    """The outcomes as CSV or JSON."""
    rows = [asdict(outcome) for outcome in outcomes]
    if ending.lower() == ".json":
        return (json.dumps(rows, indent=2) + "\n").encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: no_formula(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode(errors="surrogateescape")


def no_formula(value: Any) -> Any:
    """A value that no spreadsheet computes: ``=1+1.wav`` is written ``./=1+1.wav``, the same path.

    What goes wrong with a recording is said after its path, which gets the same beginning.
    """
    if isinstance(value, str) and value.startswith(FORMULA_STARTS) and value != str(STANDARD_INPUT):
        return f"./{value}"
    return value


def read_report(file: Path) -> dict[tuple[str, str], Outcome]:
    """What an earlier report tells of portraits; nothing if there is none, or an empty file.

    A spreadsheet may have saved it, with semicolons or tabs, in UTF-16 or cp1252.

    Returns:
        By ``places`` of recording and portrait; each as ``"there already"``.

    Raises:
        OutputError: the file is no report, or one that another program changed too much.
    """
    try:
        texts = possible_texts(file.read_bytes())
        rows = zip(*(rows_of(text, file.suffix) for text in texts), strict=True)
        told = [one_that_is_there([outcome_of(reading) for reading in row]) for row in rows]
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


def possible_texts(data: bytes) -> list[str]:
    """What a report's bytes may say.

    Where they are not UTF-8, file names of this system are not, or a spreadsheet saved cp1252.

    Raises:
        ValueError: they are no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return [data.decode("utf-16")]
    try:
        return [data.decode("utf-8-sig")]
    except UnicodeDecodeError:
        names_as_bytes = data.decode("utf-8-sig", "surrogateescape")
    if data.startswith(codecs.BOM_UTF8):
        return [names_as_bytes]
    try:
        return [names_as_bytes, data.decode("cp1252")]
    except UnicodeDecodeError:
        return [names_as_bytes]


def one_that_is_there(readings: Sequence[Outcome]) -> Outcome:
    """Of what a row may say, that whose recording or portrait is there.

    Raises:
        ValueError: neither is, and what was heard of the voice would be lost.
    """
    first = readings[0]
    if first.sex is None or all(reading == first for reading in readings):
        return first
    for reading in readings:
        if any(exists(Path(path)) for path in (reading.recording, reading.portrait) if path):
            return reading
    raise ValueError("its encoding is not known")


def rows_of(text: str, ending: str) -> list[Any]:
    """The rows of a report's text.

    Raises:
        ValueError: it is not that of a report.
    """
    if not text.strip():
        return []
    if ending.lower() == ".json":
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise ValueError("a report is a list")
        return rows
    for delimiter in DELIMITERS:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        if are_columns(reader.fieldnames or ()):
            return [with_point(row) for row in reader] if delimiter == ";" else list(reader)
    raise ValueError("a report has other columns")


def are_columns(names: Iterable[str]) -> bool:
    """Whether a report has these columns; in those of older versions, some are missing."""
    return set(COLUMNS[:3]) <= set(names) <= set(COLUMNS)


def with_point(row: dict[str, Any]) -> dict[str, Any]:
    """A row with a decimal point; spreadsheets save semicolons where they have decimal commas."""
    seconds = row.get("speech_seconds")
    return row | {"speech_seconds": seconds.replace(",", ".")} if seconds else row


def outcome_of(row: Any) -> Outcome:
    """One row of an earlier report, as of a portrait that is there.

    Raises:
        TypeError: it is none.
        ValueError: a number is none.
    """
    if not isinstance(row, dict):
        raise TypeError("a row has names")
    if not are_columns(row):
        raise ValueError("a row has other columns")
    told: dict[str, Any] = {name: value for name, value in row.items() if value not in (None, "")}
    for name, kind in (("seed", int), ("speech_seconds", float)):
        if name in told:
            told[name] = kind(told[name])
    return Outcome(**{"portrait": None} | told | {"status": "there already", "error": None})


def places(recording: str | Path, portrait: str | Path) -> tuple[str, str]:
    """What tells a row from others, however its paths are written."""
    return resolved(recording), resolved(portrait)
