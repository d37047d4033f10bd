from __future__ import annotations

import codecs
import csv
import errno
import json
import os
import shutil
import signal
from contextlib import redirect_stderr
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from tests.conftest import tiny_components, tiny_update
from voice2face import Voice2FacePipeline, load_audio
from voice2face.checkpoints.learnt_preset import learnt_preset
from voice2face.checkpoints.resolving import find_folder
from voice2face.cli import build_parser, main
from voice2face.commands.ending_signals import ENDING, ending_as_interrupts
from voice2face.commands.folder_report import Outcome, read_report, report
from voice2face.commands.folder_settings import settings_asked
from voice2face.commands.options import draw_settings
from voice2face.errors import DeviceError, OutputError
from voice2face.picture_files import SYNTHETIC_SOURCE
from voice2face.recording_folders import (
    AUDIO_ENDINGS,
    MEDIA_ENDINGS,
    find_recordings,
    portrait_paths,
)
from voice2face.settings import DISTILLED, PRESETS, Preset


@pytest.fixture
def recordings(tone: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    for name in ("a.wav", "deep/b.flac", "deep/c.wav", "deep/c.flac", ".hidden/d.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, tone, 16_000)
    (folder / "broken.wav").write_text("this is no audio")
    (folder / "notes.txt").write_text("neither is this")
    return folder


def made(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def seed_of(portrait: Path) -> int:
    with Image.open(portrait) as image:
        return int(image.info["voice2face:seed"])


def test_a_folder_of_recordings_becomes_a_folder_of_portraits(
    recordings: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, table, sheet = tmp_path / "out", tmp_path / "run.csv", tmp_path / "all.png"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    arguments += ["--batch-size", "2", "--report", str(table), "--contact-sheet", str(sheet)]
    assert main(arguments) == 1, "one recording is broken"
    portraits = ["a.png", "deep/b.png", "deep/c.flac.png", "deep/c.wav.png"]
    assert made(out) == portraits
    printed = capsys.readouterr()
    assert "broken.wav" in printed.err
    assert "4 made, 0 there already, 1 failed" in printed.out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["status"] for row in rows] == ["made", "failed", "made", "made", "made"]
    assert float(rows[0]["speech_seconds"]) > 1.0
    with Image.open(out / "a.png") as image:
        assert image.info["voice2face:seed"] == rows[0]["seed"]
    with Image.open(sheet) as image:
        assert image.size == (4 * 128, 128)
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]


def test_a_second_run_makes_what_is_missing(
    recordings: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (recordings / "broken.wav").unlink()
    out, table = tmp_path / "out", tmp_path / "run.json"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    assert main([*arguments, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    before = {name: (out / name).read_bytes() for name in made(out)}
    (out / "deep" / "b.png").unlink()
    assert main([*arguments, "--report", str(table)]) == 0
    assert "1 made, 3 there already, 0 failed" in capsys.readouterr().out
    again = {name: (out / name).read_bytes() for name in made(out)}
    assert again.keys() == before.keys()
    assert {name for name in before if again[name] != before[name]} == {"deep/b.png"}
    rows = {Path(row["portrait"]).name: row for row in json.loads(table.read_text())}
    assert rows["b.png"]["status"] == "made"
    assert rows["a.png"]["status"] == "there already"
    with Image.open(out / "a.png") as image:
        assert rows["a.png"]["seed"] == int(image.info["voice2face:seed"]), "the portrait told it"
    assert rows["a.png"]["sex"] is None
    assert main([*arguments, "-q", "--report", str(table)]) == 0
    later = {Path(row["portrait"]).name: row for row in json.loads(table.read_text())}
    assert later == rows | {"b.png": rows["b.png"] | {"status": "there already"}}


def test_portraits_that_were_drawn_with_other_settings_are_counted(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def told(*more: str, model: str = checkpoint, failed: int = 0) -> str:
        words = [str(recordings), "-o", str(tmp_path / "out"), "--model", model, *more]
        assert main(words) == (failed > 0)
        counted = f"0 made, {4 - failed} there already, {failed} failed\n"
        return capsys.readouterr().out.partition(counted)[2]

    (recordings / "broken.wav").unlink()
    told("--steps", "1", "--seed", "1")
    monkeypatch.setattr(Voice2FacePipeline, "from_pretrained", Mock(side_effect=AssertionError))
    monkeypatch.setattr(Image.Image, "load", Mock(side_effect=AssertionError))
    four = "4 of them were drawn with other settings; --overwrite makes them again\n"
    assert told("--steps", "1", "--seed", "1") == told("--steps", "1") == ""
    assert told("--steps", "1", "--seed", "9") == four
    for other in (
        ["--preset", "best"],
        ["--guidance", "3"],
        ["--variety", "0"],
        ["--no-watermark"],
    ):
        assert told("--steps", "1", *other) == four
    assert told("--steps", "2", "-q") == ""
    assert told("--steps", "2", model=str(tmp_path / "gone")) == ""
    for name in ("deep/b.png", "deep/c.flac.png", "deep/c.wav.png"):
        (tmp_path / "out" / name).write_text("says nothing")
    one = "1 of them was drawn with other settings; --overwrite makes it again\n"
    assert told("--steps", "2", failed=3) == one


@pytest.mark.parametrize("preset", [["--preset", name] for name in PRESETS])
@pytest.mark.parametrize("numbers", [[], ["--steps", "4", "--guidance", "2"], ["--steps", "7"]])
@pytest.mark.parametrize("distilled", [False, True])
def test_the_settings_of_a_command_line_are_told_without_loading(
    preset: list[str], numbers: list[str], distilled: bool, tmp_path: Path
) -> None:
    parts = tiny_components("v_prediction")
    if distilled:
        parts["few_step_update"] = tiny_update(parts["denoiser"])
    pipe = Voice2FacePipeline(**parts, output_size=48, name="tiny")
    folder = pipe.save_pretrained(tmp_path / "tiny")
    options = build_parser().parse_args(["folder", "--model", str(folder), *preset, *numbers])
    assert settings_asked(options) == pipe.settings(**draw_settings(options))


def test_packaged_checkpoints_say_what_they_have_learnt() -> None:
    assert learnt_preset(find_folder()) == PRESETS["fast"]
    assert learnt_preset(find_folder("fine-portraitist-192")) == Preset(DISTILLED, 4, 2.0, 1)


def test_each_recording_of_a_folder_has_its_own_seed(
    recordings: Path, checkpoint: str, tmp_path: Path
) -> None:
    def seeds(folder: str, *more: str) -> dict[str, int]:
        out = tmp_path / folder
        arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1", *more]
        assert main([*arguments, "-q"]) == 0
        return {name: seed_of(out / name) for name in made(out)}

    (recordings / "broken.wav").unlink()
    first = seeds("out", "--seed", "5")
    assert len(set(first.values())) == 4
    (recordings / "a.wav").rename(recordings / "other.wav")
    renamed = seeds("out-again", "--seed", "5")
    assert renamed.items() >= {(name, first[name]) for name in first if name != "a.png"}
    assert seeds("out-other", "--seed", "6").items().isdisjoint(renamed.items())


def test_several_recordings_are_drawn_as_those_of_a_folder(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", checkpoint, "--steps", "1", "--seed", "5"]
    flat = tmp_path / "flat"
    flat.mkdir()
    named = [recordings / name for name in ("broken.wav", "deep/c.wav", "deep/c.flac", "a.wav")]
    for recording in named:
        shutil.copy(recording, flat)
    assert main([str(flat), "-o", "of-folder", *arguments, "-q"]) == 1, "one recording is broken"
    words = [str(path) for path in named]
    sheet = ["--report", "run.csv", "--contact-sheet", "all.png"]
    assert main([*words[:2], *arguments, *sheet, *words[2:]]) == 1
    assert (
        made(Path("portraits")) == made(Path("of-folder")) == ["a.png", "c.flac.png", "c.wav.png"]
    )
    for name in made(Path("portraits")):
        assert seed_of(Path("portraits", name)) == seed_of(Path("of-folder", name))
    assert "3 made, 0 there already, 1 failed" in capsys.readouterr().out
    assert len(Path("run.csv").read_text().splitlines()) == 5
    assert Path("all.png").is_file()
    assert main([*words[1:], words[1], *arguments, "-o", "portraits/"]) == 0
    assert "0 made, 3 there already, 0 failed" in capsys.readouterr().out


def test_patterns_are_expanded_where_shells_do_not(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(recordings)
    (recordings / "broken.wav").rename("[ab]*.wav")
    out = tmp_path / "out"
    arguments = ["-o", str(out), "--model", checkpoint, "--steps", "1", "-q"]
    assert main(["deep/*", "?.wav", *arguments]) == 0
    assert made(out) == ["a.png", "b.png", "c.flac.png", "c.wav.png"]
    assert main(["?.wav", *arguments[2:]]) == 0, "one recording"
    assert made(recordings)[1:3] == ["[ab]*.wav", "a.png"]
    capsys.readouterr()
    assert main(["[ab]*.wav", *arguments[2:]]) == 1
    assert "[ab]*.wav: not audio" in capsys.readouterr().err, "a file of that name is there"
    assert main(["a.wav", "*.mp3", *arguments]) == 1
    assert "*.mp3 does not exist, and as a pattern it matches nothing" in capsys.readouterr().err
    assert main(["inspect", str(out / "?.png")]) == 0
    assert [line for line in capsys.readouterr().out.split() if line.endswith(".png:")] == [
        f"{out / name}:" for name in ("a.png", "b.png")
    ]
    assert main(["verify", "*.jpg"]) == 1
    assert "*.jpg cannot be read as a picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["a.wav", "deep"], "deep is a folder; give one folder alone"),
        (["a.wav", "-"], "standard input is no recording among several"),
        (["a.wav", "inspec"], "inspec does not exist"),
        (["a.wav", "deep/A.wav"], "a.wav and deep/A.wav would share a portrait"),
        (["a.wav", "deep/b.flac", "-o", "faces.png"], "go to a folder: -o faces"),
        (["a.wav", "deep/b.flac", "--num-images", "2"], "one portrait a recording"),
    ],
)
def test_what_does_not_go_with_several_recordings(
    words: list[str],
    advice: str,
    recordings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(recordings)
    shutil.copy("a.wav", "deep/A.wav")
    assert main(words) == 1
    assert advice in capsys.readouterr().err
    assert not Path("portraits").exists()


def test_no_two_recordings_share_a_portrait() -> None:
    names = ["a.wav", "a.mp3", "a.wav.flac", "b.wav", "c/a.wav"]
    paths = portrait_paths([Path(name) for name in names], Path("out"))
    expected = ["a.wav.png", "a.mp3.png", "a.wav.flac.png", "b.png", "c/a.png"]
    assert [path.relative_to("out").as_posix() for path in paths] == expected
    paths = portrait_paths([Path("talk.wav"), Path("Talk.mp3")], Path("out"))
    assert [path.name for path in paths] == ["talk.wav.png", "Talk.mp3.png"]


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_report_is_read_again(ending: str, tmp_path: Path) -> None:
    outcomes = [
        Outcome("a.wav", "a.png", "made", 7, "male", "20-29", 1.5, "noisy"),
        Outcome(os.fsdecode(b"caf\xe9.wav"), "b.png", "there already"),
        Outcome("c.wav", "c.png", "failed", 8, "male", "20-29", error="no audio"),
    ]
    file = tmp_path / f"run{ending}"
    assert read_report(file) == {}
    file.touch()
    assert read_report(file) == {}
    there = [replace(outcome, status="there already", error=None) for outcome in outcomes]
    for mark in (b"", codecs.BOM_UTF8):
        file.write_bytes(mark + report(outcomes, ending))
        assert list(read_report(file).values()) == there


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_report_that_a_spreadsheet_saved_is_read(
    encoding: str, delimiter: str, quoting: int, tmp_path: Path
) -> None:
    portrait = tmp_path / "café.png"
    portrait.touch()
    warnings = "noisy; several, speakers"
    outcomes = [
        Outcome("café.wav", str(portrait), "made", 7, "male", "20-29", 1.5, warnings),
        Outcome("gone.wav", "gone.png", "made", 8, "female", "70+", 12.25),
        Outcome("naïve.wav", "naïve.png", "failed", error="no audio"),
    ]
    table = list(csv.reader(report(outcomes, ".csv").decode().splitlines()))
    if delimiter == ";":
        seconds = table[0].index("speech_seconds")
        table = [
            [*row[:seconds], row[seconds].replace(".", ","), *row[seconds + 1 :]] for row in table
        ]
    file = tmp_path / "run.csv"
    with file.open("w", encoding=encoding, newline="") as saved:
        csv.writer(saved, delimiter=delimiter, quoting=quoting).writerows(table)
    told = [replace(outcome, status="there already", error=None) for outcome in outcomes]
    assert list(read_report(file).values())[:2] == told[:2]


def test_a_report_in_an_encoding_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    portrait = tmp_path / "Привет.png"
    portrait.touch()
    outcome = Outcome("Привет.wav", str(portrait), "made", 7, "male", "20-29", 1.5)
    file = tmp_path / "run.csv"
    file.write_bytes(report([outcome], ".csv").decode().encode("cp1251"))
    with pytest.raises(OutputError, match="another program changed it"):
        read_report(file)


@pytest.mark.parametrize(
    "foreign",
    [
        f"{';'.join(field.name for field in fields(Outcome))}\na.wav;a.png;made;1,5E+9;;;;;\n",
        f"{';'.join(field.name for field in fields(Outcome))}\na.wav;a.png;made;7;;;5. Mai;;\n",
        "recording,nonsense\n1,2\n",
        f"recording\n{'a' * 200_000}\n",
        f"{','.join(field.name for field in fields(Outcome))}\na.wav,a.png,made,7,,,,,,more\n",
        "[" * 100_000,
        "{}",
        '{"a": 1}',
        "[1]",
        '[{"recording": 1, "portrait": "a.png"}]',
    ],
)
def test_what_is_no_report_is_not_written_over(
    foreign: str, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / f"run{'.json' if foreign[0] in '[{' else '.csv'}"
    file.write_text(foreign)
    assert main([str(recordings), "-o", str(tmp_path / "out"), "--report", str(file)]) == 1
    assert f"{file} is there and is no report" in capsys.readouterr().err
    assert file.read_text() == foreign
    assert not list(tmp_path.rglob("*.png"))


def test_a_report_keeps_what_it_knew(
    recordings: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> list[dict]:
        return list(csv.DictReader(table.read_text().splitlines()))

    (recordings / "broken.wav").unlink()
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "run.csv"
    more = ["--model", checkpoint, "--steps", "1", "-q", "--report", "run.csv"]
    assert main(["recordings", "-o", "out", *more]) == 0
    first = rows()
    table.write_bytes(codecs.BOM_UTF8 + table.read_bytes())
    assert main([str(recordings), "-o", str(tmp_path / "out"), *more]) == 0
    told = ("seed", "sex", "age", "speech_seconds")
    assert [[row[name] for name in told] for row in rows()] == [
        [row[name] for name in told] for row in first
    ]
    good = (recordings / "a.wav").read_bytes()
    (recordings / "a.wav").write_text("no audio")
    assert main(["recordings", "-o", "out", *more, "--overwrite"]) == 1
    redrawn = rows()
    assert redrawn[0]["status"] == "failed"
    assert redrawn[0]["error"]
    assert [redrawn[0][name] for name in told] == [first[0][name] for name in told]
    (recordings / "a.wav").write_bytes(good)
    assert main(["recordings", "-o", "out", *more]) == 0
    assert rows() == [row | {"status": "there already", "error": ""} for row in redrawn]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ended_run_leaves_its_report(
    number: signal.Signals,
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def settled(recording: Path, path: Path, _: object) -> Outcome:
        if recording.name == "broken.wav":
            signal.raise_signal(number)
        return Outcome(str(recording), str(path), "made", seed=1)

    before = {each: signal.signal(each, signal.SIG_DFL) for each in ENDING}
    # which is ignored where the tests run in the background of a shell
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("voice2face.commands.folder_drawing.settle", settled)
    table = tmp_path / "run.csv"
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint, "-q"]
    try:
        code = main([*arguments, "--report", str(table)])
    except SystemExit as ended:
        code = ended.code
    signal.signal(signal.SIGINT, interrupted)
    after = {each: signal.signal(each, handler) for each, handler in before.items()}
    assert code == 128 + number
    assert "nothing half-written was left" in capsys.readouterr().err
    assert set(after.values()) == {signal.SIG_DFL}
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (Path(row["recording"]).name, row["seed"]) == ("a.wav", "1")


def test_signals_that_follow_do_not_end_what_the_first_asks_for() -> None:
    before = {each: signal.signal(each, signal.SIG_DFL) for each in ENDING}
    done = []
    with pytest.raises(SystemExit) as ended, ending_as_interrupts():
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append("in order")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_as_interrupts():
        signal.raise_signal(signal.SIGHUP)
        done.append("not hung up on")
    for each, handler in before.items():
        signal.signal(each, handler)
    assert ended.value.code == 128 + signal.SIGHUP
    assert done == ["in order", "not hung up on"]


def test_a_run_that_is_killed_leaves_the_report_of_the_batches_before(
    recordings: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def settled(recording: Path, path: Path, _: object) -> Outcome:
        if table.exists():
            told.append(len(list(csv.DictReader(table.read_text().splitlines()))))
        return Outcome(str(recording), str(path), "made", seed=1)

    monkeypatch.setattr("voice2face.commands.folder_drawing.settle", settled)
    table = tmp_path / "run.csv"
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint, "-q"]
    arguments += ["--report", str(table), "--batch-size", "2", "--steps", "1"]
    assert main(arguments) == 0
    assert told == [2, 2, 2], "after the first batch, then every few seconds"
    table.unlink()
    told.clear()
    monkeypatch.setattr("voice2face.commands.folder_report.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("voice2face.commands.folder_report.LEAST_TIMES_WRITING", 0.0)
    assert main(arguments) == 0
    assert told == [2, 2, 4]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--model", "mistyped"], None),
        (["--device", "toaster"], None),
        (["--overwrite"], DeviceError("cpu ran out of memory")),
    ],
)
def test_a_run_that_made_nothing_leaves_an_earlier_report(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    more: list[str],
    fault: DeviceError | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (recordings / "broken.wav").unlink()
    table, out = tmp_path / "run.json", tmp_path / "out"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1", "-q"]
    arguments += ["--report", str(table)]
    assert main(arguments) == 0
    before = json.loads(table.read_text())
    if fault is None:
        (out / "a.png").unlink()
    else:
        monkeypatch.setattr(Voice2FacePipeline, "listen", Mock(side_effect=fault))
    assert main([*arguments, *more]) == 1
    after = json.loads(table.read_text())
    expected = before if fault is None else [row | {"status": "there already"} for row in before]
    assert after == expected


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_report_takes_any_file_name(ending: str) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    written = report([Outcome(name, "out.png", "made", seed=1)], ending)
    assert b"caf" in written
    if ending == ".json":
        assert json.loads(written)[0]["recording"] == name
    else:
        assert b"caf\xe9.wav" in written


def test_no_file_name_is_a_formula_to_a_spreadsheet(
    tone: np.ndarray, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1.wav", "@a.wav", "-deep/+1.wav"):
        path = Path("./" + name)
        path.parent.mkdir(exist_ok=True)
        sf.write(path, tone, 16_000)
    Path("=broken.wav").write_text("no audio")
    arguments = [".", "-o", ".", "--model", checkpoint, "--steps", "1", "--report", "run.csv", "-q"]

    def rows() -> list[dict[str, str]]:
        return list(csv.DictReader(Path("run.csv").read_text().splitlines()))

    for _ in range(2):
        assert main(arguments) == 1, "one recording is broken"
        cells = [cell for row in rows() for cell in row.values()]
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
        recordings = sorted(row["recording"] for row in rows())
        assert recordings == ["./-deep/+1.wav", "./=1+1.wav", "./=broken.wav", "./@a.wav"]
        assert sum(row["sex"] != "" for row in rows()) == 3, "told again from the earlier report"
    assert main([*arguments[:-2], "run.json", "-q"]) == 1
    named = sorted(row["recording"] for row in json.loads(Path("run.json").read_text()))
    assert named == ["-deep/+1.wav", "=1+1.wav", "=broken.wav", "@a.wav"]


def test_odd_names_end_no_run(
    recordings: Path, checkpoint: str, tmp_path: Path, tone: np.ndarray
) -> None:
    (recordings / "broken.wav").unlink()
    names = ["~nobody.wav", f"{'long' * 60}.wav"]
    for name in names:
        sf.write(recordings / name, tone, 16_000)
    out = tmp_path / "out"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1", "-q"]
    assert main(arguments) == 0
    assert {Path(name).with_suffix(".png").name for name in names} < set(made(out))


def test_portraits_that_cannot_be_written_end_no_run(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    tone: np.ndarray,
    capsys: pytest.CaptureFixture,
) -> None:
    (recordings / "broken.wav").unlink()
    for ending in ("wav", "flac"):  # so that their portraits end in .wav.png and .flac.png
        sf.write(recordings / f"{'x' * 250}.{ending}", tone, 16_000)
    out = tmp_path / "out"
    (out / "a.png").mkdir(parents=True)
    (out / "deep").mkdir()
    (out / "deep" / "b.png").touch()
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "3 made, 0 there already, 3 failed" in printed.out
    assert printed.err.count("name too long") == 2
    assert "a.png is a folder" in printed.err
    assert made(out) == ["deep/b.png", "deep/c.flac.png", "deep/c.wav.png"]
    with Image.open(out / "deep" / "b.png") as image:
        assert "voice2face:seed" in image.info


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_a_run(
    number: int,
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    write = Mock(side_effect=OSError(number, os.strerror(number)))
    monkeypatch.setattr(Path, "write_bytes", write)
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint]
    assert main([*arguments, "--steps", "1", "-q"]) == 1
    assert f"a.png cannot be written: {os.strerror(number)}" in capsys.readouterr().err
    write.assert_called_once()


def test_places_that_nobody_may_look_into_end_no_run(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    stat = os.stat

    def guarded(path: object, **more: object) -> os.stat_result:
        if "deep/" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", guarded)
    out = tmp_path / "out"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    assert main(arguments) == 1, "one recording is broken"
    printed = capsys.readouterr()
    assert "1 made, 0 there already, 4 failed" in printed.out
    assert printed.err.count("Permission denied") == 3, "each is told of"


def test_folders_that_cannot_be_read_are_told_of(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (recordings / "broken.wav").unlink()
    monkeypatch.setattr(os, "scandir", guarded)
    locked = recordings / "deep"
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint, "-q"]
    assert main([*arguments, "--steps", "1"]) == 1
    assert capsys.readouterr().err == f"voice2face: {locked} cannot be read: Permission denied\n"
    assert made(tmp_path / "out") == ["a.png"]
    locked = recordings
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"voice2face: {locked} cannot be read: Permission denied\n"


def test_links_are_followed_and_no_folder_is_entered_twice(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "recordings", tmp_path / "elsewhere"
    for name in ("recordings/deep/a.wav", "elsewhere/b.wav", "elsewhere/below/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, to in {
        "again": folder / "deep",  # which comes before it, but is a way to what is found anyway
        "deep/loop": folder,
        "linked": elsewhere,
        "linked-below": elsewhere / "below",
        "missing.wav": tmp_path / "gone.wav",
        ".hidden": elsewhere,
    }.items():
        (folder / link).symlink_to(to)
    (elsewhere / "back").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.wav")
    found = [path.relative_to(folder).as_posix() for path in find_recordings(folder).recordings]
    assert found == ["deep/a.wav", "linked/b.wav", "linked/below/c.wav", "missing.wav"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
def test_complaints_that_cannot_be_printed_end_no_run(
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("voice2face.recording_folders.reads_media", lambda: False)
    (recordings / "unread.m4a").touch()
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    with Path("/dev/full").open("w", buffering=1) as full, redirect_stderr(full):
        assert main(arguments) == 1, "one recording is broken"
    assert made(out) == ["a.png", "deep/b.png", "deep/c.flac.png", "deep/c.wav.png"]
    assert "4 made, 0 there already, 1 failed" in capsys.readouterr().out


def test_a_run_shows_bars_on_terminals_alone(
    recordings: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (recordings / "broken.wav").unlink()
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint]
    assert main([*arguments, "--steps", "1"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("again", [[], ["--overwrite"]])
def test_what_is_no_portrait_is_neither_replaced_nor_taken_for_one(
    again: list[str],
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (recordings / "broken.wav").unlink()
    Image.new("RGB", (50, 50), "red").save(recordings / "a.png")
    before = (recordings / "a.png").read_bytes()
    arguments = [str(recordings), "-o", str(recordings), "--model", checkpoint, "--steps", "1"]
    assert main([*arguments, *again, "--report", str(tmp_path / "run.json")]) == 1
    printed = capsys.readouterr()
    assert "3 made, 0 there already, 1 failed" in printed.out
    assert "a.png is there and is no portrait of voice2face" in printed.err
    assert (recordings / "a.png").read_bytes() == before
    [row] = [row for row in json.loads((tmp_path / "run.json").read_text()) if row["error"]]
    assert row["recording"] == str(recordings / "a.wav")
    assert row["status"] == "failed"


def test_a_report_keeps_portraits_whose_recordings_are_out_of_sight(
    recordings: Path, checkpoint: str, tmp_path: Path
) -> None:
    (recordings / "broken.wav").unlink()
    file = tmp_path / "run.json"
    arguments = [str(recordings), "-o", str(tmp_path / "out"), "--model", checkpoint]
    arguments += ["--steps", "1", "--report", str(file)]
    assert main(arguments) == 0
    before = {row["recording"]: row for row in json.loads(file.read_text())}
    (recordings / "deep").rename(tmp_path / "away")
    assert main(arguments) == 0
    told = {row["recording"]: row for row in json.loads(file.read_text())}
    there = {name: row | {"status": "there already"} for name, row in before.items()}
    assert told == there
    (tmp_path / "out" / "deep" / "b.png").unlink()
    assert main(arguments) == 0
    left = {row["portrait"] for row in json.loads(file.read_text())}
    assert left == {row["portrait"] for row in told.values()} - {
        str(tmp_path / "out" / "deep" / "b.png")
    }


def test_a_sheet_leaves_damaged_portraits_out(
    recordings: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (recordings / "broken.wav").unlink()
    out, sheet = tmp_path / "out", tmp_path / "all.png"
    arguments = [str(recordings), "-o", str(out), "--model", checkpoint, "--steps", "1"]
    assert main(arguments) == 0
    data = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(data[: len(data) // 2])
    for name in ("deep/b.png", "deep/c.flac.png", "deep/c.wav.png"):
        (out / name).unlink()
    assert main([*arguments, "--contact-sheet", str(sheet)]) == 0
    printed = capsys.readouterr()
    assert "3 made, 1 there already, 0 failed" in printed.out
    assert "left out of the contact sheet: " in printed.err
    assert "a.png cannot be read as a picture" in printed.err
    with Image.open(sheet) as image:
        assert image.size == (3 * 128, 128)


def test_counts_are_printed_where_there_is_no_sheet(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, sheet = tmp_path / "bad", tmp_path / "all.png"
    folder.mkdir()
    (folder / "broken.wav").write_text("this is no audio")
    arguments = [str(folder), "-o", str(tmp_path / "out"), "--model", checkpoint]
    assert main([*arguments, "--contact-sheet", str(sheet)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "0 made, 0 there already, 1 failed\n"
    assert "there is no portrait, so there is no contact sheet" in printed.err
    assert not sheet.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num-images", "2"], "one portrait a recording"),
        (["--report", "run.txt"], "written as .csv or .json"),
        (["--report", "no/run.csv"], "no is not a folder"),
        (["--contact-sheet", "all.gif"], "saved as .png"),
        (["--contact-sheet", "no/all.png"], "no is not a folder"),
        (["--report", "folder.csv"], "folder.csv is a folder"),
        (["--contact-sheet", "folder.png"], "folder.png is a folder"),
        (["--report", f"{'long' * 80}.csv"], "name too long"),
        (["--report", "locked/run.csv"], "locked cannot be written: Permission denied"),
        (["-o", "locked"], "locked cannot be written: Permission denied"),
        (["-o", "out", "--contact-sheet", "recordings/../out/a.png"], "the place of a portrait"),
        (["-o", "out", "--contact-sheet", "out/deep/B.png"], "the place of a portrait"),
        (["-o", "file/portraits"], "cannot be made"),
        (["-o", "faces.png"], "go to a folder: -o faces\n"),
    ],
)
def test_what_does_not_go_with_a_folder(
    more: list[str],
    message: str,
    recordings: Path,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    opened = os.open

    def guarded(path: object, *more: object) -> int:
        if Path(os.fspath(path)).parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", guarded)
    (tmp_path / "file").write_text("")
    for folder in ("folder.csv", "folder.png", "locked"):
        (tmp_path / folder).mkdir()
    assert main([str(recordings), "--model", checkpoint, *more]) == 1
    assert message in capsys.readouterr().err
    portraits = [path for path in tmp_path.rglob("*.png") if path.is_file()]
    assert not portraits, "it is said before anything is drawn"


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_may_be_called_like_a_picture(
    ending: str, recordings: Path, checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "faces.png"
    if not ending:
        out.mkdir()
    arguments = [str(recordings), "-o", f"{out}{ending}", "--model", checkpoint, "--steps", "1"]
    assert main([*arguments, "-q"]) == 1, "one recording is broken"
    assert len(made(out)) == 4


def test_an_empty_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no recordings" in capsys.readouterr().err


def test_recordings_that_are_not_read_are_told_of(
    recording: str,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voice2face.recording_folders.reads_media", lambda: False)
    folder, told = tmp_path / "spoken", "2 of formats that are not read (.m4a, .webm); for M4A and"
    (folder / "below").mkdir(parents=True)
    for name in ("a.M4A", "below/b.webm", ".hidden.m4a", "notes.txt"):
        (folder / name).touch()
    assert main([str(folder)]) == 1
    assert told in capsys.readouterr().err
    shutil.copy(recording, folder)
    drawn, table = tmp_path / "drawn", tmp_path / "run.csv"
    arguments = ["--model", checkpoint, "-o", str(drawn), "--steps", "1", "--report", str(table)]
    for run in ("1 made, 0 there already", "0 made, 1 there already"):
        assert main([str(folder), *arguments]) == 0
        printed = capsys.readouterr()
        assert told in printed.err
        assert f"{run}, 0 failed, 2 left out" in printed.out
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert [Path(row["recording"]).name for row in rows] == ["a.M4A", "b.webm", "talk.wav"]
        assert [row["status"] for row in rows[:2]] == ["left out", "left out"]
        assert rows[0]["error"].startswith(".M4A is a format that is not read; for M4A and the")
        assert "pip install 'voice2face[media]'" in rows[0]["error"]
        assert rows[0]["portrait"] == ""
    assert main([str(folder), *arguments, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(list(drawn.iterdir())) == 1


FORMATS_BY_ENDING = {
    ".wav": "WAV",
    ".w64": "W64",
    ".rf64": "RF64",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".caf": "CAF",
    ".au": "AU",
    ".snd": "AU",
    ".sph": "NIST",
}


def test_what_a_folder_is_searched_for_is_what_is_decoded(tmp_path: Path, tone: np.ndarray) -> None:
    for ending, kind in FORMATS_BY_ENDING.items():
        sf.write(tmp_path / f"talk{ending}", tone, 16_000, format=kind)
    found = find_recordings(tmp_path)
    assert not found.unread
    assert {path.suffix for path in found.recordings} == FORMATS_BY_ENDING.keys() == AUDIO_ENDINGS
    for path in found.recordings:
        assert len(load_audio(path)) >= len(tone)
    assert not {f".{kind.lower()}" for kind in sf.available_formats()} & MEDIA_ENDINGS
