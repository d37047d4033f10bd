"""What was measured of each picture on true pairs, and paired differences between answers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from voice2face.data.tables import SEXES
from voice2face.evaluation.agreement import paired_difference, within_one_decade
from voice2face.evaluation.judge import Verdict
from voice2face.evaluation.report import Report
from voice2face.evaluation.retrieval import ranks, recalled
from voice2face.models.attribute_heads import AGE_DECADES

DIFFERENCES = "differences of voice2face to other answers, true pairs"
COLUMNS = (
    *("id", "person", "answer", "seed", "sex", "age", "true_sex", "true_age"),
    *("face_found", "eyes_hidden", "in_ten_nearest", "rank", "cosine"),
)


@dataclass(frozen=True)
class Cases:
    """One answer to each person's voice: a picture that is judged, and some that are compared.

    Attributes:
        judged: ``(N,)``, the seed of the picture in which the next three were seen.
        said: sex and age that the judge sees.
        found: ``(N,)``, whether a face is found.
        hidden: ``(N,)``, whether eyes are hidden.
        features: ``(seeds, N, dim)``, recognition features of the pictures that are compared.
        true: sex and age that the judge sees in the true faces.
        faces: ``(N, dim)``, recognition features of the true faces.
    """

    judged: np.ndarray
    said: Verdict
    found: np.ndarray
    hidden: np.ndarray
    features: np.ndarray
    true: Verdict
    faces: np.ndarray

    @cached_property
    def in_ten_nearest(self) -> np.ndarray:
        """Whether the true face is among the ten nearest, ``(seeds, N)``."""
        return np.stack([recalled(of_seed, self.faces, 10) for of_seed in self.features])

    @cached_property
    def rank(self) -> np.ndarray:
        """Rank of the true face among people of that sex, ``(seeds, N)``; NaN without any."""
        return np.stack([ranks(of_seed, self.faces, self.true.sex) for of_seed in self.features])

    @cached_property
    def cosine(self) -> np.ndarray:
        """Similarity to the true face, ``(seeds, N)``."""
        return (self.features * self.faces).sum(2)

    def of_people(self) -> dict[str, np.ndarray]:
        """A number from 0 to 1 for each person (NaN: none), by what the report calls its mean."""
        return {
            "sex": self.said.sex == self.true.sex,
            "age within 10 years": within_one_decade(self.said.age, self.true.age),
            "R@10, a picture": self.in_ten_nearest.mean(0),
            "mean rank among people of that sex, a picture": self.rank.mean(0),
            "a face is found": self.found,
            "eyes are hidden": self.hidden,
        }

    def rows(self, person: int) -> Iterator[dict[str, object]]:
        """What was measured of each of a person's pictures, as far as it was, by ``COLUMNS``."""
        judged = int(self.judged[person])
        for seed in sorted({judged, *range(len(self.rank))}):
            row: dict[str, object] = {"seed": seed}
            if seed == judged:
                row |= {
                    "sex": SEXES[self.said.sex[person]],
                    "age": AGE_DECADES[self.said.age[person]],
                    "face_found": int(self.found[person]),
                    "eyes_hidden": int(self.hidden[person]),
                }
            if seed < len(self.rank):
                rank = self.rank[seed, person]
                row |= {
                    "in_ten_nearest": int(self.in_ten_nearest[seed, person]),
                    "rank": "" if np.isnan(rank) else f"{rank:.6f}",
                    "cosine": f"{self.cosine[seed, person]:.6f}",
                }
            yield row


def write_cases(
    file: Path, ids: np.ndarray, people: np.ndarray, answers: Mapping[str, Cases]
) -> None:
    """Write a row for each picture of each answer.

    Args:
        file: to write, CSV.
        ids: ``(N,)``, of the pairs that are measured.
        people: ``(N,)`` names.
        answers: by name.
    """
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        for name, cases in answers.items():
            for k, (pair, person) in enumerate(zip(ids, people, strict=True)):
                of_person = {
                    "id": pair,
                    "person": person,
                    "answer": name,
                    "true_sex": SEXES[cases.true.sex[k]],
                    "true_age": AGE_DECADES[cases.true.age[k]],
                }
                writer.writerows(of_person | row for row in cases.rows(k))


def add_differences(report: Report, ours: Cases, others: Mapping[str, Cases]) -> None:
    """Enter how much more of our answers are right, found or hidden than of each other's."""
    of_ours = ours.of_people()
    for name, cases in others.items():
        for measure, theirs in cases.of_people().items():
            difference = paired_difference(of_ours[measure], theirs)
            report.add(f"{DIFFERENCES}: {name}", measure, difference)
