"""A cluster of two nodes on one machine, one worker each, one of them killed at worst moments."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from PIL import Image

from tests.conftest import SPEECH
from voice2face import Portrait, Voice2FacePipeline
from voice2face.errors import SettingError
from voice2face.picture_files import SYNTHETIC_SOURCE
from voice2face.seeds import seed_of_name

ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python")
nodes = pytest.importorskip("ray.cluster_utils", reason="Ray has no wheel for this Python")

FEW = ("--preset", "fast", "--batch-size", "2")


@pytest.fixture(scope="module")
def ray_batch() -> ModuleType:
    path = SPEECH.parent / "ray_batch.py"
    specification = importlib.util.spec_from_file_location("ray_batch", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))  # or Ray keeps one in the home folder
        node = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
        two = nodes.Cluster(initialize_head=True, head_node_args=node)
        two.add_node(num_cpus=1, num_gpus=0)
        ray.init(two.address, log_to_driver=False)
        assert len(ray.nodes()) == 2
        yield
        ray.shutdown()
        two.shutdown()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of three seconds, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("recordings")
    for speaker in ("female", "male"):
        (folder / speaker).mkdir()
        samples, rate = sf.read(SPEECH / f"{speaker}.flac")
        for second in (0, 3, 6):
            clip = samples[second * rate : (second + 3) * rate]
            sf.write(folder / speaker / f"{second}.flac", clip, rate)
    (folder / "broken.wav").write_text("this is no audio")
    return folder


@pytest.fixture(scope="module")
def alone(
    ray_batch: ModuleType, recordings: Path, pipeline: Voice2FacePipeline
) -> dict[str, Portrait]:
    """What the pipeline makes of each good recording by itself."""
    return {
        name: pipeline(recordings / name, seed=seed_of_name(name, seed=0), preset="fast")[0]
        for name in sorted(f"{who}/{second}.flac" for who in ("female", "male") for second in "036")
    }


def assert_same(png: Path | bytes, expected: Portrait) -> None:
    with Image.open(io.BytesIO(png) if isinstance(png, bytes) else png) as image:
        assert image.info["voice2face:seed"] == str(expected.seed)
        assert image.info["voice2face:audio_sha256"] == expected.provenance.audio_sha256
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]
        levels = np.asarray(image).astype(int) - np.asarray(expected.image)
    assert np.abs(levels).max() <= 1


def report(output: Path) -> list[dict[str, str]]:
    lines = output.with_name(f"{output.name}-failed.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_killed_worker_loses_and_doubles_nothing_and_a_second_run_makes_nothing_again(
    cluster: None,
    ray_batch: ModuleType,
    recordings: Path,
    alone: dict[str, Portrait],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    killed, output = tmp_path / "killed", tmp_path / "portraits"
    arguments = [str(recordings), "-o", str(output), *FEW, "--actors"]

    class Mortal(ray_batch.Painter):
        def write(self, portraits: dict[str, Portrait]) -> dict[str, str]:
            """The first to come here dies between a picture's writing and its renaming."""

            def die(partial: Path, _: Path) -> None:
                killed.joinpath(partial.name).write_bytes(partial.read_bytes())
                os.kill(os.getpid(), signal.SIGKILL)

            try:
                killed.mkdir()
            except FileExistsError:
                return super().write(portraits)
            names = list(portraits)
            super().write({names[0]: portraits[names[0]]})
            Path.replace = die
            return super().write(portraits)

    with monkeypatch.context() as patch:
        patch.setattr(ray_batch, "Painter", Mortal)
        assert ray_batch.main([*arguments, "2"]) == 1
    assert "6 made, 1 failed" in capsys.readouterr().out
    (half_written,) = killed.iterdir()
    assert half_written.stat().st_size > 0

    pictures = {path.name: path for path in output.iterdir()}
    assert pictures.keys() == {f"{name.replace('/', '%2F')}.png" for name in alone}
    for name, expected in alone.items():
        assert_same(pictures[name.replace("/", "%2F") + ".png"], expected)
    (failure,) = report(output)
    assert failure["id"] == "broken.wav"
    assert "not audio that can be decoded" in failure["error"]

    before = {name: path.stat() for name, path in pictures.items()}
    assert ray_batch.main([*arguments, "1"]) == 1
    assert "0 made, 1 failed" in capsys.readouterr().out
    after = {path.name: path.stat() for path in output.iterdir()}
    assert after.keys() == before.keys()
    for name, status in after.items():
        assert (status.st_ino, status.st_mtime_ns) == (
            before[name].st_ino,
            before[name].st_mtime_ns,
        )


