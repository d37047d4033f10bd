"""``python -m voice2face.evaluation``: measure a checkpoint on held-out data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from voice2face.evaluation.evaluate import evaluate
from voice2face.evaluation.instruments import Artist, add_drawing_options, add_measuring_options
from voice2face.evaluation.measuring_command import measuring_command
from voice2face.pipeline import Voice2FacePipeline


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, measure, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m voice2face.evaluation", description=__doc__)
    parser.add_argument("--checkpoint", help="folder or name (default: the one in the package)")
    add_measuring_options(parser)
    add_drawing_options(parser)
    options = parser.parse_args(arguments)
    pipe = Voice2FacePipeline.from_pretrained(options.checkpoint, device=options.device)
    report = evaluate(
        Artist(pipe, options.preset, options.variety),
        options.data,
        options.networks,
        options.out,
        limit=options.limit,
    )
    print(report.markdown())


if __name__ == "__main__":
    main()
