"""``python -m voice2face.evaluation.variety``: what ``variety`` changes in portraits.

Portraits of the test speakers, from the same seeds with each variety. With less of it more faces
are well made, and they differ less: precision rises, recall falls. ``variety.png`` shows the first
speakers, a row for each variety.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.evaluation.agreement import bootstrap_share
from voice2face.evaluation.comparison import Comparison, run_comparison
from voice2face.evaluation.instruments import Artist
from voice2face.evaluation.pictures import picture_features
from voice2face.evaluation.quality import add_spread
from voice2face.evaluation.sheets import labelled_sheet

GROUP = "variety"
VARIETIES = (1.0, 0.7, 0.4, 0.0)
SHOWN = 8


def measure_varieties(comparison: Comparison, artist: Artist, out: Path) -> None:
    """Draw and judge with each variety; writes the sheet."""
    instruments, report = comparison.instruments, comparison.report
    shown = {}
    for variety in VARIETIES:
        group = f"{GROUP}: {variety:g}"
        pictures = comparison.draw(replace(artist, variety=variety))
        shown[f"{variety:g}"] = pictures[:SHOWN]
        comparison.measure(group, pictures)
        speakers = comparison.heard.speakers[comparison.rows]
        report.add(group, "eyes are hidden", bootstrap_share(hidden_eyes(pictures), speakers))
        features = picture_features(pictures, instruments.perceptual)
        add_spread(report, group, pictures, features, instruments)
    labelled_sheet(shown).save(out / "variety.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write ``variety.json``, ``.md`` and ``.png``, print the table."""
    run_comparison("variety", __doc__, measure_varieties, arguments)


if __name__ == "__main__":
    main()
