"""``python -m voice2face.evaluation``: measure a checkpoint on held-out data."""

from __future__ import annotations

from collections.abc import Sequence

from voice2face.evaluation.answers import add_answers_option
from voice2face.evaluation.evaluate import evaluate
from voice2face.evaluation.instruments import (
    add_checkpoint_option,
    add_drawing_options,
    add_measuring_options,
    load_artist,
)
from voice2face.evaluation.measuring_command import (
    measuring_command,
    measuring_parser,
    parse_options,
    write_and_print,
)


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables; write ``report.json``, ``report.md``, ``cases.csv``, sheets."""
    parser = measuring_parser("voice2face.evaluation", __doc__)
    add_checkpoint_option(parser)
    add_measuring_options(parser)
    add_drawing_options(parser)
    add_answers_option(parser)
    options = parse_options(parser, arguments)
    artist = load_artist(options)
    report = evaluate(
        artist,
        options.data,
        options.networks,
        options.out,
        limit=options.limit,
        answers=options.answers,
    )
    write_and_print(report, options.out, "report")


if __name__ == "__main__":
    main()
