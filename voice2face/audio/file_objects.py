"""Binary file objects of all kinds, made fit for libsndfile."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, TypeVar

from voice2face.errors import AudioDecodeError, AudioFormatError

LARGEST_FILE_BYTES = 4 << 30
TOO_LARGE = f"files over {LARGEST_FILE_BYTES >> 30} GiB are not read; cut out a part"
READ_AT_ONCE = 1 << 20  # bytes of what cannot be sought in

Value = TypeVar("Value")


class Watched:
    """A file that keeps what it raises: libsndfile cannot pass it on, and takes it for the end.

    Args:
        file: that can be sought in.
        start: the place in it that is taken for the beginning, as libsndfile may go back there.

    Attributes:
        error: what was raised first.
    """

    def __init__(self, file: IO[bytes], start: int) -> None:
        self.file, self.start = file, start
        self.error: Exception | None = None
        if hasattr(file, "readinto"):  # which spares a copy of all that is read
            self.readinto = partial(self._tried, 0, file.readinto)

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; none where that fails."""
        return bytes(self._tried(b"", self.file.read, count))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file, and say where that is."""
        if whence == io.SEEK_SET:
            offset += self.start
        return self._tried(self.start, self.file.seek, offset, whence) - self.start

    def tell(self) -> int:
        """The place in the file."""
        return self._tried(self.start, self.file.tell) - self.start

    def _tried(self, otherwise: Value, call: Callable[..., Value], *arguments: int) -> Value:
        try:
            return call(*arguments)
        except Exception as error:  # whatever a connection or an archive raises
            self.error = self.error or error
            return otherwise


@contextmanager
def reading(file: Any, where: str) -> Iterator[Watched]:
    """A file that can be sought in, from the place where it is, to which it goes back afterwards.

    Of pipes and connections all is read before. A file that is at its end was just written, or read
    by someone else: it is read from its beginning.

    Args:
        file: a binary file object.
        where: what it is called in messages.

    Raises:
        AudioDecodeError: the file is closed, or reading fails.
        AudioFormatError: it does not give bytes, or is too large.
    """
    try:
        _check_binary(file, where)
        can_seek = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        file = file if can_seek else _read_whole(file, where)
        start = file.tell()
        if file.seek(0, io.SEEK_END) == start:
            start = 0
        file.seek(start)
    except (AudioFormatError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(where, error) from error
    watched = Watched(file, start)
    try:
        yield watched
    finally:
        if watched.error is not None:
            raise _unreadable(where, watched.error) from watched.error
        watched.seek(0)


def _check_binary(file: Any, where: str) -> None:
    nothing = file.read(0)
    if inspect.iscoroutine(nothing):
        nothing.close()
        raise AudioFormatError(
            f"{where} has to be awaited; of Starlette's UploadFile give upload.file, of others the "
            "bytes that they hold"
        )
    if isinstance(nothing, str):
        raise AudioFormatError(f"{where} is open as text; open it as bytes, with mode 'rb'")
    if not isinstance(nothing, (bytes, bytearray, memoryview)):
        raise AudioFormatError(f"{where}: its read() gives {type(nothing).__name__}, not bytes")


def _read_whole(file: IO[bytes], where: str) -> io.BytesIO:
    whole = io.BytesIO()
    while piece := file.read(READ_AT_ONCE):
        whole.write(piece)
        if whole.tell() > LARGEST_FILE_BYTES:
            raise AudioFormatError(f"{where}: {TOO_LARGE}")
    return whole


def _unreadable(where: str, error: Exception) -> AudioDecodeError:
    return AudioDecodeError(f"{where} cannot be read: {str(error) or type(error).__name__}")
