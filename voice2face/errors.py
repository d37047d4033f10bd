"""Every error that voice2face raises on purpose: what was wrong, where, and what to do."""

from __future__ import annotations


class Voice2FaceError(Exception):
    """Base of all errors of this package."""


class AudioError(Voice2FaceError):
    """The recording cannot be used."""


class AudioNotFoundError(AudioError):
    """There is no such audio file."""


class AudioDecodeError(AudioError):
    """The data is not audio in a known format, or a FLAC or MP3 that is cut off."""


class AudioFormatError(AudioError):
    """Samples, rate, shape or length are not what speech looks like."""


class NoSpeechError(AudioError):
    """The recording is empty, silent, or holds too little speech."""


class CheckpointError(Voice2FaceError):
    """The checkpoint cannot be used."""


class CheckpointNotFoundError(CheckpointError):
    """There is no such checkpoint, or it cannot be reached."""


class ChecksumError(CheckpointError):
    """A file of the checkpoint is not the file that was released."""


class ArchitectureError(CheckpointError):
    """A component's files do not fit this version of voice2face."""


class SettingError(Voice2FaceError, ValueError):
    """An argument has a value outside its range."""


class NoRetrieverError(SettingError, AttributeError):
    """The checkpoint's method retrieves no faces; the pipeline has no such attribute."""


class OutputError(Voice2FaceError):
    """A picture cannot be written where it was asked for."""


class PictureError(Voice2FaceError):
    """The picture cannot be read, or is no portrait that this package wrote and that tells how."""


class CredentialError(Voice2FaceError):
    """A content credential cannot be made or read."""


class ExportError(Voice2FaceError):
    """The networks cannot be written for another runtime."""


class DeviceError(Voice2FaceError):
    """The device does not exist or ran out of memory."""


class CompileError(Voice2FaceError):
    """The networks cannot be compiled."""


class AppError(Voice2FaceError):
    """The web page cannot be served, or a portrait asked of it took too long."""


class RefusedError(AppError):
    """The web page does not take a request.

    Attributes:
        status: the HTTP status that says so.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, int]]:
        """What it is unpickled from; an exception's own are its message alone."""
        return type(self), (str(self), self.status)
