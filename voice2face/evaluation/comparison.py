"""The few figures that variants of one thing are compared by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from voice2face.commands.options import number_argument
from voice2face.data.tables import load_voices
from voice2face.evaluation.agreement import bootstrap_share, share_of_known, within_one_decade
from voice2face.evaluation.distribution import frechet_distance
from voice2face.evaluation.instruments import (
    Artist,
    Instruments,
    add_checkpoint_option,
    add_measuring_options,
    load_artist,
)
from voice2face.evaluation.measuring_command import (
    measuring_command,
    measuring_parser,
    parse_options,
    write_and_print,
)
from voice2face.evaluation.pictures import face_found, picture_features
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import HeardVoices, hear, said_of
from voice2face.settings import DEFAULT_PRESET, DEFAULT_VARIETY, MOST_IMAGES


class Comparison:
    """Draws portraits of the first recording of each speaker and says what they show and how well.

    The seeds are the same for every variant, so that variants differ by nothing else.

    Args:
        heard: the speakers.
        portraits_a_voice: seeds for each speaker.
        instruments: the measuring networks.
        report: takes the figures.
    """

    def __init__(
        self, heard: HeardVoices, portraits_a_voice: int, instruments: Instruments, report: Report
    ) -> None:
        self.heard, self.instruments, self.report = heard, instruments, report
        self.rows = np.tile(heard.first_clips, portraits_a_voice)

    def draw(self, artist: Artist) -> np.ndarray:
        """The portraits of a variant, ``(N, size, size, 3)`` uint8."""
        voices = [self.heard.voices[row] for row in self.rows]
        return artist.draw(voices, list(range(len(voices))))

    def measure(self, group: str, pictures: np.ndarray) -> float:
        """Enter a variant's figures as a group of the report; returns its Fréchet distance."""
        heard, rows, report = self.heard, self.rows, self.report
        verdict = self.instruments.judge(pictures)
        speakers, sex, age = heard.speakers[rows], heard.sex[rows], heard.age[rows]
        near = within_one_decade(verdict.age, age)
        as_heard = within_one_decade(verdict.age, said_of(heard.voices).age[rows])
        found = np.array([face_found(picture) for picture in pictures])
        features = picture_features(pictures, self.instruments.perceptual)
        distance = frechet_distance(features, self.instruments.pictured_test_faces)
        report.add(group, "sex", share_of_known(verdict.sex == sex, sex, speakers))
        report.add(group, "age within 10 years", share_of_known(near, age, speakers))
        report.add(
            group, "age within 10 years of the one heard", bootstrap_share(as_heard, speakers)
        )
        report.add(group, "a face is found", bootstrap_share(found, speakers))
        report.add(group, "Fréchet distance", distance)
        return distance


@measuring_command()
def run_comparison(
    name: str,
    documentation: str | None,
    measure: Callable[[Comparison, Artist, Path], None],
    arguments: Sequence[str] | None,
) -> None:
    """Read a comparison's command line, measure on the test speakers, write and print its tables.

    Args:
        name: of the command, and of the files that it writes.
        documentation: of its module.
        measure: draws and enters the figures; is given an artist of the default settings, and the
            folder to write to.
        arguments: of the command line; by default this process's.
    """
    parser = measuring_parser(f"voice2face.evaluation.{name}", documentation)
    add_checkpoint_option(parser)
    add_measuring_options(parser)
    parser.add_argument(
        "--portraits-a-voice",
        type=number_argument(int, 1, MOST_IMAGES),
        default=2,
        help="seeds a speaker (default: %(default)s)",
    )
    parser.set_defaults(preset=DEFAULT_PRESET, variety=DEFAULT_VARIETY)
    options = parse_options(parser, arguments)
    artist = load_artist(options)
    faces, voices = (str(options.data / f"{kind}-*.parquet") for kind in ("faces", "voices"))
    instruments = Instruments.load(faces, options.networks, options.limit)
    heard = hear(artist.pipe, load_voices(voices, "test", limit=options.limit))
    comparison = Comparison(heard, options.portraits_a_voice, instruments, Report())
    measure(comparison, artist, options.out)
    write_and_print(comparison.report, options.out, name)
