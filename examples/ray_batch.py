"""Portraits of many recordings, on one machine or a cluster of them, with Ray Data.

``python examples/ray_batch.py recordings/ -o portraits/``; ``-h`` tells the rest.
"""

import argparse
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import ray
import torch

from voice2face import Portrait, Voice2FacePipeline
from voice2face.commands.options import number_argument, variety_argument
from voice2face.errors import AudioError, OutputError, SettingError, Voice2FaceError
from voice2face.recording_folders import find_recordings
from voice2face.seeds import seed_of_name
from voice2face.settings import DEFAULT_PRESET, DEFAULT_VARIETY, MOST_IMAGES, PRESETS
from voice2face.whole_files import write_atomically

HELP = """\
examples:
  python examples/ray_batch.py recordings/ -o portraits/
      portraits/ID.png for each recording under the folder; its id is its path in there
  python examples/ray_batch.py voices.parquet -o faces/ --format parquet --id-column speaker
      tables of id, seed and png, from a table (or a folder of tables) of encoded recordings
  RAY_ADDRESS=auto python examples/ray_batch.py /shared/recordings -o /shared/portraits
      on all machines of a cluster that "ray start --disable-usage-stats" made, with
      RAY_AUTH_MODE=token where strangers reach it; every machine sees both folders

Each actor is a process with one pipeline, on a GPU of its own where there are any, else on a CPU
with one thread. What a dying process was drawing is drawn again. The same command goes on where it
stopped: ids that have a portrait are left alone. Seeds follow from --seed and the id, so that a
repeated run makes the same pictures. Recordings that cannot be used are listed, one JSON object a
line, in OUTPUT-failed.jsonl; the next run tries them again, and the exit code is 1.
"""


def build_parser() -> argparse.ArgumentParser:
    """Declare the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, help="folder of recordings, a .parquet file, or a folder of these")
    add("-o", "--output", type=Path, required=True, help="folder for the portraits")
    add("--format", choices=("png", "parquet"), default="png", help="of the portraits")
    add("--id-column", default="id", help="of a parquet source; names each recording once")
    add("--audio-column", default="audio", help="of a parquet source; bytes of WAV, FLAC, MP3 …")
    add(
        "--actors",
        type=number_argument(int, 1, 100_000),
        help="pipelines at work (default: one a GPU, else one a CPU)",
    )
    add(
        "--batch-size",
        type=number_argument(int, 1, MOST_IMAGES),
        default=16,
        help="portraits at once (default: 16)",
    )
    add("--seed", type=int, default=0, help="another one gives other faces (default: 0)")
    add("--preset", choices=tuple(PRESETS), default=DEFAULT_PRESET, help="time for quality")
    add(
        "--variety",
        type=variety_argument,
        default=DEFAULT_VARIETY,
        help="of faces, 0 to 1 (default: %(default)s)",
    )
    return parser


def stem_of(name: str) -> str:
    """An id as a file's name; ``unquote`` reads it again."""
    return re.sub(r'[%/\\:*?"<>|\x00-\x1f]', lambda found: quote(found[0], safe=""), name)


class Painter:
    """One pipeline; Ray makes each in a process of its own, and a new one where that dies."""

    def __init__(self, options: argparse.Namespace, device: str) -> None:
        torch.set_num_threads(1)  # of a machine's CPUs, more processes make more than threads
        self.options = options
        self.pipe = Voice2FacePipeline.from_pretrained(device=device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write a batch's portraits; say for each id what was wrong, if anything."""
        voices, errors = {}, dict.fromkeys(batch["id"].to_pylist())
        for name, audio in zip(errors, batch["audio"].to_pylist(), strict=True):
            try:
                voices[name] = self.pipe.listen(audio)
            except AudioError as error:
                errors[name] = str(error)
        if voices:
            seeds = [seed_of_name(name, self.options.seed) for name in voices]
            drawn = self.pipe.draw(
                list(voices.values()),
                seeds,
                preset=self.options.preset,
                variety=self.options.variety,
            )
            errors |= self.write(dict(zip(voices, drawn, strict=True)))
        return pa.table([list(errors), pa.array(errors.values(), "string")], ["id", "error"])

    def write(self, portraits: dict[str, Portrait]) -> dict[str, str]:
        """Write pictures, or one table; a batch that is drawn again replaces its own files.

        Returns what was wrong with the pictures that could not be written, by their ids.
        """
        output = self.options.output
        errors = {}
        if self.options.format == "png":
            for name, portrait in portraits.items():
                try:
                    portrait.save(output / f"{stem_of(name)}.png")
                except OutputError as error:
                    errors[name] = str(error)
            return errors
        seeds, pngs = zip(*((one.seed, one.png()) for one in portraits.values()), strict=True)
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table([list(portraits), seeds, pngs], ["id", "seed", "png"]), buffer)
        digest = hashlib.sha256(json.dumps(list(portraits)).encode()).hexdigest()
        write_atomically(output / f"{digest[:16]}.parquet", buffer.getvalue().to_pybytes())
        return errors


