"""Options that several commands have, and what is made of them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from voice2face.settings import check_number

BATCH_SIZE = 16


def add_pipeline_options(
    parser: argparse.ArgumentParser, *aliases: str, default: str = "the packaged one"
) -> None:
    """Declare ``--model`` and ``--device``.

    Args:
        parser: of the command.
        aliases: other names of ``--model``.
        default: which checkpoint it is where none is named, for the help text.
    """
    parser.add_argument(
        "--model",
        *aliases,
        metavar="NAME",
        help="checkpoint: a name that 'voice2face models' lists, a folder, or owner/name on the "
        f"Hub (default: {default})",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )


def variety_argument(text: str) -> float:
    """The value of a command's ``--variety``.

    Raises:
        argparse.ArgumentTypeError: it is no number, or out of range.
    """
    try:
        variety = float(text)
        check_number("variety", variety, 1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return variety


def wants_bars(options: argparse.Namespace) -> bool:
    """Whether progress bars are shown: on terminals, where they are not in the way of a log."""
    return not options.quiet and sys.stderr.isatty()


def draw_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command line draws portraits with, by their names in Python."""
    return {
        "preset": options.preset,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "variety": options.variety,
        "watermark": options.watermark,
    }
