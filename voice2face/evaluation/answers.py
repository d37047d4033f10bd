"""Another method's answers to the voices of the true pairs, read to be measured like portraits."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voice2face.data.tables import decode_face, row_errors
from voice2face.errors import SettingError
from voice2face.evaluation.instruments import FACE_SIZE
from voice2face.evaluation.pairs import NAMES, is_comparable, rows_to_measure

COLUMNS = ("id", "picture")


def add_answers_option(parser: argparse.ArgumentParser) -> None:
    """Declare whose answers are measured beside the checkpoint's."""
    parser.add_argument(
        "--answers",
        type=answers_argument,
        action="append",
        default=[],
        metavar="NAME=FILE.parquet",
        help="another method's pictures of the voices in pairs-dev.parquet, to be measured like "
        "portraits: a table with the columns id (those of pairs-dev.parquet) and picture (bytes of "
        "an aligned square picture; several rows of an id are several seeds), as docs/figures.md "
        "says; may be given again",
    )


def answers_argument(text: str) -> tuple[str, Path]:
    """What the report calls the answers, and their table."""
    name, _, file = text.partition("=")
    if not name.strip() or not file or "|" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE.parquet")
    return name.strip(), Path(file)


def read_answers(
    given: Sequence[tuple[str, Path]], pairs: Path
) -> dict[str, dict[str, np.ndarray]]:
    """The pictures of each method, by its name and the pairs' ids.

    Args:
        given: what the report calls each, and its table.
        pairs: table of the true pairs.

    Returns:
        ``(seeds, 192, 192, 3)`` uint8, by name and id.

    Raises:
        SettingError: a table cannot be read or does not answer each pair, or a name is taken.
    """
    if not given:
        return {}
    if not pairs.is_file():
        raise SettingError(f"--answers are measured on true pairs, and there is no {pairs}")
    rows = rows_to_measure(pairs)
    ids = {str(row["id"]) for row in rows if row.get("id")}
    if len(ids) < len(rows):
        raise SettingError(f"--answers needs a column id in {pairs}, another one in each row")
    needed = {str(row["id"]) for row in rows if is_comparable(row)}
    answers: dict[str, dict[str, np.ndarray]] = {}
    for name, file in given:
        if name in (*NAMES, *answers):
            raise SettingError(f"--answers: the report has a column {name!r}; choose another name")
        answers[name] = read_pictures(file, ids, needed)
    return answers


def read_pictures(file: Path, ids: set[str], needed: set[str]) -> dict[str, np.ndarray]:
    """The pictures of one method by id, ``(seeds, 192, 192, 3)`` uint8.

    Args:
        file: the table.
        ids: that it may have.
        needed: that it must have.

    Raises:
        SettingError: it cannot be read, or does not hold as many pictures of each id.
    """
    try:
        table = pq.ParquetFile(file).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise SettingError(f"{file} cannot be read as a parquet table: {error}") from error
    if not {*COLUMNS} <= {*table.column_names}:
        raise SettingError(f"{file} needs the columns id and picture; docs/figures.md says more")
    rows = table.select(COLUMNS).to_pylist()
    answered = {str(row["id"]) for row in rows}
    if unknown := answered - ids:
        raise SettingError(
            f"{file} has ids that none of the pairs to measure has: {some(unknown)}; leave them out"
        )
    if missing := needed - answered:
        raise SettingError(
            f"{file} has no picture for {len(missing)} of the {len(needed)} pairs to measure: "
            f"{some(missing)}; add a row for each id"
        )
    pictures: dict[str, list[np.ndarray]] = {}
    for row in rows:
        try:
            with row_errors(row):
                picture = decode_face(row["picture"], FACE_SIZE)
        except SettingError as error:
            raise SettingError(f"{file}: {error} (docs/training.md, Tables, says how)") from error
        pictures.setdefault(str(row["id"]), []).append(picture)
    counts = {one: len(seeds) for one, seeds in pictures.items()}
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[fewest] < counts[most]:
        raise SettingError(
            f"{file} has {counts[most]} pictures for {most!r} and {counts[fewest]} for {fewest!r}; "
            "give each id as many"
        )
    return {one: np.stack(seeds) for one, seeds in pictures.items()}


def some(ids: Collection[str]) -> str:
    """The first few of them, in words."""
    names = sorted(ids)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
