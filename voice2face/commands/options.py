"""Options that several commands have, and what is made of them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

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
        help="checkpoint: a name that 'voice2face models' lists, a folder (./NAME where it has "
        f"such a name), or owner/name on the Hub (default: {default})",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )


def number_argument(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], float]:
    """What reads an option's number and refuses one that is out of range.

    Args:
        kind: of number.
        least: that it may be.
        most: that it may be.

    Returns:
        What argparse takes as ``type``.
    """
    wanted = "a whole number" if kind is int else "a number"
    range_ = f"{wanted} from {least:g} to {most if kind is int else format(most, 'g')}"

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"give {range_}, not {text!r}")
        return number

    return parse


variety_argument = number_argument(float, 0, 1)


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
