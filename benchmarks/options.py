"""What the commands refuse before they measure anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from voice2face.commands.options import number_argument
from voice2face.errors import Voice2FaceError

MOST = 1_000_000
count_argument = number_argument(int, 1, MOST)


def add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    """Declare ``--repeats``."""
    parser.add_argument(
        "--repeats",
        type=count_argument,
        default=default,
        help="runs of each (default: %(default)s)",
    )


@contextmanager
def refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End with the message of an error of this package in place of a traceback."""
    try:
        yield
    except Voice2FaceError as error:
        parser.error(str(error))
