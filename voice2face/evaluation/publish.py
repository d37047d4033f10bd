"""``python -m voice2face.evaluation.publish``: a report's figures into README, docs and card.

They go between markers like ``<!-- speakers -->`` and ``<!-- /speakers -->``, so that no published
figure is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from voice2face.errors import SettingError
from voice2face.evaluation.autoencoder import GROUP as AUTOENCODER
from voice2face.evaluation.cases import DIFFERENCES
from voice2face.evaluation.evaluate import JUDGE
from voice2face.evaluation.measuring_command import measuring_command, measuring_parser
from voice2face.evaluation.memorisation import GROUP as MEMORISATION
from voice2face.evaluation.pairs import NAMES, OURS, PERSON_MET, PICTURE_GOOD, VOICE_HEARD
from voice2face.evaluation.quality import GOOD
from voice2face.evaluation.report import Report, shown, table_lines
from voice2face.evaluation.voices import (
    ALWAYS_COMMON,
    CLIPS_AVERAGED,
    COMMON_AGE,
    ENCODER,
    PORTRAITS,
    REAL_FACES,
)

NEAR = "age within 10 years"
ALWAYS = f"{NEAR}, if the answer were always {COMMON_AGE}"
SPEAKER_ROWS = (
    ("speech encoder: sex of a speaker, clips averaged", CLIPS_AVERAGED, "sex"),
    ("speech encoder: sex, each clip", ENCODER, "sex"),
    ("portraits: sex seen by the judge is the speaker's", PORTRAITS, "sex"),
    ("the same, each speaker counted once", PORTRAITS, "sex, mean over speakers"),
    ("random real faces of the sex and age heard: sex", REAL_FACES, "sex"),
    (f"speech encoder: {NEAR}, each clip", ENCODER, NEAR),
    (f"portraits: {NEAR}", PORTRAITS, NEAR),
    (f"random real faces of the sex and age heard: {NEAR}", REAL_FACES, NEAR),
    (ALWAYS, ENCODER, ALWAYS_COMMON),
    ("the judge itself, sex on real test faces", JUDGE, "sex, test faces"),
    ("a face is found in the portrait", GOOD, "a face is found"),
    ("Fréchet distance to the test faces", GOOD, "Fréchet distance"),
    ("the same, of as many other faces", AUTOENCODER, "Fréchet distance of other faces"),
    (
        "the same, of their reconstructions",
        AUTOENCODER,
        "Fréchet distance of their reconstructions",
    ),
    ("fine detail, ratio to test faces", GOOD, "fine detail, ratio to test faces"),
    (
        "face autoencoder: mean absolute error, range -1 to 1",
        AUTOENCODER,
        "mean absolute error (range -1 to 1)",
    ),
    (
        "face autoencoder: recognition cosine to the original",
        AUTOENCODER,
        "cosine of recognition features, original and reconstruction",
    ),
    (
        "the same, to another original",
        AUTOENCODER,
        "the same, reconstruction and another original",
    ),
    (
        "face autoencoder: fine detail, ratio to the originals",
        AUTOENCODER,
        "fine detail, ratio to the originals",
    ),
    (
        "share of portraits nearer to a training face than 90 % of test faces are",
        MEMORISATION,
        "share of portraits that exceed it",
    ),
)
# the mean face is in the whole report alone
OTHERS = tuple(name for name in NAMES if name not in (OURS, "mean face"))
RANK = "mean rank among people of that sex"
PAIR_ROWS = (
    ("sex as the true face's", VOICE_HEARD, "sex"),
    (f"{NEAR} of the true face's", VOICE_HEARD, NEAR),
    (ALWAYS, VOICE_HEARD, ALWAYS_COMMON),
    ("cos x100, a picture", PERSON_MET, "cos x100, a picture"),
    ("cos x100, seeds averaged", PERSON_MET, "cos x100, seeds averaged"),
    ("R@10, a picture", PERSON_MET, "R@10, a picture"),
    ("R@10, seeds averaged", PERSON_MET, "R@10"),
    (f"{RANK}, a picture", PERSON_MET, f"{RANK}, a picture"),
    (f"{RANK}, seeds averaged", PERSON_MET, RANK),
    *(
        (name, PICTURE_GOOD, name)
        for name in (
            *("a face is found", "eyes are hidden", "Fréchet distance", "kernel distance x1000"),
            *("precision", "recall", "sharpness, ratio to test faces"),
            "fine detail, ratio to test faces",
        )
    ),
)
DIFFERENCE_ROWS = (
    *("sex", NEAR, "R@10, a picture", f"{RANK}, a picture"),
    *("a face is found", "eyes are hidden"),
)
COMPARED_WITH = ("Speech2Face", "random real face of that sex")
AT_A_GLANCE = (
    *("sex as the true face's", f"{NEAR} of the true face's", ALWAYS),
    *("R@10, a picture", f"{RANK}, a picture"),
    *("a face is found", "eyes are hidden", "Fréchet distance"),
)


def speakers_table(reports: dict[str, Report]) -> str:
    """The table of held-out speakers and faces, a column for each checkpoint."""
    return table_of({name: figures_of(report, SPEAKER_ROWS) for name, report in reports.items()})


def figures_of(report: Report, rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Figures with their intervals, but not of how many cases they are, as far as there are any.

    Args:
        report: what was measured.
        rows: what a table calls each, its group and its name in the report.
    """
    return {
        label: re.sub(r", n=[0-9]+", "", shown(report.figures[group][name]))
        for label, group, name in rows
        if name in report.figures.get(group, {})
    }


