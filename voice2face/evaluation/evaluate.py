"""Everything that is measured of a checkpoint, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.data.tables import load_voices
from voice2face.evaluation.agreement import bootstrap_share, share_of_known, within_one_decade
from voice2face.evaluation.answers import read_answers
from voice2face.evaluation.autoencoder import measure_autoencoder
from voice2face.evaluation.groups import groups_of, measure_groups
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.memorisation import measure_memory
from voice2face.evaluation.pairs import measure_pairs
from voice2face.evaluation.quality import GOOD, add_quality
from voice2face.evaluation.report import Report
from voice2face.evaluation.steadiness import measure_steadiness
from voice2face.evaluation.voices import hear, measure_voices

JUDGE = "judge"


def evaluate(
    artist: Artist,
    data: Path,
    networks: Path,
    out: Path,
    *,
    limit: int | None = None,
    answers: Sequence[tuple[str, Path]] = (),
) -> Report:
    """Measure a checkpoint on the test split; write sheets of its pictures, and each true pair.

    Args:
        artist: the checkpoint, and how it draws every portrait.
        data: folder with ``faces-*.parquet`` and ``voices-*.parquet``, and ``pairs-dev.parquet``
            for the comparison with true faces.
        networks: folder with the face-recognition network and the SqueezeNet features.
        out: folder of the sheets and of ``cases.csv``.
        limit: rows to read of each split, for a trial run.
        answers: names and tables of what other methods answer to the true pairs' voices.
    """
    pairs = data / "pairs-dev.parquet"
    other_methods = read_answers(answers, pairs)
    pipe = artist.pipe
    report = Report()
    faces = str(data / "faces-*.parquet")
    instruments = Instruments.load(faces, networks, limit)
    add_judge(report, instruments)
    table = load_voices(str(data / "voices-*.parquet"), "test", limit=limit)
    heard = hear(pipe, table)
    report.add("recordings", "too short to use", len(table) - len(heard.voices))
    portraits = measure_voices(artist, instruments, heard, report, out)
    measure_autoencoder(pipe, instruments, report, out, len(portraits))
    add_quality(report, GOOD, portraits, heard.speakers, instruments)
    real = instruments.test_faces
    hidden = bootstrap_share(hidden_eyes(real.images), real.ids)
    report.add(GOOD, "eyes are hidden, test faces", hidden)
    measure_groups(portraits, pipe, instruments, groups_of(faces, "test", limit), report)
    measure_memory(portraits, instruments, report, out)
    measure_steadiness(artist, instruments, heard, report)
    if pairs.is_file():
        measure_pairs(artist, instruments, pairs, report, out, other_methods=other_methods)
    return report


def add_judge(report: Report, instruments: Instruments) -> None:
    """Enter how often the judge itself is right on test faces."""
    faces = instruments.test_faces
    verdict = instruments.judge(faces.images)
    right = verdict.sex == faces.sex
    report.add(JUDGE, "sex, test faces", share_of_known(right, faces.sex, faces.ids))
    near = within_one_decade(verdict.age, faces.age)
    report.add(JUDGE, "age within 10 years, test faces", share_of_known(near, faces.age, faces.ids))
