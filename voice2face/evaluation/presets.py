"""``python -m voice2face.evaluation.presets``: what every preset costs in quality.

Portraits of the test speakers, from the same seeds with each preset; ``python -m benchmarks`` says
how long they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voice2face.evaluation.comparison import Comparison, run_comparison
from voice2face.evaluation.instruments import Artist
from voice2face.settings import PRESETS

GROUP = "presets"
BEST = "best"
RATIO = f"Fréchet distance, ratio to {BEST}"


def measure_presets(comparison: Comparison, artist: Artist, _out: Path) -> None:
    """Draw and judge with every preset."""
    distances = {
        name: comparison.measure(f"{GROUP}: {name}", comparison.draw(replace(artist, preset=name)))
        for name in PRESETS
    }
    for name, distance in distances.items():
        comparison.report.add(f"{GROUP}: {name}", RATIO, distance / distances[BEST])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write ``presets.json`` and ``presets.md``, print the table."""
    run_comparison("presets", __doc__, measure_presets, arguments)


if __name__ == "__main__":
    main()
