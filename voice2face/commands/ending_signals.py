"""Ending a command by Ctrl-C, SIGTERM or SIGHUP, so that it can leave things in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTED = 130  # as shells report SIGINT


def interrupted() -> int:
    """Say that Ctrl-C ended the command, and return its exit code."""
    print("voice2face: interrupted, nothing half-written was left", file=sys.stderr)
    return INTERRUPTED


class Ended(KeyboardInterrupt):
    """Raised by a signal; Python ends itself by SIGINT where it has seen the class above alone."""


@contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """While this lasts, the first SIGTERM or SIGHUP raises ``KeyboardInterrupt``.

    Those that follow are left aside, so that they do not end what the first one asks for. Signals
    that are ignored, as SIGHUP is under nohup, or that somebody else handles, stay so.

    Raises:
        SystemExit: one of them came; with the code that shells report.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended_by: signal.Signals | None = None

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal ended_by
        if ended_by is None:
            ended_by = signal.Signals(number)
            raise Ended

    ours = [each for each in ENDING if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if ended_by is None:
            raise
        with suppress(OSError):  # of a terminal that is gone
            print(
                f"voice2face: ended by {ended_by.name}, nothing half-written was left",
                file=sys.stderr,
            )
        raise SystemExit(128 + ended_by) from None
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