def test_tables_go_in_and_come_out(
    cluster: None,
    ray_batch: ModuleType,
    recordings: Path,
    alone: dict[str, Portrait],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    source, output = tmp_path / "voices.parquet", tmp_path / "faces"
    sounds = {name: (recordings / name).read_bytes() for name in alone}
    rows = [*sounds.items(), ("broken", b"this is no audio"), ("missing", None)]
    pq.write_table(pa.table([*zip(*rows, strict=True)], ["speaker", "sound"]), source)
    output.mkdir()
    first, *others = alone
    earlier = pa.table({"id": [first], "seed": [1], "png": [b"of an earlier run"]})
    pq.write_table(earlier, output / "earlier.parquet")
    arguments = [str(source), "-o", str(output), *FEW, "--format", "parquet", "--actors", "1"]
    columns = ["--id-column", "speaker", "--audio-column", "sound"]
    assert ray_batch.main(arguments + columns) == 1
    assert "5 made, 2 failed" in capsys.readouterr().out
    made = {row["id"]: row for row in pq.read_table(output).to_pylist()}
    assert pq.read_table(output).num_rows == 6
    assert made.pop(first)["png"] == b"of an earlier run"
    assert made.keys() == set(others)
    for name, row in made.items():
        assert row["seed"] == alone[name].seed
        assert_same(row["png"], alone[name])
    assert {failure["id"] for failure in report(output)} == {"broken", "missing"}


def test_a_worker_killed_once_its_table_is_written_doubles_nothing(
    cluster: None,
    ray_batch: ModuleType,
    recordings: Path,
    alone: dict[str, Portrait],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    source, output, killed = tmp_path / "voices", tmp_path / "faces", tmp_path / "killed"
    source.mkdir()
    for k, name in enumerate(alone):
        row = pa.table({"id": [name], "audio": [(recordings / name).read_bytes()]})
        pq.write_table(row, source / f"{k}.parquet")

    class Mortal(ray_batch.Painter):
        def write(self, portraits: dict[str, Portrait]) -> dict[str, str]:
            """The first to come here dies before it can say that it has written."""
            errors = super().write(portraits)
            try:
                killed.mkdir()
            except FileExistsError:
                return errors
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ray_batch, "Painter", Mortal)
    arguments = [str(source), "-o", str(output), *FEW, "--format", "parquet", "--actors", "2"]
    assert ray_batch.main(arguments) == 0
    assert killed.exists()
    assert f"{len(alone)} made, 0 failed" in capsys.readouterr().out
    made = pq.read_table(output).to_pylist()
    assert sorted(row["id"] for row in made) == sorted(alone)
    for row in made:
        assert_same(row["png"], alone[row["id"]])


def test_where_all_is_done_nothing_is_made_and_nothing_failed(
    cluster: None,
    ray_batch: ModuleType,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    output = tmp_path / "portraits"
    output.mkdir()
    for name in ("0", "3", "6"):
        (output / f"{name}.flac.png").write_bytes(b"of an earlier run")
    arguments = [str(recordings / "male"), "-o", str(output), *FEW, "--actors", "1"]
    assert ray_batch.main(arguments) == 0
    assert "0 made, 0 failed" in capsys.readouterr().out
    assert report(output) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8")
def test_a_recording_whose_name_is_not_utf8_ends_no_batch(
    cluster: None,
    ray_batch: ModuleType,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    source, output, odd = tmp_path / "spoken", tmp_path / "portraits", os.fsdecode(b"caf\xe9.flac")
    source.mkdir()
    for name in ("talk.flac", odd):
        shutil.copy(recordings / "male" / "0.flac", source / name)
    arguments = [str(source), "-o", str(output), *FEW, "--actors", "1"]
    for run in ("1 made, 1 failed", "0 made, 1 failed"):
        assert ray_batch.main(arguments) == 1
        assert run in capsys.readouterr().out
        assert report(output) == [{"id": odd, "error": "its path is not UTF-8; rename it"}]
        assert [path.name for path in output.iterdir()] == ["talk.flac.png"]


def test_ids_that_are_the_same_are_refused(
    cluster: None, ray_batch: ModuleType, tmp_path: Path
) -> None:
    for ids in (["a", "a"], ["a", None]):
        pq.write_table(pa.table({"id": ids, "audio": [b"", b""]}), tmp_path / "voices.parquet")
        with pytest.raises(SettingError, match="rows of id are empty or the same"):
            ray_batch.main([str(tmp_path / "voices.parquet"), "-o", str(tmp_path / "faces")])


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "voices.parquet",
            ["--id-column", "speaker"],
            "has no column speaker, but id, audio; name",
        ),
        ("voices.parquet", ["--audio-column", "sound"], "has no column sound, but id, audio"),
        ("missing.parquet", [], "missing.parquet cannot be read"),
        ("damaged.parquet", [], "damaged.parquet cannot be read"),
    ],
)
def test_tables_that_cannot_be_used_are_named(
    name: str, option: list[str], message: str, ray_batch: ModuleType, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"id": ["a"], "audio": [b""]}), tmp_path / "voices.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"no table")
    arguments = [str(tmp_path / name), "-o", str(tmp_path / "faces"), *option]
    with pytest.raises(SettingError, match=message):
        ray_batch.waiting_recordings(ray_batch.build_parser().parse_args(arguments))


def test_names_of_other_alphabets_stay_short(ray_batch: ModuleType) -> None:
    name = "записи/Интервью: Иван Иванович Петров, 100 %, часть первая.wav"
    stem = ray_batch.stem_of(name)
    assert not set('/\\:*?"<>|') & set(stem)
    assert len(stem) < len(name) + 10
    assert unquote(stem) == name


def test_a_portrait_that_cannot_be_written_ends_no_batch(
    ray_batch: ModuleType, recording: str, tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    painter = object.__new__(ray_batch.Painter)
    painter.pipe = tiny_pipeline
    painter.options = ray_batch.build_parser().parse_args([str(tmp_path), "-o", str(tmp_path)])
    audio = Path(recording).read_bytes()
    batch = pa.table({"id": ["long" * 100, "short"], "audio": [audio, audio]})
    errors = dict(zip(*(column.to_pylist() for column in painter(batch)), strict=True))
    assert errors["short"] is None
    assert "long" in errors["long" * 100]
    assert (tmp_path / "short.png").is_file()
