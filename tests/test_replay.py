from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import tracemalloc
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from voice2face import Voice2FacePipeline, __version__, load_audio
from voice2face.cli import main
from voice2face.errors import PictureError, SettingError
from voice2face.picture_files import LARGEST_PICTURE_BYTES
from voice2face.replay import read_portrait, replay
from voice2face.saved_portraits import DETAIL, Provenance, read_making, settings_of
from voice2face.settings import UNDISTILLED, Settings


@pytest.fixture
def picture(recording: str, checkpoint: str, tmp_path: Path) -> Path:
    face = tmp_path / "face.png"
    arguments = [str(recording), "-o", str(face), "--model", checkpoint, "--steps", "3", "-q"]
    assert main([*arguments, "--guidance", "3", "--seed", "9", "--variety", "0.4"]) == 0
    return face


def test_a_portrait_says_how_it_was_made(
    picture: Path, recording: str, checkpoint: str, capsys: pytest.CaptureFixture
) -> None:
    saved = read_portrait(picture)
    assert (saved.seed, saved.settings.num_inference_steps) == (9, 3)
    assert (saved.settings.guidance_scale, saved.settings.eta) == (3.0, 0.0)
    assert saved.settings.variety == 0.4
    assert saved.settings.sampler == UNDISTILLED.sampler
    assert saved.settings.guidance_every == UNDISTILLED.guidance_every
    assert saved.settings.checkpoint == "tiny"
    samples = load_audio(recording).astype("<f4").tobytes()
    index = (Path(checkpoint) / "model_index.json").read_bytes()
    assert saved.provenance.audio_sha256 == hashlib.sha256(samples).hexdigest()
    assert saved.provenance.checkpoint_sha256 == hashlib.sha256(index).hexdigest()
    assert saved.provenance.version == __version__
    assert main(["inspect", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "seed: 9" in printed
    assert "synthetic" in printed
    assert main(["inspect", str(picture), str(picture)]) == 0
    assert capsys.readouterr().out == 2 * f"{picture}:\n{printed}"


def test_what_a_large_file_says_of_itself_is_read_and_no_more(picture: Path) -> None:
    made, length = read_making(picture), picture.stat().st_size
    os.truncate(picture, LARGEST_PICTURE_BYTES)
    tracemalloc.start()
    try:
        assert read_making(picture) == made
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    os.truncate(picture, LARGEST_PICTURE_BYTES + 1)
    with pytest.raises(PictureError, match=r"face\.png is over 64 MiB: no portrait"):
        read_making(picture)
    os.truncate(picture, length)
    pipe = picture.with_name("pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(picture.read_bytes()))
    writer.start()
    assert read_making(pipe) == made
    writer.join()


def test_programs_read_a_line_of_json_a_picture(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    missing = tmp_path / "missing.png"
    assert main(["inspect", "--json", str(picture), str(missing)]) == 1
    printed = capsys.readouterr()
    told, error = map(json.loads, printed.out.splitlines())
    assert (told["picture"], told["synthetic"], told["seed"]) == (str(picture), True, 9)
    assert told["guidance_scale"] == 3.0
    assert told["version"] == __version__
    assert error.keys() == {"picture", "error"}
    assert f"voice2face: {error['error']}" in printed.err


def test_a_missing_folder_is_refused_before_it_is_made_again(
    picture: Path, recording: str, checkpoint: str, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["replay", str(picture), "--audio", recording, "--model", checkpoint]
    assert main([*arguments, "-o", str(picture / "no" / "new.png")]) == 1
    assert "is not a folder; make it first" in capsys.readouterr().err


def test_it_can_be_made_again(
    picture: Path,
    recording: str,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    again = tmp_path / "again.png"
    arguments = ["replay", str(picture), "--audio", str(recording), "--model", checkpoint]
    assert main([*arguments, "-o", str(again)]) == 0
    assert "every pixel is the same" in capsys.readouterr().out
    assert again.read_bytes() == picture.read_bytes()


def test_replay_says_what_reads_the_portrait(
    picture: Path, recording: str, tiny_pipeline: Voice2FacePipeline
) -> None:
    for given in (picture, str(picture), picture.read_bytes(), {}, read_making(picture), None):
        with pytest.raises(SettingError, match=r"replay\(read_portrait\(picture\), audio, pipe\)"):
            replay(given, recording, tiny_pipeline)


def test_where_it_cannot_be_saved_is_told_before_it_is_made_again(
    picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["replay", str(picture), "--audio", "missing.wav", "--model", checkpoint]
    for name, complaint in (("face.gif", "are saved as"), ("no/face.png", "is not a folder")):
        assert main([*arguments, "-o", str(tmp_path / name)]) == 1
        assert complaint in capsys.readouterr().err


def test_what_differs_is_said(
    picture: Path, checkpoint: str, tone: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.wav"
    sf.write(other, 0.5 * tone[::-1], 16_000)
    arguments = ["replay", str(picture), "--audio", str(other), "--model", checkpoint]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "the recording is another one" in printed
    assert "pixels differ" in printed

    pipe = Voice2FacePipeline.from_pretrained(checkpoint, device="cpu")
    saved = read_portrait(picture)
    older = replace(saved, provenance=replace(saved.provenance, version="0.0.1"))
    changed = replace(older, seed=10)
    differences = replay(changed, other, pipe).differences
    assert any("voice2face was 0.0.1" in line for line in differences)
    differences = replay(saved, other, pipe.half()).differences
    assert any("on cpu in float32, now on cpu in float16" in line for line in differences)
    pipe.output_size = 40
    differences = replay(saved, other, pipe).differences
    assert any("was 48x48 pixels, now it is 40x40" in line for line in differences)


def test_each_difference_is_said_where_pixels_differ(
    tiny_pipeline: Voice2FacePipeline, recording: str
) -> None:
    portrait = tiny_pipeline(recording, seed=3, num_inference_steps=1)[0]
    saved = read_portrait(io.BytesIO(portrait.png()))
    elsewhere = Provenance(saved.provenance.audio_sha256, 64 * "a", "cuda", "float32", "0.0.1")
    before = replace(saved, provenance=elsewhere)
    assert replay(before, recording, tiny_pipeline).differences == (), "every pixel is the same"
    lighter, darker = saved.pixels.copy(), saved.pixels.copy()
    lighter[:5] = np.minimum(lighter[:5], 252) + 3
    darker[:5] = np.maximum(darker[:5], 3) - 3
    for given, words in (
        (lighter, "pixels differ by up to 3 of 255 levels"),
        (darker, "pixels differ by up to 3 of 255 levels"),
        (saved.pixels[:40], "the picture was 48x40 pixels, now it is 48x48"),
    ):
        assert replay(replace(before, pixels=given), recording, tiny_pipeline).differences == (
            "the checkpoint was tiny (aaaaaaaaaaaa), now it is tiny (never saved)",
            "it was drawn on cuda in float32, now on cpu in float32",
            f"voice2face was 0.0.1, now it is {__version__}",
            words,
        )
    oldest = replace(saved.provenance, device=None, dtype=None)
    (words,) = replay(
        replace(saved, pixels=saved.pixels[:, :40], provenance=oldest), recording, tiny_pipeline
    ).differences
    assert words == "the picture was 40x48 pixels, now it is 48x48"


def test_what_the_checkpoint_cannot_draw_any_more_is_said(
    picture: Path, recording: str, checkpoint: str
) -> None:
    saved = read_portrait(picture)
    distilled = replace(saved.settings, checkpoint="older", sampler="distilled")
    before = replace(saved.provenance, version="0.20.0")
    pipe = Voice2FacePipeline.from_pretrained(checkpoint, device="cpu")
    with pytest.raises(PictureError, match=r"tiny of voice2face .* as older of 0.20.0 did"):
        replay(replace(saved, settings=distilled, provenance=before), recording, pipe)


def test_only_pngs_say_how_they_were_made(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(picture) as image:
        image.save(tmp_path / "face.jpg")
    assert main(["inspect", str(tmp_path / "face.jpg")]) == 1
    assert "it is no PNG that Portrait.save wrote" in capsys.readouterr().err


def test_portraits_from_before_there_was_variety_had_all_of_it(
    picture: Path, tmp_path: Path
) -> None:
    older = PngInfo()
    later = [f"{DETAIL}{name}" for name in ("variety", "checkpoint_sha256", "device", "dtype")]
    with Image.open(picture) as image:
        for name, value in image.info.items():
            if str(name).startswith(DETAIL) and name not in later:
                older.add_text(name, value)
        image.save(tmp_path / "older.png", pnginfo=older)
    saved = read_portrait(tmp_path / "older.png")
    assert saved.settings.variety == 1.0
    told = saved.provenance
    assert (told.checkpoint_sha256, told.device, told.dtype) == (None, None, None)


def test_settings_are_turned_to_text_and_back() -> None:
    drawn_by = Settings(5, 1.5, 0.25, "mine", False, "unipc", 2, 0.5)
    written = {name: str(value) for name, value in asdict(drawn_by).items()}
    assert settings_of(written | {"seed": "7"}) == drawn_by
    assert drawn_by.as_arguments() | {"checkpoint": "mine"} == asdict(drawn_by)
    first = ("num_inference_steps", "guidance_scale", "eta", "checkpoint", "watermark")
    oldest = settings_of({name: written[name] for name in first})
    assert oldest == Settings(5, 1.5, 0.25, "mine", watermark=False)
    for name in first:
        with pytest.raises(KeyError, match=name):
            settings_of({other: text for other, text in written.items() if other != name})
    with pytest.raises(ValueError, match="some"):
        settings_of(written | {"variety": "some"})


def test_a_checkpoint_is_never_fetched_because_a_picture_names_it(
    picture: Path, recording: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["replay", str(picture), "--audio", str(recording)]) == 1
    assert "say where it is: --model" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["\x1b[2J", "scldm-192\nseed: 999"])
def test_what_would_move_the_terminal_is_not_printed(
    written: str, picture: Path, capsys: pytest.CaptureFixture
) -> None:
    with Image.open(picture) as image:
        info = PngInfo()
        for name, value in image.info.items():
            if str(name).startswith(DETAIL):
                info.add_text(name, written if name.endswith("checkpoint") else value)
        image.save(picture, pnginfo=info)
    assert main(["inspect", str(picture)]) == 1
    printed = capsys.readouterr()
    assert "no plain text" in printed.err
    assert written not in printed.out + printed.err


def test_pictures_that_pillow_fails_on_are_refused(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("decoding of color planes failed")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(PictureError, match="color planes"):
        read_portrait(picture)


@pytest.mark.parametrize("content", ["missing", "text", "plain", "odd"])
def test_other_pictures_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    if content == "text":
        path.write_text("no picture")
    elif content == "plain":
        Image.new("RGB", (8, 8)).save(path)
    elif content == "odd":
        info = PngInfo()
        info.add_text("voice2face:seed", "seven")
        Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(PictureError, match=r"cannot be read|how it was made"):
        read_portrait(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance_scale", np.float32(1.7)),
        ("guidance_scale", Fraction(3, 2)),
        ("variety", np.float16(0.3)),
        ("num_inference_steps", np.uint8(3)),
        ("guidance_every", np.int64(2)),
        ("eta", Fraction(1, 3)),
    ],
)
def test_numbers_of_any_kind_are_written_as_they_are_used(
    name: str, value: Any, tiny_pipeline: Voice2FacePipeline, recording: str
) -> None:
    sampler = "ddim" if name == "eta" else "unipc"
    settings = {"seed": 3, "num_inference_steps": 2, "sampler": sampler, name: value}
    portrait = tiny_pipeline(recording, **settings)[0]
    assert type(getattr(portrait.settings, name)) in (int, float)
    saved = read_portrait(io.BytesIO(portrait.png()))
    assert saved.settings == portrait.settings
    assert replay(saved, recording, tiny_pipeline).differences == ()


def test_a_portrait_kept_as_bytes_is_read(
    tiny_pipeline: Voice2FacePipeline, recording: str
) -> None:
    portrait = tiny_pipeline(recording, seed=3, num_inference_steps=2)[0]
    png = portrait.png()
    for kept in (png, bytearray(png), memoryview(png), io.BytesIO(png)):
        saved = read_portrait(kept)
        assert (saved.seed, saved.settings) == (3, portrait.settings)
        assert saved.provenance == portrait.provenance
        assert np.array_equal(saved.pixels, np.asarray(portrait.image))
    closed, text = io.BytesIO(png), io.StringIO("no picture")
    closed.close()
    for other in (png[:-100], b"", closed, text, io.BytesIO(b"x"), None, 3):
        with pytest.raises(PictureError, match=r"cannot be read as a picture"):
            read_portrait(other)


def test_pictures_that_are_too_large_are_not_read_to_their_end(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice2face.picture_files.LARGEST_PICTURE_BYTES", 100)
    for given in (picture, picture.read_bytes(), picture.open("rb")):
        with pytest.raises(PictureError, match="no portrait"):
            read_portrait(given)


def test_a_portrait_is_drawn_again_by_its_settings(
    tiny_pipeline: Voice2FacePipeline, recording: str
) -> None:
    settings = {"sampler": "ddim", "eta": 0.3, "variety": 0.5, "watermark": False}
    portrait = tiny_pipeline(recording, seed=3, num_inference_steps=2, **settings)[0]
    arguments = portrait.settings.as_arguments()
    voice = tiny_pipeline.listen(recording)
    for again in (
        tiny_pipeline(recording, seed=portrait.seed, **arguments)[0],
        tiny_pipeline.draw([voice], [portrait.seed], **arguments)[0],
        next(tiny_pipeline.map([recording], seed=[portrait.seed], progress=False, **arguments)),
    ):
        assert again.png() == portrait.png()


def test_the_packaged_checkpoint_replays(
    pipeline: Voice2FacePipeline, female_speech: Path, tmp_path: Path
) -> None:
    settings = {"num_inference_steps": 4, "guidance_every": 3}
    portrait = pipeline(female_speech, seed=3, **settings)[0]
    saved = read_portrait(portrait.save(tmp_path / "face.png"))
    assert replay(saved, female_speech, pipeline).differences == ()
