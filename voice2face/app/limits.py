"""What the web page takes from its visitors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that is taken, so that one visitor cannot use up the machine.

    Attributes:
        recording_bytes: of an uploaded file; more are refused while they arrive.
        recording_seconds: of an uploaded recording.
        steps: of a portrait.
        jobs: uploads, waiting visitors and the one being served, together.
        upload_seconds: from a request to the last byte of its recording.
        drawing_seconds: from the beginning of the work to four portraits.
    """

    recording_bytes: int = 20 << 20
    recording_seconds: float = 600.0
    steps: int = 100
    jobs: int = 8
    upload_seconds: float = 60.0
    drawing_seconds: float = 180.0
