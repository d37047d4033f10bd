"""The guide names what there is."""

from __future__ import annotations

import asyncio
import inspect
import io
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.app import Limits
from voice2face.audio.loading import HIGHEST_RATE, LOWEST_RATE
from voice2face.errors import AudioFormatError
from voice2face.evidence import Evidence
from voice2face.methods.method import MOST_ATTEMPTS
from voice2face.portrait import Portrait, Portraits
from voice2face.replay import read_portrait
from voice2face.settings import DISTILLED, MOST_IMAGES, PRESETS, Preset

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.parent / "docs" / "guide.md"


def section_of(heading: str) -> str:
    return GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows_of(heading: str) -> dict[str, set[str]]:
    """Names in the second column of a section's table, by the names in its first column."""
    lines = section_of(heading).splitlines()
    cells = [line.split("|")[1:3] for line in lines if line.startswith("| `")]
    return {
        first.replace("`", "").strip(): set(re.findall("`([a-z_]+)`", second))
        for first, second in cells
    }


def test_every_setting_has_a_row() -> None:
    named = {name for row in rows_of("Settings") for name in row.split(", ")}
    accepted = set(inspect.signature(Voice2FacePipeline.__call__).parameters) - {"self"}
    assert named | {"generator"} == accepted


def test_what_comes_back_is_what_there_is() -> None:
    rows = rows_of("What comes back")
    for kind, row in ((Portraits, "Portraits"), (Portrait, "Portrait"), (Evidence, "evidence")):
        held = {field.name for field in fields(kind)} if kind is not Portraits else set()
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert rows[row] == held | public, row


def test_the_numbers_that_are_promised_are_those_that_count() -> None:
    guide, readme = (" ".join(page.read_text().split()) for page in (GUIDE, README))
    for name, preset, words in (
        (
            "fast",
            Preset(DISTILLED, 4, 1.5, 1),
            "is four distilled steps, which learnt guidance 1.5",
        ),
        ("balanced", Preset("unipc", 15, 2.0, 2), "in 15 steps of UniPC with `guidance_every=2`"),
        ("best", Preset("ddim", 50, 2.0, 1), "in 50 of DDIM"),
    ):
        assert f'`"{name}"` {words}' in guide
        assert PRESETS[name] == preset
    assert "the others draw at guidance 2" in guide
    assert f"portraits to make, up to {MOST_IMAGES};" in guide
    assert f"at {LOWEST_RATE // 1000} to {HIGHEST_RATE // 1000} kHz" in guide
    assert "has a badly drawn face drawn again from the same seed, up to three times" in readme
    assert MOST_ATTEMPTS - 1 == 3
    limits = Limits()
    assert f"recording may have {limits.recording_bytes >> 20} MiB and ten minutes, eight" in guide
    assert "eight visitors may be served or wait at once" in guide
    assert (limits.recording_seconds, limits.jobs) == (600.0, 8)
    assert "a drawing may take three minutes" in guide
    assert limits.drawing_seconds == 180.0


def test_a_web_service_draws_and_gives_up_as_the_guide_shows(
    tiny_pipeline: Voice2FacePipeline, recording: str
) -> None:
    names: dict[str, Any] = {"pipe": tiny_pipeline}
    [shown] = re.findall("```python\n(.*?)```", section_of("In a web service"), re.DOTALL)
    exec(shown, names)
    data = Path(recording).read_bytes()
    saved = read_portrait(asyncio.run(names["portrait"](data)))
    assert saved.settings.checkpoint == "tiny"
    with pytest.raises(TimeoutError):
        names["draw"](data, 0.0)
    long = io.BytesIO()
    sf.write(long, np.zeros(601 * 4_000, np.int16), 4_000, format="FLAC")
    with pytest.raises(AudioFormatError, match=r"601 s .* up to 600 s"):
        asyncio.run(names["portrait"](long.getvalue()))


def test_portraits_are_drawn_again_as_the_guide_shows(
    tiny_pipeline: Voice2FacePipeline,
    recording: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(recording, "other.wav")
    portrait = tiny_pipeline("talk.wav", num_inference_steps=2, variety=0.5)[0]
    portrait.save("face.png")
    names: dict[str, Any] = {"pipe": tiny_pipeline, "portrait": portrait}
    [shown] = re.findall("```python\n(.*?)```", section_of("The same portrait again"), re.DOTALL)
    exec(shown, names)
    assert names["again"].png() == names["made_again"].portrait.png() == portrait.png()
    assert capsys.readouterr().out == "()\n"


def test_a_face_is_aligned_as_the_guide_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (800, 700), (200, 10, 10)).save("photograph.jpg")
    shown = re.findall("```python\n(.*?)```", section_of("Listening and drawing apart"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(shown[-1], names)
    assert names["face"].size == (192, 192)
    assert names["outside"] == 0