def table_of(columns: dict[str, dict[str, str]]) -> str:
    """A markdown table of measures, in the order in which the columns have them."""
    labels = dict.fromkeys(label for figures in columns.values() for label in figures)
    rows = {
        label: {name: figures[label] for name, figures in columns.items() if label in figures}
        for label in labels
    }
    return "\n".join(table_lines(rows))


def pairs_table(
    reports: dict[str, Report],
    rows: Sequence[tuple[str, str, str]] = PAIR_ROWS,
    others: Sequence[str] = OTHERS,
    *,
    intervals: bool = True,
) -> str:
    """The table of true pairs; what is not ours is the first's."""
    first = next(iter(reports.values()))
    answers = {checkpoint: (report, OURS) for checkpoint, report in reports.items()}
    answers |= {name: (first, name) for name in others}
    columns = {}
    for column, (report, who) in answers.items():
        of_answer = [(label, f"{title}: {who}", name) for label, title, name in rows]
        columns[column] = figures_of(report, of_answer)
    if not intervals:
        columns = {
            column: {label: figure.partition(" ")[0] for label, figure in figures.items()}
            for column, figures in columns.items()
        }
    return table_of(columns)


def differences_table(reports: dict[str, Report]) -> str:
    """The table of paired differences, a column for each checkpoint and each other answer."""
    return table_of(
        {
            f"{checkpoint} to {other}": figures_of(
                report, [(name, f"{DIFFERENCES}: {other}", name) for name in DIFFERENCE_ROWS]
            )
            for checkpoint, report in reports.items()
            for other in COMPARED_WITH
        }
    )


def fill(text: str, marker: str, content: str) -> str:
    """Replace what lies between a pair of markers; a text without them stays as it is.

    Raises:
        SettingError: the text does not hold the pair exactly once.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in text and end not in text:
        return text
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SettingError(f"the text needs {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def text_of(file: Path) -> str:
    """What a page, a table or a report holds.

    Raises:
        SettingError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingError(f"{file} cannot be read: {error}") from error


def table_in(file: Path) -> str:
    """What another command printed; without its heading, which the page has, if there is one alone.

    Raises:
        SettingError: it cannot be read.
    """
    text = text_of(file)
    heading, _, table = text.partition("\n")
    alone = heading.startswith("### ") and "\n### " not in table
    return table if alone else text


def read(file: Path) -> Report:
    """A report as the evaluation wrote it.

    Raises:
        SettingError: it is none.
    """
    try:
        return Report.from_json(json.loads(text_of(file)))
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise SettingError(f"{file} is no report.json of the evaluation: {error}") from error


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the figures where the command line says."""
    parser = measuring_parser("voice2face.evaluation.publish", __doc__)
    parser.add_argument("--report", type=Path, required=True, help="report.json of the evaluation")
    parser.add_argument(
        "--checkpoint", default=OURS, help="what the tables call it (default: %(default)s)"
    )
    parser.add_argument(
        "--beside",
        nargs=2,
        action="append",
        default=[],
        metavar=("CHECKPOINT", "REPORT"),
        help="another checkpoint's report, beside it in the tables; may be given again",
    )
    parser.add_argument(
        "--page",
        type=Path,
        action="append",
        required=True,
        help="to write into: 'figures' are all of the report, 'speakers', 'true pairs' and "
        "'differences' the main ones, 'glance' those of a README; may be given again",
    )
    parser.add_argument(
        "--table",
        nargs=2,
        action="append",
        default=[],
        metavar=("MARKER", "FILE"),
        help="what another command printed, such as speed, presets or variety; may be given again",
    )
    options = parser.parse_args(arguments)
    report = read(options.report)
    reports = {options.checkpoint: report}
    reports |= {name: read(Path(file)) for name, file in options.beside}
    tables = {
        "figures": report.markdown(),
        "glance": pairs_table(
            reports,
            [row for row in PAIR_ROWS if row[0] in AT_A_GLANCE],
            OTHERS[:3],
            intervals=False,
        ),
        "speakers": speakers_table(reports),
        "true pairs": pairs_table(reports),
        "differences": differences_table(reports),
    }
    for marker, file in options.table:
        tables[marker] = table_in(Path(file))
    pages = {page: text_of(page) for page in options.page}
    for marker, _ in options.table:
        if not any(f"<!-- {marker} -->" in text for text in pages.values()):
            raise SettingError(f"no page has the marker {marker!r}")
    for marker, table in tables.items():
        pages = {page: fill(text, marker, table) for page, text in pages.items()}
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
