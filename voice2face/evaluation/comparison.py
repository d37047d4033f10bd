"""The few figures that variants of one thing are compared by."""

from __future__ import annotations

import numpy as np

from voice2face.evaluation.agreement import bootstrap_share, within_one_decade
from voice2face.evaluation.distribution import frechet_distance
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.pictures import face_found, picture_features
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import HeardVoices, said_of
from voice2face.training.tables import UNKNOWN


def compare(
    group: str,
    artist: Artist,
    heard: HeardVoices,
    portraits_a_voice: int,
    instruments: Instruments,
    real: np.ndarray,
    report: Report,
) -> float:
    """Draw portraits of the first recording of each speaker; enter what they show and how well.

    The seeds are the same in every call, so that variants differ by nothing else.

    Args:
        group: of the report.
        artist: the variant.
        heard: the speakers.
        portraits_a_voice: seeds for each speaker.
        instruments: the measuring networks.
        real: features of the real faces, as ``picture_features`` makes them.
        report: takes the figures.

    Returns:
        The Fréchet distance.
    """
    rows = np.tile(heard.first_clips, portraits_a_voice)
    pictures = artist.draw([heard.voices[row] for row in rows], list(range(len(rows))))
    verdict = instruments.judge(pictures)
    speakers, known = heard.speakers[rows], heard.age[rows] != UNKNOWN
    near = within_one_decade(verdict.age, heard.age[rows])
    distance = frechet_distance(picture_features(pictures, instruments.perceptual), real)
    report.add(group, "sex", bootstrap_share(verdict.sex == heard.sex[rows], speakers))
    report.add(group, "age within 10 years", bootstrap_share(near[known], speakers[known]))
    as_heard = within_one_decade(verdict.age, said_of(heard.voices).age[rows])
    report.add(group, "age within 10 years of the one heard", bootstrap_share(as_heard, speakers))
    found = np.array([face_found(picture) for picture in pictures])
    report.add(group, "a face is found", bootstrap_share(found, speakers))
    report.add(group, "Fréchet distance", distance)
    return distance
