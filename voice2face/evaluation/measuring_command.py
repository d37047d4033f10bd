"""What all measuring commands do besides measuring."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from voice2face.errors import Voice2FaceError
from voice2face.evaluation.report import Report


@contextmanager
def measuring_command() -> Iterator[None]:
    """Log, and end with the message of an error of this package in place of a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        yield
    except Voice2FaceError as error:
        raise SystemExit(str(error)) from None


def measuring_parser(module: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser of a module's command line, described by the module's documentation.

    Args:
        module: that ``python -m`` runs.
        documentation: its docstring; the first line names the command, so that it is left out
            where there are more.
    """
    first, _, rest = (documentation or "").replace("``", "").partition("\n\n")
    return argparse.ArgumentParser(prog=f"python -m {module}", description=rest or first)


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read a command line, and make the folder ``--out``."""
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def write_and_print(report: Report, folder: Path, name: str) -> None:
    """Write a report's tables as ``name.json`` and ``name.md``, and print them."""
    report.write(folder, name)
    print(report.markdown())
