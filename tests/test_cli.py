from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.__main__ import main as command_main
from voice2face.audio import SAMPLE_RATE
from voice2face.cli import command_meant, main
from voice2face.listening import MOST_WINDOWS_AT_ONCE, speech_of
from voice2face.replay import read_portrait


def test_command_writes_a_picture_and_says_where(
    recording: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    face = tmp_path / "face.png"
    arguments = [recording, "-o", str(face), "--model", checkpoint, "--device", "cpu"]
    wanted = ["--seed", "7", "--steps", "2", "--guidance", "3", "--preset", "best"]
    assert main([*arguments, *wanted]) == 0
    with Image.open(face) as image:
        assert image.size == (48, 48)
        assert image.info["voice2face:sampler"] == "ddim"
        assert image.info["voice2face:guidance_scale"] == "3.0"
    printed = capsys.readouterr().out
    assert f"{face}  seed 7" in printed
    assert "s of speech, sounds" in printed


def test_several_pictures_quietly(
    recording: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    face = tmp_path / "face.jpg"
    arguments = [recording, "-o", str(face), "--model", checkpoint, "--steps", "1", "-q"]
    assert main([*arguments, "--num-images", "2"]) == 0
    assert (tmp_path / "face-1.jpg").is_file()
    assert (tmp_path / "face-2.jpg").is_file()
    assert capsys.readouterr() == ("", "")


class CtrlC:
    """Is pressed while the command line is imported."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "voice2face.cli":
            raise KeyboardInterrupt


def test_ctrl_c_while_modules_are_imported_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "voice2face.cli")
    monkeypatch.setattr(sys, "meta_path", [CtrlC(), *sys.meta_path])
    assert command_main() == 130
    said = capsys.readouterr()
    assert said == ("", "voice2face: interrupted, nothing half-written was left\n")
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    scripts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"voice2face": f"{command_main.__module__}:{command_main.__name__}"}


def test_names_that_cannot_be_printed_end_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "voice2face", "inspect", "\u5f35.png", "\u674e.png"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "\\u5f35.png:\n\\u674e.png:\n"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cannot be read") == 2


def test_picture_is_named_after_the_recording(
    recording: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main([recording, "--model", checkpoint, "--steps", "1", "-q"]) == 0
    assert [path.name for path in elsewhere.iterdir()] == ["talk.png"]


def test_a_folder_that_is_there_takes_the_picture(
    recording: str, checkpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "faces").mkdir()
    output = ["-o", str(tmp_path / "faces")]
    assert main([recording, *output, "--model", checkpoint, "--steps", "1", "-q"]) == 0
    assert [path.name for path in (tmp_path / "faces").iterdir()] == ["talk.png"]


@pytest.mark.parametrize("pictures", ["1", "2"])
def test_a_name_that_nobody_gave_replaces_portraits_alone(
    pictures: str,
    recording: str,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    arguments = [recording, "-o", str(faces), "--model", checkpoint, "--steps", "1", "-q"]
    arguments += ["--num-images", pictures]
    assert main([*arguments, "--seed", "1"]) == 0
    *_, last = sorted(faces.iterdir())
    before = last.read_bytes()
    assert main([*arguments, "--seed", "2"]) == 0
    assert last.read_bytes() != before
    Image.new("RGB", (8, 8)).save(last)
    holiday = last.read_bytes()
    assert main(arguments) == 1
    assert f"{last} is there and is no portrait of voice2face" in capsys.readouterr().err
    assert last.read_bytes() == holiday
    assert main([*arguments[:2], str(faces / "talk.png"), *arguments[3:]]) == 0, "it was named"
    assert last.read_bytes() != holiday


def test_standard_input_is_a_recording(recording: str, checkpoint: str, tmp_path: Path) -> None:
    face = str(tmp_path / "face.png")
    for arguments in (["-", "-o", face, "--steps", "1"], ["replay", face, "--audio", "-"]):
        done = subprocess.run(
            [sys.executable, "-m", "voice2face", *arguments, "--model", checkpoint],
            input=Path(recording).read_bytes(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_standard_output_takes_a_picture_and_nothing_else(
    quiet: list[str],
    recording: str,
    checkpoint: str,
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    arguments = ["--model", checkpoint, "--steps", "1", "--seed", "7", *quiet]
    assert main([recording, "-o", "-", *arguments]) == 0
    picture, said = capsysbinary.readouterr()
    assert read_portrait(picture).seed == 7
    assert (b"sounds" in said and b"-  seed 7" in said) if not quiet else said == b""
    assert sorted(tmp_path.iterdir()) == before
    assert main([recording, "-o", "face.png", *arguments, "--report", "run.json"]) == 0
    assert Path("face.png").read_bytes() == picture


def test_a_report_tells_of_a_single_recording(
    recording: str, checkpoint: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture
) -> None:
    face, file = tmp_path / "face.png", tmp_path / "run.json"
    arguments = ["--model", checkpoint, "--steps", "1", "--report", str(file)]
    drawn = [recording, "-o", str(face), "--num-images", "2", "--seed", "7"]
    assert main([*drawn, *arguments]) == 0
    first, second = json.loads(file.read_text())
    assert (first["status"], first["seed"], second["seed"]) == ("made", 7, 8)
    assert first["recording"] == recording
    assert second["portrait"] == str(tmp_path / "face-2.png")
    assert f"sounds {first['sex']}" in capsysbinary.readouterr().out.decode()
    assert first["age"] is not None
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    assert main([str(bad), "-o", str(face), *arguments]) == 1
    failed, *others = json.loads(file.read_text())
    assert failed["status"] == "failed"
    assert failed["error"] in capsysbinary.readouterr().err.decode()
    assert others == [one | {"status": "there already"} for one in (first, second)]
    assert main([recording, "-o", "-", *arguments]) == 0
    made, *others = json.loads(file.read_text())
    assert (made["status"], made["portrait"], len(others)) == ("made", None, 2)
    file.write_text("mine")
    assert main([*drawn, *arguments]) == 1
    assert "is no report of this command" in capsysbinary.readouterr().err.decode()
    assert file.read_text() == "mine"


def test_what_follows_two_dashes_is_a_recording(
    recording: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-r1.wav", "-q", "--seed"):
        shutil.copy(recording, name)
    arguments = ["--model", checkpoint, "--steps", "1", "-q"]
    assert main([*arguments, "--", "-r1.wav"]) == 0
    assert Path("-r1.png").is_file()
    assert main(["talk.wav", *arguments, "--", "-r1.wav", "-q", "--seed"]) == 0
    made = sorted(path.name for path in Path("portraits").iterdir())
    assert made == ["--seed.png", "-q.png", "-r1.png", "talk.png"]


def test_a_long_recording_has_a_bar_while_it_is_heard(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    told: list[tuple[int, int]] = []
    speech = speech_of(np.tile(tone, 40), SAMPLE_RATE)
    voice = tiny_pipeline.listen(speech, on_windows=lambda *counts: told.append(counts))
    windows = voice.evidence.windows
    assert windows > MOST_WINDOWS_AT_ONCE
    assert told[0] == (MOST_WINDOWS_AT_ONCE, windows)
    assert told[-1] == (windows, windows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-"], "standard input has no name"),
        (["no.wav", "-o", "face.png"], "no.wav does not exist"),
        (["talk.wav", "-o", "no/face.png"], "no is not a folder"),
        (["talk.wav", "-o", "face.gif"], "saved as .png"),
        (["talk.wav", "-o", "outdir/"], "outdir/ is not a folder; make it first"),
        (["~nobody.wav"], "~nobody.wav does not exist"),
        (["a" * 300], ": File name too long"),
        (["talk.wav", "-o", f"{'a' * 300}/face.png"], "cannot be written: File name too long"),
        (["talk.wav", "--model", "a" * 300], "neither a folder"),
        (["talk.wav", "--batch-size", "16"], "--contact-sheet are of folders and of several"),
        (["talk.wav", "--report", "run.txt"], "reports are written as .csv or .json"),
        (["talk.wav", "-o", "face.png", "--report", "face.png/r.csv"], "face.png is not a folder"),
        (["talk.wav", "-o", "-", "--num-images", "2"], "standard output takes one portrait"),
        (["talk.wav", "talk.wav", "-o", "-"], "standard output takes one portrait"),
        (["talk.wav", "--model", "no/such/model"], "neither a folder"),
        (["talk.wav", "--device", "toaster"], "is no device"),
    ],
)
def test_errors_take_one_line_and_exit_code_1(
    arguments: list[str],
    message: str,
    recording: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", checkpoint]
    assert main([*arguments, "-q"]) == 1
    printed, complaint = capsys.readouterr()
    assert printed == ""
    assert complaint.startswith("voice2face: ")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("place", ["portraits/", "portraits"])
def test_a_missing_recording_is_named_before_the_place_of_its_portrait(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recordigs/", "-o", place]) == 1
    assert capsys.readouterr().err == "voice2face: recordigs does not exist; check the path\n"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("inpect", "inspect"), ("verfy", "verify"), ("model", "models"), ("ap", "app")],
)
def test_a_misspelt_command_is_guessed(
    word: str,
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([word, "--json", "face.png"])
    assert ended.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err
    Path(word).touch()
    for other in (word, f"{meant}.wav", f"./{word}s", "talk", "--model"):
        assert command_meant(other) is None, "a recording is meant, missing or not, or an option"


def test_a_device_that_is_missing_is_told_of_in_the_commands_words(
    recording: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([recording, "--model", checkpoint, "--device", "cuda"]) == 1
    assert "--device cpu" in capsys.readouterr().err


def test_interruption_has_its_own_exit_code(
    recording: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Voice2FacePipeline, "draw", interrupt)
    assert main([recording, "--model", checkpoint, "-q"]) == 130


def run_module(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "voice2face", *arguments], capture_output=True, text=True
    )


def test_help_teaches_and_wrong_usage_exits_with_2() -> None:
    helped = run_module("-h")
    assert helped.returncode == 0
    assert "examples:" in helped.stdout
    assert "--num-images" in helped.stdout
    unnamed = run_module("")
    assert unnamed.returncode == 2
    assert "name a recording, or . for this folder" in unnamed.stderr


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--steps", "0", "a whole number from 1 to 1000, not '0'"),
        ("--steps", "many", "a whole number from 1 to 1000, not 'many'"),
        ("--guidance", "-1", "a number from 0 to 20, not '-1'"),
        ("--guidance", "nan", "a number from 0 to 20, not 'nan'"),
        ("--variety", "7", "a number from 0 to 1, not '7'"),
        ("--num-images", "1025", "a whole number from 1 to 1024, not '1025'"),
        ("--batch-size", "0", "a whole number from 1 to 1024, not '0'"),
        ("--seed", "-1", f"a whole number from 0 to {2**63 - 1}, not '-1'"),
    ],
)
def test_numbers_out_of_range_are_wrong_usage(
    option: str, value: str, wanted: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["no.wav", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: give {wanted}" in capsys.readouterr().err


def test_a_seed_that_leaves_none_for_later_pictures_is_wrong_usage(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["no.wav", f"--seed={2**63 - 3}", "--num-images=4"])
    assert ended.value.code == 2
    assert f"argument --seed: give a whole number from 0 to {2**63 - 4}, not" in (
        capsys.readouterr().err
    )
    assert main(["no.wav", f"--seed={2**63 - 4}", "--num-images=4"]) == 1
    assert "no.wav does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["models", "-h"])
def test_a_reader_that_has_seen_enough_hears_no_complaint(command: str) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "voice2face", command],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=buffered,
            text=True,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_printed_takes_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "voice2face", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "voice2face: [Errno 28] No space left on device\n"


def run_in_shell(redirections: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "voice2face", *arguments]
    script = f"exec {shlex.join(command)} {redirections}"
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_portrait_is_made_whatever_becomes_of_what_is_printed(
    closed: str, recording: str, checkpoint: str, tmp_path: Path
) -> None:
    face = tmp_path / "face.png"
    arguments = [recording, "-o", str(face), "--model", checkpoint, "--steps", "1"]
    done = run_in_shell(closed, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert face.is_file()
    assert main(["inspect", str(face)]) == 0, "nothing was printed into it"


def test_standard_input_that_is_closed_is_said_to_be(tmp_path: Path) -> None:
    done = run_in_shell("<&-", "-", "-o", str(tmp_path / "face.png"))
    assert done.returncode == 1
    assert done.stderr.startswith("voice2face: standard input is closed")


def test_bars_are_for_terminals(
    recording: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["-o", str(tmp_path / "face.png"), "--model", checkpoint, "--steps", "1"]
    assert main([recording, *more]) == 0
    assert capsys.readouterr().err == ""


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, voice2face; print([m for m in ('torch','diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_are_there_without_an_import_of_their_own() -> None:
    code = (
        "import sys, voice2face as v; print('voice2face.errors' in sys.modules, "
        "v.errors.AudioError.__name__, v.settings.DEFAULT_PRESET, "
        "hasattr(v, 'error'), hasattr(v, '__main__'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "AudioError", "fast", "False", "False"]


def test_public_names_all_exist() -> None:
    import voice2face

    for name in voice2face.__all__:
        assert getattr(voice2face, name) is not None
    assert dir(voice2face) == sorted(voice2face.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = voice2face.nothing


def test_models_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "scldm-192, default" in printed
    assert "M parameters" in printed
    assert "in the package" in printed


def test_a_packaged_checkpoint_that_was_deleted_is_listed_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("voice2face.checkpoints.resolving.PACKAGED_WEIGHTS", tmp_path)
    assert main(["models"]) == 0
    assert "missing; reinstall voice2face" in capsys.readouterr().out


def test_download_copies_and_verify_reads_every_file(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    assert main(["download", checkpoint, "--to", str(copy)]) == 0
    assert "every file verified" in capsys.readouterr().out
    assert main(["verify-weights", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "denoiser/diffusion_pytorch_model.safetensors" in printed
    assert "11 files are as they were written" in printed
    weights = copy / "denoiser" / "diffusion_pytorch_model.safetensors"
    before = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert main(["verify-weights", str(copy)]) == 1, "size and time are not believed"
    assert "is damaged" in capsys.readouterr().err


def test_download_does_not_overwrite_other_files(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["download", checkpoint, "--to", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
