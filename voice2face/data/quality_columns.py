"""The numbers with which a table says how good its pictures are."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voice2face.errors import SettingError

QUALITY_COLUMNS = ("sharpness", "yaw", "pitch", "brightness", "contrast", "outside")

logger = logging.getLogger("voice2face.data")


def quality_of(row: Mapping[str, Any]) -> list[float]:
    """The picture-quality numbers of a row, NaN where one is missing.

    Raises:
        SettingError: one is there and is not finite.
    """
    values = []
    for column in QUALITY_COLUMNS:
        value = row.get(column)
        number = math.nan if value is None else float(value)
        if value is not None and not math.isfinite(number):
            raise SettingError(f"{column} is {number}: give a finite number, or none")
        values.append(number)
    sharpness, *others = values
    return [sharpness if math.isnan(sharpness) else math.log(max(sharpness, 1.0)), *others]


def without_gaps(quality: Sequence[Sequence[float]]) -> np.ndarray:
    """The numbers of all rows, ``(N, 6)`` float32, each column's median where one is missing.

    A column that no row has is 0.
    """
    numbers = np.array(quality, np.float32)
    for column, name in zip(numbers.T, QUALITY_COLUMNS, strict=True):
        missing = np.isnan(column)
        if missing.all():
            column[:] = 0.0
        elif missing.any():
            logger.warning(
                "%d of %d rows have no %s: the median of the others stands for it",
                missing.sum(),
                len(column),
                name,
            )
            column[missing] = np.median(column[~missing])
    return numbers
