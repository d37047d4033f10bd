"""How a measuring command says that it was given something it cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from voice2face.errors import Voice2FaceError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with the message of an error of this package, in place of a traceback."""
    try:
        yield
    except Voice2FaceError as error:
        raise SystemExit(str(error)) from None
