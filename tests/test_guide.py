"""The guide names what there is."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from voice2face import Voice2FacePipeline
from voice2face.portrait import Evidence, Portrait, Portraits

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"


def rows_of(heading: str) -> dict[str, set[str]]:
    """Names in the second column of a section's table, by the names in its first column."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {
        first.replace("`", "").strip(): set(re.findall("`([a-z_]+)`", second))
        for first, second in cells
    }


def test_every_setting_has_a_row() -> None:
    named = {name for row in rows_of("Settings") for name in row.split(", ")}
    accepted = set(inspect.signature(Voice2FacePipeline.__call__).parameters) - {"self"}
    assert named | {"generator"} == accepted


def test_what_comes_back_is_what_there_is() -> None:
    rows = rows_of("What comes back")
    for kind, row in ((Portraits, "Portraits"), (Portrait, "Portrait"), (Evidence, "evidence")):
        held = {field.name for field in fields(kind)} if kind is not Portraits else set()
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert rows[row] == held | public, row
