"""Figures by group and name, and how they are written down."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voice2face.evaluation.agreement import Difference, Share
from voice2face.evaluation.distribution import Estimate

logger = logging.getLogger("voice2face.evaluation")

Figure = Share | Difference | Estimate | float | int


@dataclass
class Report:
    """Figures by group and name, in the order in which they were measured.

    A group called ``"title: column"`` shares one table with the groups of the same title.
    """

    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def add(self, group: str, name: str, value: Figure | None) -> None:
        """Record one figure and log it; ``None``, of what could not be measured, is left out."""
        if value is None:
            return
        self.figures.setdefault(group, {})[name] = value
        logger.info("%s, %s: %s", group, name, shown(value))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """Read what ``as_json`` made."""

        def figure(value: Any) -> Figure:
            if not isinstance(value, dict):
                return value if isinstance(value, int) else float(value)
            if "people" in value:
                return Difference(**value)
            return Share(**value) if "cases" in value else Estimate(**value)

        return cls(
            {
                group: {name: figure(value) for name, value in rows.items()}
                for group, rows in content.items()
            }
        )

    def markdown(self) -> str:
        """One table a title."""
        tables: dict[str, dict[str, dict[str, str]]] = {}
        for group, rows in self.figures.items():
            title, _, column = group.partition(": ")
            for name, value in rows.items():
                tables.setdefault(title, {}).setdefault(name, {})[column or "figure"] = shown(value)
        return "\n".join(
            f"### {title}\n\n" + "\n".join(table_lines(rows)) + "\n"
            for title, rows in tables.items()
        )

    def write(self, folder: Path, name: str) -> None:
        """Write the tables as ``name.json`` and ``name.md``."""
        figures = json.dumps(self.as_json(), indent=2) + "\n"
        (folder / f"{name}.json").write_text(figures, encoding="utf-8")
        (folder / f"{name}.md").write_text(self.markdown(), encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        """The figures as plain numbers and dictionaries."""
        return {
            group: {
                name: value if isinstance(value, (float, int)) else value._asdict()
                for name, value in rows.items()
            }
            for group, rows in self.figures.items()
        }


def table_lines(rows: dict[str, dict[str, str]]) -> list[str]:
    """A markdown table of rows with named columns, empty where a row has no such column."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| measure | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(row.get(column, '') for column in columns)} |")
    return lines


def shown(value: Figure) -> str:
    """A figure as text."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
