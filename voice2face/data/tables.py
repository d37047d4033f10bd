"""Parquet tables of faces, of voices and of true pairs, decoded into memory."""

from __future__ import annotations

import glob
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile as sf
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.audio import SAMPLE_RATE
from voice2face.data.quality_columns import quality_of, without_gaps
from voice2face.errors import SettingError
from voice2face.models.attribute_heads import AGE_DECADES
from voice2face.picture_files import upright
from voice2face.pixels import to_model_range

SEXES = ("female", "male")
UNKNOWN = -1
ADULT_YEARS = 20
OLDEST_YEARS = 120

logger = logging.getLogger("voice2face.data")


@dataclass(frozen=True)
class FaceTable:
    """Decoded faces of one split.

    Attributes:
        images: ``(N, size, size, 3)`` uint8.
        sex: ``(N,)``, index into ``SEXES``, or ``UNKNOWN``.
        age: ``(N,)``, index into ``AGE_DECADES``, or ``UNKNOWN``.
        quality: ``(N, 6)`` float32, ``QUALITY_COLUMNS`` with the logarithm of sharpness.
        ids: the rows' identifiers.
        unknown_labels: how many rows' sex or age is unknown, in words; empty where none is.
    """

    images: np.ndarray
    sex: np.ndarray
    age: np.ndarray
    quality: np.ndarray
    ids: list[str]
    unknown_labels: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def pictures(self, rows: np.ndarray, mirrored: np.ndarray) -> Tensor:
        """Pictures ``(B, 3, size, size)`` in [-1, 1].

        Args:
            rows: ``(B,)``, which faces.
            mirrored: ``(B,)`` boolean, which of these left and right are swapped in.
        """
        images = self.images[rows]
        images[mirrored] = images[mirrored, :, ::-1]
        return to_model_range(images)


@dataclass(frozen=True)
class VoiceTable:
    """Decoded recordings of one split.

    Attributes:
        waveforms: one int16 array a recording, mono at 16 kHz.
        sex: ``(N,)``, index into ``SEXES``, or ``UNKNOWN``.
        age: ``(N,)``, index into ``AGE_DECADES``, or ``UNKNOWN``.
        speaker: the rows' speakers.
        ids: the rows' identifiers.
        corpus: where the rows come from; empty where unknown.
        licence: what each row may be used for; empty where unknown.
        unknown_labels: how many rows' sex or age is unknown, in words; empty where none is.
    """

    waveforms: list[np.ndarray]
    sex: np.ndarray
    age: np.ndarray
    speaker: list[str]
    ids: list[str]
    corpus: list[str]
    licence: list[str]
    unknown_labels: str = ""

    def __len__(self) -> int:
        return len(self.ids)