def ids_with_portrait(options: argparse.Namespace) -> set[str]:
    """What an earlier run wrote."""
    if options.format == "png":
        return {unquote(path.stem) for path in options.output.glob("*.png")}
    files, schema = sorted(options.output.glob("*.parquet")), pa.schema({"id": "string"})
    return set(pyarrow.dataset.dataset(files, schema).to_table()["id"].to_pylist())


def is_text(path: Path) -> bool:
    """Whether Arrow's tables, which are UTF-8, can hold a path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def ids_in(tables: Sequence[Path], columns: Sequence[str]) -> pa.ChunkedArray:
    """The first column of tables that have them all."""
    try:
        rows = pyarrow.dataset.dataset(tables)
        names = rows.schema.names
        if lacking := [name for name in columns if name not in names]:
            raise SettingError(
                f"{tables[0]} has no column {', '.join(lacking)}, but {', '.join(names)}; name "
                "others with --id-column and --audio-column"
            )
        return rows.to_table(list(columns[:1]))[0]
    except (OSError, pa.ArrowInvalid) as error:
        named = ", ".join(path.name for path in tables)
        raise SettingError(f"{tables[0].parent}: {named} cannot be read: {error}") from error


def waiting_recordings(options: argparse.Namespace) -> tuple[ray.data.Dataset, dict[str, str]]:
    """What has no portrait yet.

    Returns rows of ``id`` and ``audio``, paths or encoded bytes; and what is wrong with recordings
    that can have no row, by their ids.
    """
    done = ids_with_portrait(options)
    source = options.source.absolute()
    tables = [source] if source.suffix == ".parquet" else sorted(source.glob("*.parquet"))
    if not tables:
        recordings = find_recordings(source).recordings
        found = {path.relative_to(source).as_posix(): path for path in recordings}
        why = "its path is not UTF-8; rename it"
        odd = {name: why for name, path in found.items() if not is_text(path)}
        waiting = [name for name in found if name not in done and name not in odd]
        rows = [{"id": name, "audio": str(found[name])} for name in waiting]
        blocks = max(1, math.ceil(len(rows) / options.batch_size))
        return ray.data.from_items(rows, override_num_blocks=blocks), odd
    columns = [options.id_column, options.audio_column]
    ids = ids_in(tables, columns)
    if ids.null_count or len(ids.unique()) < len(ids):
        raise SettingError(f"{source}: rows of {columns[0]} are empty or the same; make them ids")

    def leave_out_done(table: pa.Table) -> pa.Table:
        renamed = pa.table([table[columns[0]].cast("string"), table[columns[1]]], ["id", "audio"])
        return renamed.filter(pc.invert(pc.is_in(renamed["id"], pa.array(done, "string"))))

    rows = ray.data.read_parquet([str(table) for table in tables]).select_columns(columns)
    waiting_rows = rows.map_batches(leave_out_done, batch_size=None, batch_format="pyarrow")
    return waiting_rows.repartition(target_num_rows_per_block=options.batch_size), {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = build_parser().parse_args(arguments)
    options.output = options.output.absolute()
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports to its makers
    ray.init(ignore_reinit_error=True)
    gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
    waiting, errors = waiting_recordings(options)
    outcomes = waiting.map_batches(
        Painter,
        fn_constructor_args=(options, "cuda" if gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=options.actors or gpus or cpus),
        batch_size=options.batch_size,
        batch_format="pyarrow",
        num_cpus=0,  # by Ray's count: with an actor on every CPU, it could not read any more
        num_gpus=1 if gpus else 0,
    )
    made = 0
    for row in outcomes.iter_rows():
        if row["error"] is None:
            made += 1
        else:
            errors[row["id"]] = row["error"]
    for partial in options.output.glob(".*.partial"):  # of processes that died while writing
        partial.unlink()
    report = options.output.with_name(f"{options.output.name}-failed.jsonl")
    lines = (json.dumps({"id": name, "error": errors[name]}, ensure_ascii=False) for name in errors)
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(report, text.encode(errors="backslashreplace"))  # as JSON escapes surrogates
    print(f"{made} made, {len(errors)} failed")
    return 1 if errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Voice2FaceError as error:
        sys.exit(f"ray_batch.py: {error}")
