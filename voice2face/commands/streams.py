"""Standard streams that are closed or full: what is printed may be lost, the work is not."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

STANDARD_ERROR = 2  # the last descriptor of the three streams


class Remarks:
    """Standard error that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        try:
            self._stream.write(text)
        except OSError:
            drop_what_is_printed(self._stream)
        return len(text)

    def flush(self) -> None:
        """Write what waits if that is possible."""
        try:
            self._stream.flush()
        except OSError:
            drop_what_is_printed(self._stream)


@contextmanager
def usable_streams() -> Iterator[None]:
    """While this lasts, nothing that is written to standard error raises, and any name can be."""
    replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # that of a file's odd name, too, can be printed
            stream.reconfigure(errors="backslashreplace")
    with redirect_stderr(cast(TextIO, Remarks(sys.stderr))):
        yield


def replace_closed_streams() -> None:
    """Print to nowhere in place of closed streams, and let no file take their descriptors."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))


def drop_what_is_printed(stream: TextIO) -> None:
    """Keep Python, which flushes once more as it ends, from complaining of a stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
