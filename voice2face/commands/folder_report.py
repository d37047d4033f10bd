"""What became of each recording of a folder, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

REPORT_ENDINGS = (".csv", ".json")


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
