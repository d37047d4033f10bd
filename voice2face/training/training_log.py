"""The log of a run: a row of figures every few steps, and one at every evaluation."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path

from voice2face.whole_files import replace_file

LOG = "log.jsonl"
HELD_OUT = "held_out_"  # begins the names of what is measured on held-out data


def read_log(out: Path) -> list[dict[str, float]]:
    """The rows of the log of the run in ``out``, in order."""
    log = out / LOG
    rows = []
    for line in log.read_text().splitlines() if log.exists() else []:
        with suppress(json.JSONDecodeError):  # one that was being written when a run was killed
            rows.append(json.loads(line))
    return rows


def logged(out: Path, name: str) -> list[float]:
    """All figures of that name in the log of the run in ``out``, in order."""
    return [row[name] for row in read_log(out) if name in row]


def forget_lost_steps(out: Path, last: int) -> None:
    """Take out of the log what a run that was killed did after its last saved state.

    These steps are done again. What was measured stays, as ``lowest_loss`` may be of it.

    Args:
        out: folder of the run.
        last: step of the state.
    """
    kept = [
        json.dumps(row) + "\n"
        for row in read_log(out)
        if row["step"] <= last or any(name.startswith(HELD_OUT) for name in row)
    ]
    replace_file(out / LOG, partial(Path.write_text, data="".join(kept)))
