"""What all measuring commands do besides measuring: they log, and tell errors in a line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from voice2face.errors import Voice2FaceError


@contextmanager
def measuring_command() -> Iterator[None]:
    """Log, and end with the message of an error of this package in place of a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        yield
    except Voice2FaceError as error:
        raise SystemExit(str(error)) from None
