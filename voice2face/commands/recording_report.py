"""The report of one recording, as a run over a folder writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from voice2face.commands.folder_drawing import outcome_of_portrait
from voice2face.commands.folder_outcomes import of_other_recordings
from voice2face.commands.folder_places import check_no_portrait
from voice2face.commands.folder_report import Outcome, ReportFile, check_ending, read_report
from voice2face.errors import Voice2FaceError
from voice2face.paths import expanded
from voice2face.portrait import Portrait
from voice2face.whole_files import check_writable


class RecordingReport:
    """What became of one recording, beside what the file told of others.

    Args:
        file: where it is written.
        audio: the recording.
        paths: of its portraits; none where they go to standard output.

    Raises:
        OutputError: the file is no report, the place of a portrait, or cannot be written.
    """

    def __init__(self, file: Path, audio: Path, paths: Sequence[Path]) -> None:
        check_ending(file)
        file = expanded(file)
        check_no_portrait([file], paths)
        check_writable(file)
        self._file = ReportFile(file)
        self._audio = audio
        self._paths: Sequence[Path | None] = paths or [None]
        self._others = of_other_recordings(read_report(file), [(audio, path) for path in paths])

    def write_made(self, portraits: Iterable[Portrait]) -> None:
        """Tell of portraits that were made."""
        self._file.write(
            [
                *(
                    outcome_of_portrait(self._audio, path, portrait)
                    for portrait, path in zip(portraits, self._paths, strict=True)
                ),
                *self._others,
            ]
        )

    def write_failed(self, error: Voice2FaceError) -> None:
        """Tell why there is no portrait."""
        path = self._paths[0]
        portrait = None if path is None else str(path)
        failed = Outcome(str(self._audio), portrait, "failed", error=str(error))
        self._file.write([failed, *self._others])