def read_rows(
    paths: str | Sequence[str],
    split: str | None,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of parquet files as dictionaries, but for those of minors.

    Args:
        paths: a file, a glob pattern, or several of either; a file of two is read once.
        split: keep the rows whose ``split`` column says so; ``None`` keeps all.
        limit: stop after that many rows.

    Raises:
        SettingError: no file matches, one is no table, there is no column ``split``, or no row of
            an adult is left.
    """
    patterns = [paths] if isinstance(paths, str) else list(paths)
    files = sorted(
        {
            file
            for pattern in patterns
            for file in glob.glob(str(Path(pattern).expanduser()))  # noqa: PTH207
        }
    )
    if not files:
        raise SettingError(f"no parquet file matches {', '.join(patterns)}")
    count = minors = 0
    for file in files:
        for table in tables_in(file, split):
            for row in table.to_pylist():
                if of_minor(row.get("age")):
                    minors += 1
                    continue
                yield row
                count += 1
                if limit is not None and count >= limit:
                    return
    if minors:
        logger.warning(
            "left out %d rows of people labelled under %d: %s",
            minors,
            ADULT_YEARS,
            ", ".join(patterns),
        )
    if count == 0:
        raise SettingError(f"no row of split {split!r} in {', '.join(patterns)}")


def tables_in(file: str, split: str | None) -> Iterator[pa.Table]:
    """Some rows of a parquet file after others, those of one split.

    Raises:
        SettingError: the file is no table, or has no column ``split`` of words.
    """
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
            table = pa.Table.from_batches([batch])
            if split is not None:
                if "split" not in table.column_names:
                    raise SettingError(
                        f"{file} has no column split; without one, what is trained on and what is "
                        "held out would be the same"
                    )
                table = table.filter(pc.equal(table["split"], split))
            yield table
    except (OSError, pa.ArrowException) as error:
        raise SettingError(f"{file} cannot be read as a parquet table: {error}") from error


def of_minor(age: object) -> bool:
    """Whether a label says an age under ``ADULT_YEARS``: in its first number, or in words."""
    label = str(age).casefold()
    years = re.search(r"\d+", label)
    said = any(word in label for word in ("teen", "child"))
    return said or (years is not None and int(years[0]) < ADULT_YEARS)


@contextmanager
def row_errors(row: Mapping[str, Any]) -> Iterator[None]:
    """Say of which row it is that something cannot be used.

    Raises:
        SettingError: a column is missing, or what it holds cannot be decoded.
    """
    try:
        yield
    except KeyError as error:
        raise SettingError(
            f"the tables have no column {error}; docs/training.md says which they need"
        ) from error
    except Exception as error:  # Pillow and libsndfile raise whatever they like
        raise SettingError(f"row {row.get('id')!r:.80} cannot be used: {error}") from error


def decode_face(encoded: bytes, image_size: int) -> np.ndarray:
    """Decode one encoded picture to ``(image_size, image_size, 3)`` uint8 RGB, upright.

    Raises:
        SettingError: there is none, or it is no square.
    """
    if not encoded:
        raise SettingError("its picture is empty")
    picture = upright(Image.open(io.BytesIO(encoded))).convert("RGB")
    if picture.width != picture.height:
        raise SettingError(
            f"its picture has {picture.width} x {picture.height} pixels, and faces are aligned in "
            "squares"
        )
    return np.asarray(picture.resize((image_size, image_size), Image.Resampling.LANCZOS))


def decode_voice(encoded: bytes) -> np.ndarray:
    """Decode one encoded recording, mono at 16 kHz, to int16 samples.

    Raises:
        SettingError: the recording has another rate or several channels, is empty or silent.
    """
    if not encoded:
        raise SettingError("its recording is empty")
    samples, rate = sf.read(io.BytesIO(encoded), dtype="int16", always_2d=True)
    if rate != SAMPLE_RATE:
        raise SettingError(f"tables hold audio at {SAMPLE_RATE} Hz, this is at {rate} Hz")
    if samples.shape[1] > 1:
        raise SettingError(f"tables hold mono audio, this has {samples.shape[1]} channels")
    if len(samples) == 0:
        raise SettingError("a recording without samples: leave it out")
    if samples.min() == samples.max():
        raise SettingError("a silent recording: leave it out")
    return np.ascontiguousarray(samples[:, 0])


class Labels:
    """Sex and age of the rows of a table, as far as they are labelled and understood.

    Args:
        kind: what the rows are.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sex: list[int] = []
        self.age: list[int] = []
        self._not_understood: dict[str, str] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Read those of one more row."""
        sex, age = row.get("gender"), row.get("age")
        self.sex.append(SEXES.index(sex) if sex in SEXES else UNKNOWN)
        self.age.append(decade_of(age))
        for name, value, index in (("sex", sex, self.sex[-1]), ("age", age, self.age[-1])):
            if index == UNKNOWN and str(value) not in ("None", "", "nan"):
                self._not_understood.setdefault(name, repr(value)[:40])

    def unknown(self) -> str:
        """How many are unknown, in words, with one that is not understood; goes to the log, too."""
        said = []
        for name, values in (("sex", self.sex), ("age", self.age)):
            if missing := values.count(UNKNOWN):
                example = self._not_understood.get(name)
                why = f" ({example} is not understood)" if example else ""
                said.append(f"{name} of {missing} of {len(values)}{why}")
        if not said:
            return ""
        words = f"{self.kind}: unknown are the {' and the '.join(said)}"
        logger.log(logging.WARNING if self._not_understood else logging.INFO, "%s", words)
        return words


def decade_of(age: object) -> int:
    """Index into ``AGE_DECADES`` of a label that names a decade or whole years, or ``UNKNOWN``."""
    if age in AGE_DECADES:
        return AGE_DECADES.index(str(age))
    years = re.fullmatch(r"(\d{2,3})(\.0)?", str(age))
    if years is None or not ADULT_YEARS <= int(years[1]) <= OLDEST_YEARS:
        return UNKNOWN
    return min((int(years[1]) - ADULT_YEARS) // 10, len(AGE_DECADES) - 1)


def load_faces(
    paths: str | Sequence[str],
    split: str | None,
    image_size: int,
    *,
    limit: int | None = None,
    column: str = "image",
) -> FaceTable:
    """Read and decode the faces of one split (errors: ``read_rows``, ``row_errors``)."""
    images, quality, ids = [], [], []
    labels = Labels(f"faces ({split})")
    for row in tqdm(read_rows(paths, split, limit), desc=f"faces ({split})", unit="face"):
        with row_errors(row):
            images.append(decode_face(row[column], image_size))
            labels.add(row)
            quality.append(quality_of(row))
            ids.append(str(row["id"]))
    return FaceTable(
        np.stack(images),
        np.array(labels.sex),
        np.array(labels.age),
        without_gaps(quality),
        ids,
        labels.unknown(),
    )


def load_voices(
    paths: str | Sequence[str],
    split: str | None,
    *,
    limit: int | None = None,
    speaker_column: str = "speaker",
) -> VoiceTable:
    """Read and decode the recordings of one split (errors: ``read_rows``, ``row_errors``)."""
    waveforms: list[np.ndarray] = []
    speaker, ids, corpus, licence = [], [], [], []
    labels = Labels(f"voices ({split})")
    for row in tqdm(read_rows(paths, split, limit), desc=f"voices ({split})", unit="clip"):
        with row_errors(row):
            waveforms.append(decode_voice(row["audio"]))
            labels.add(row)
            speaker.append(str(row[speaker_column]))
            ids.append(str(row["id"]))
            corpus.append(str(row.get("corpus") or ""))
            licence.append(str(row.get("licence") or ""))
    return VoiceTable(
        waveforms,
        np.array(labels.sex),
        np.array(labels.age),
        speaker,
        ids,
        corpus,
        licence,
        labels.unknown(),
    )
