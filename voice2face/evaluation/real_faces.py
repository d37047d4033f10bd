"""Real faces in the place of portraits: what an answer without any drawing would reach."""

from __future__ import annotations

import numpy as np

from voice2face.data.tables import UNKNOWN, FaceTable


def random_faces(
    faces: FaceTable, sex: np.ndarray, age: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """A face for each row, of its sex and age, without replacement where possible.

    Args:
        faces: to draw from.
        sex: ``(N,)``, index into ``SEXES``.
        age: ``(N,)``, index into ``AGE_DECADES``; any without it, or where no such face is.
        seed: of the draw.

    Returns:
        ``(N, size, size, 3)`` uint8.
    """
    rng = np.random.default_rng(seed)
    ages = np.full(len(sex), UNKNOWN) if age is None else age
    chosen = np.zeros(len(sex), int)
    for who, decade in sorted(set(zip(sex.tolist(), ages.tolist(), strict=True))):
        rows = np.flatnonzero((sex == who) & (ages == decade))
        of_sex = np.flatnonzero(faces.sex == who)
        of_age = of_sex[(faces.age[of_sex] == decade) & (decade != UNKNOWN)]
        pool = next((some for some in (of_age, of_sex) if len(some)), np.arange(len(faces)))
        chosen[rows] = rng.choice(pool, len(rows), replace=len(rows) > len(pool))
    return faces.images[chosen]
