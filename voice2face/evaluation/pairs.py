"""Portraits against the true faces of the same voices, beside other answers to the same voice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from voice2face.audio import SAMPLE_RATE
from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.tables import decode_face, decode_voice, read_rows, row_errors
from voice2face.errors import AudioError
from voice2face.evaluation.agreement import Share, bootstrap_share, within_one_decade
from voice2face.evaluation.cases import Cases, add_differences, write_cases
from voice2face.evaluation.instruments import FACE_SIZE, Artist, Instruments
from voice2face.evaluation.judge import Verdict
from voice2face.evaluation.quality import add_quality
from voice2face.evaluation.real_faces import random_faces
from voice2face.evaluation.report import Report
from voice2face.evaluation.retrieval import nearness, ranks, recalled
from voice2face.evaluation.voices import add_common_answer, said_of
from voice2face.listening import Voice

logger = logging.getLogger("voice2face.evaluation")

SEEDS = 4
OTHER_ANSWERS = ("face_frontal", "speech2face")
OURS = "voice2face"
VOICE_HEARD, PERSON_MET = "the voice is heard, true pairs", "the person is met"
PICTURE_GOOD = "the picture is good"
NAMES = (
    OURS,
    *("Speech2Face", "mean face", "true face, frontal"),
    *("random real face of that sex", "random real face of the sex and age heard"),
)


@dataclass(frozen=True)
class TruePeople:
    """One voice and the true face of each person.

    Attributes:
        people: names.
        ids: of the pairs; names where the table has none.
        voices: one recording a person, as the checkpoint hears it.
        faces: true faces, ``(N, 192, 192, 3)`` uint8.
        frontal: the true faces turned frontal; ``None`` where the table has none.
        published: what the Speech2Face paper made of the same recordings; ``None`` where the
            table has none.
        face_features: mean recognition features of all true faces of a person, unit length.
        verdict: what the judge says of all true faces of a person together.
    """

    people: np.ndarray
    ids: np.ndarray
    voices: list[Voice]
    faces: np.ndarray
    frontal: np.ndarray | None
    published: np.ndarray | None
    face_features: np.ndarray
    verdict: Verdict


def load_people(artist: Artist, instruments: Instruments, file: Path) -> TruePeople:
    """Read the pairs to measure and keep the first usable recording of each person.

    The columns ``audio``, ``face`` and ``person`` are needed; ``face_frontal`` and ``speech2face``
    are other answers to compare with, where they are there.

    Raises:
        SettingError: a row cannot be used.
    """
    rows = rows_to_measure(file)
    faces = faces_in(rows, "face")
    others = [column for column in OTHER_ANSWERS if column in rows[0]]
    with row_errors(rows[0]):
        names = np.array([str(row["person"]) for row in rows])
    features = instruments.features(faces).numpy()
    verdict = instruments.judge(faces, names)
    voices: dict[str, Voice] = {}
    kept: list[int] = []
    for k, row in enumerate(tqdm(rows, desc="listening", unit="clip")):
        if names[k] in voices or not is_comparable(row):
            continue
        with row_errors(row):
            waveform = decode_voice(row["audio"])
        try:
            voices[names[k]] = artist.pipe.listen(waveform, SAMPLE_RATE)
            kept.append(k)
        except AudioError as error:
            logger.info("%s: %s", names[k], error)
    people = names[kept]
    frontal, published = (
        faces_in([rows[k] for k in kept], column) if column in others else None
        for column in OTHER_ANSWERS
    )
    means = np.stack([features[names == person].mean(0) for person in people])
    return TruePeople(
        people,
        np.array([str(rows[k].get("id") or names[k]) for k in kept]),
        list(voices.values()),
        faces[kept],
        frontal,
        published,
        means / np.linalg.norm(means, axis=1, keepdims=True),
        Verdict(verdict.sex[kept], verdict.age[kept]),
    )


def is_comparable(row: Mapping[str, Any]) -> bool:
    """Whether a pair has all the other answers that its table has columns for."""
    return all(row[column] for column in OTHER_ANSWERS if column in row)


def rows_to_measure(file: Path) -> list[dict[str, Any]]:
    """The rows of split ``test``; all of them where the table has no column ``split``.

    Raises:
        SettingError: there are none.
    """
    if "split" not in pq.read_schema(file).names:
        return list(read_rows(str(file), None, None))
    rows = list(read_rows(str(file), "test", None))
    others = pq.read_metadata(file).num_rows - len(rows)
    logger.info("%s: the %d rows of split test are measured, %d left out", file, len(rows), others)
    return rows


def faces_in(rows: list[dict[str, Any]], column: str) -> np.ndarray:
    """The pictures of a column, ``(N, 192, 192, 3)`` uint8.

    Raises:
        SettingError: one cannot be decoded.
    """
    faces = []
    for row in rows:
        with row_errors(row):
            faces.append(decode_face(row[column], FACE_SIZE))
    return np.stack(faces)


def measure_pairs(
    artist: Artist,
    instruments: Instruments,
    file: Path,
    report: Report,
    out: Path,
    *,
    other_methods: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Compare answers to each voice with the true face; writes a sheet of them, and each case.

    Whether the voice is heard and whether the picture is good is seen in portraits of one seed
    each, as people use them. The person is looked for in portraits that share their seeds, so
    that what sets them apart comes from the voices: in each picture, and in the average of several,
    which lies nearer to every face. Of Speech2Face, the mean face and the true one there is one.
    Of what other methods answer, the first picture is the one to be judged.

    Args:
        artist: the checkpoint, and how it draws.
        instruments: measure.
        file: the table of pairs.
        report: takes the figures.
        out: folder of the sheet and of ``cases.csv``.
        other_methods: pictures ``(seeds, 192, 192, 3)`` uint8, by name and id.
    """
    truth = load_people(artist, instruments, file)
    count = len(truth.people)
    shared = [
        artist.draw(truth.voices, [seed] * count)
        for seed in tqdm(range(SEEDS), desc="portraits", unit="seed")
    ]
    own = artist.draw(truth.voices, list(range(count)))
    mean_face = instruments.training_faces.images.mean(0).round().astype(np.uint8)
    answers = {OURS: (own, shared)}
    for name, pictures in {
        "Speech2Face": truth.published,
        "mean face": np.repeat(mean_face[None], count, 0),
        "true face, frontal": truth.frontal,
    }.items():
        if pictures is not None:
            answers[name] = (pictures, [pictures])
    for name, labels in {
        "random real face of that sex": (truth.verdict.sex,),
        "random real face of the sex and age heard": said_of(truth.voices),
    }.items():
        drawn = [random_faces(instruments.other_faces, *labels, seed=seed) for seed in range(SEEDS)]
        answers[name] = (drawn[0], drawn)
    for name, by_id in other_methods.items():
        made = list(np.stack([by_id[pair] for pair in truth.ids], 1))
        answers[name] = (made[0], made)
    cases = {}
    for name, (pictures, repeated) in answers.items():
        said = add_voice(report, f"{VOICE_HEARD}: {name}", instruments, pictures, truth)
        features = [instruments.features(images).numpy() for images in repeated]
        add_person(report, f"{PERSON_MET}: {name}", features, truth)
        found, hidden = add_quality(
            report, f"{PICTURE_GOOD}: {name}", pictures, truth.people, instruments
        )
        judged = np.arange(count) if name == OURS else np.zeros(count, int)
        cases[name] = Cases(
            judged,
            said,
            found,
            hidden,
            np.stack(features),
            truth.verdict,
            truth.face_features,
        )
    write_cases(out / "cases.csv", truth.ids, truth.people, cases)
    add_differences(report, cases.pop(OURS), cases)
    of_others = [answers[name][0] for name in other_methods]
    sheet = [truth.faces, truth.frontal, truth.published, own, *shared, *of_others]
    save_sheet([row for row in sheet if row is not None], out / "pairs.png")


