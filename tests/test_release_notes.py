"""Changelog and citation are of the version that the package is."""

from __future__ import annotations

import re
from pathlib import Path

from voice2face import __version__

REPOSITORY = Path(__file__).parents[1]


def test_the_newest_changes_and_the_citation_are_of_this_version() -> None:
    newest = re.search(r"^## (\S+) \((\S+)\)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    citation = (REPOSITORY / "CITATION.cff").read_text()
    cited = [re.search(rf"^{name}: (.+)$", citation, re.M) for name in ("version", "date-released")]
    assert newest is not None
    assert None not in cited
    assert newest[1] == __version__
    assert [found and found[1].strip('"') for found in cited] == list(newest.groups())
