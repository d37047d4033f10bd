"""``python -m voice2face.evaluation.publish``: a report's figures into README and model card.

They go between markers like ``<!-- figures -->`` and ``<!-- /figures -->``, so that no published
figure is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from voice2face.evaluation.quality import GOOD
from voice2face.evaluation.report import Report, shown
from voice2face.evaluation.voices import COMMON_ANSWER, HEARD
from voice2face.models.speech_encoder import AGE_DECADES

REAL = "real faces of the sex and age heard"
SPEAKER_ROWS = (
    (
        "speech encoder: sex of a speaker, clips averaged",
        f"{HEARD}: speech encoder, clips averaged",
    ),
    ("speech encoder: sex, each clip", f"{HEARD}: speech encoder"),
    ("portraits: sex seen by the judge is the speaker's", f"{HEARD}: portraits"),
    (f"random {REAL}: sex", f"{HEARD}: {REAL}"),
)
AGE_ROWS = (
    ("speech encoder: age within 10 years, each clip", f"{HEARD}: speech encoder"),
    ("portraits: age within 10 years", f"{HEARD}: portraits"),
    (f"random {REAL}: age within 10 years", f"{HEARD}: {REAL}"),
)
COMMON = AGE_DECADES[COMMON_ANSWER]
ALWAYS = f"age within 10 years, if the answer were always {COMMON}"
OTHER_ROWS = (
    ("the judge itself, sex on real test faces", "judge", "sex, test faces"),
    ("a face is found in the portrait", GOOD, "a face is found"),
    ("Fréchet distance to the test faces", GOOD, "Fréchet distance"),
    (
        "face autoencoder: mean absolute error, range -1 to 1",
        "face autoencoder, test faces",
        "mean absolute error (range -1 to 1)",
    ),
    (
        "face autoencoder: recognition cosine to the original",
        "face autoencoder, test faces",
        "cosine of recognition features, original and reconstruction",
    ),
    (
        "the same, to another original",
        "face autoencoder, test faces",
        "the same, reconstruction and another original",
    ),
    (
        "share of portraits nearer to a training face than 90 % of test faces are",
        "memorisation",
        "share of portraits that exceed it",
    ),
)
OURS = "voice2face"
OTHERS = (
    "Speech2Face",
    "random real face of that sex",
    "random real face of the sex and age heard",
)
PAIR_ROWS = (
    ("sex as the true face's", "the voice is heard, true pairs", "sex"),
    (
        "age within 10 years of the true face's",
        "the voice is heard, true pairs",
        "age within 10 years",
    ),
    (ALWAYS, "the voice is heard, true pairs", f"age within 10 years, if always {COMMON}"),
    ("cos x100, a picture", "the person is met", "cos x100, a picture"),
    ("cos x100, seeds averaged", "the person is met", "cos x100, seeds averaged"),
    ("R@10 x100, a picture", "the person is met", "R@10 x100, a picture"),
    ("R@10 x100, seeds averaged", "the person is met", "R@10 x100"),
    (
        "mean rank among people of that sex, %, a picture",
        "the person is met",
        "the same, a picture, %",
    ),
    (
        "mean rank among people of that sex, %, seeds averaged",
        "the person is met",
        "mean rank among people of that sex, %",
    ),
    ("a face is found", "the picture is good", "a face is found"),
    ("eyes are hidden", "the picture is good", "eyes are hidden"),
    ("Fréchet distance", "the picture is good", "Fréchet distance"),
    ("kernel distance x1000", "the picture is good", "kernel distance x1000"),
    ("precision", "the picture is good", "precision"),
    ("recall", "the picture is good", "recall"),
    ("sharpness, ratio to test faces", "the picture is good", "sharpness, ratio to test faces"),
)


def speakers_table(reports: dict[str, Report]) -> str:
    """The README's table of held-out speakers and faces, a column for each checkpoint."""
    rows = [(label, group, "sex") for label, group in SPEAKER_ROWS]
    rows += [(label, group, "age within 10 years") for label, group in AGE_ROWS]
    rows.append((ALWAYS, AGE_ROWS[0][1], f"age within 10 years, if always {COMMON}"))
    lines = heading(list(reports))
    for label, group, name in (*rows, *OTHER_ROWS):
        figures = [shown(report.figures[group][name]) for report in reports.values()]
        lines.append(f"| {label} | {' | '.join(re.sub(r', n=[0-9]+', '', f) for f in figures)} |")
    return "\n".join(lines)


def heading(columns: list[str]) -> list[str]:
    """The first two lines of a markdown table of measures."""
    return [f"| measure | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]


def pairs_table(reports: dict[str, Report]) -> str:
    """The README's table of true pairs, intervals left out; what is not ours is the first's."""
    first = next(iter(reports.values()))
    columns = [(report, OURS) for report in reports.values()] + [(first, name) for name in OTHERS]
    lines = heading([*reports, *OTHERS])
    for label, title, name in PAIR_ROWS:
        figures = [shown(report.figures[f"{title}: {who}"][name]) for report, who in columns]
        lines.append(f"| {label} | {' | '.join(figure.split(' ')[0] for figure in figures)} |")
    return "\n".join(lines)


def fill(text: str, marker: str, content: str) -> str:
    """Replace what lies between a pair of markers.

    Raises:
        ValueError: the text does not hold the pair exactly once.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the text needs {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def read(file: Path) -> Report:
    """A report as the evaluation wrote it."""
    return Report.from_json(json.loads(file.read_text()))


def main() -> None:
    """Write the figures where the command line says."""
    parser = argparse.ArgumentParser(prog="python -m voice2face.evaluation.publish")
    parser.description = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("--report", type=Path, required=True, help="report.json of the evaluation")
    parser.add_argument(
        "--checkpoint", default=OURS, help="what the README calls it (default: %(default)s)"
    )
    parser.add_argument(
        "--beside",
        nargs=2,
        action="append",
        default=[],
        metavar=("CHECKPOINT", "REPORT"),
        help="another checkpoint's report, for the README's tables; may be given again",
    )
    parser.add_argument("--card", type=Path, help="model card to write all figures into")
    parser.add_argument("--readme", type=Path, help="README to write the main figures into")
    parser.add_argument(
        "--table",
        nargs=2,
        action="append",
        default=[],
        metavar=("MARKER", "FILE"),
        help="what another command printed, such as speed, presets or variety, for the README; may "
        "be given again",
    )
    options = parser.parse_args()
    report = read(options.report)
    reports = {options.checkpoint: report}
    reports |= {name: read(Path(file)) for name, file in options.beside}
    if options.card is not None:
        options.card.write_text(fill(options.card.read_text(), "figures", report.markdown()))
    if options.readme is not None:
        text = fill(options.readme.read_text(), "speakers", speakers_table(reports))
        text = fill(text, "true pairs", pairs_table(reports))
        for marker, file in options.table:
            text = fill(text, marker, Path(file).read_text().removeprefix(f"### {marker}\n"))
        options.readme.write_text(text)


if __name__ == "__main__":
    main()