def save_sheet(rows: list[np.ndarray], file: Path) -> None:
    """Write the first sixteen people, one kind of picture a row."""
    size = (FACE_SIZE, FACE_SIZE)
    contact_sheet([np.stack([cv2.resize(image, size) for image in row[:16]]) for row in rows]).save(
        file
    )


def add_voice(
    report: Report, group: str, instruments: Instruments, pictures: np.ndarray, truth: TruePeople
) -> Verdict:
    """Enter the agreement of sex and age between answers and true faces, by the same judge.

    Returns:
        What it says of the answers.
    """
    said = instruments.judge(pictures)
    sex = said.sex == truth.verdict.sex
    age = within_one_decade(said.age, truth.verdict.age)
    report.add(group, "sex", bootstrap_share(sex, truth.people))
    report.add(group, "age within 10 years", bootstrap_share(age, truth.people))
    add_common_answer(report, group, truth.verdict.age, truth.people)
    return said


def add_person(report: Report, group: str, each: list[np.ndarray], truth: TruePeople) -> None:
    """Enter distances to the true face and its rank; answers of several seeds are averaged.

    Args:
        report: to enter them into.
        group: what the report calls the answers.
        each: recognition features ``(people, dim)`` of the answers, of unit length, of each seed.
        truth: the people.
    """
    mean = np.mean(each, 0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    single = [nearness(features, truth.face_features) for features in each]
    averaged = nearness(mean, truth.face_features)
    for position, name in enumerate(("cos x100", "L1", "L2 x100")):
        value = float(np.mean([one[position] for one in single]))
        report.add(group, f"{name}, a picture", value)
        report.add(group, f"{name}, seeds averaged", float(averaged[position]))

    def add(name: str, measured: Callable[[np.ndarray], np.ndarray]) -> None:
        report.add(group, name, share_of_people(measured(mean), truth.people))
        of_each = np.mean([measured(features) for features in each], 0)
        report.add(group, f"{name}, a picture", share_of_people(of_each, truth.people))

    faces, sex = truth.face_features, truth.verdict.sex
    for count in (1, 2, 5, 10):
        add(f"R@{count}", partial(recalled, faces=faces, count=count))
    add("mean rank", partial(ranks, faces=faces))
    add("mean rank among people of that sex", partial(ranks, faces=faces, groups=sex))


def share_of_people(of_each: np.ndarray, people: np.ndarray) -> Share | None:
    """Mean over people, of those who have a number (alone of their sex, one has no rank)."""
    known = ~np.isnan(of_each)
    return bootstrap_share(of_each[known], people[known]) if known.any() else None
