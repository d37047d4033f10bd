from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.evaluation import __main__ as command
from voice2face.evaluation.agreement import bootstrap_share, within_one_decade
from voice2face.evaluation.judge import FaceFeatures, Judge
from voice2face.evaluation.sheets import captioned_sheet
from voice2face.training.tables import FaceTable


def test_share_and_its_interval() -> None:
    right = np.array([True] * 80 + [False] * 20)
    share = bootstrap_share(right, [str(k) for k in range(100)])
    assert share.value == pytest.approx(0.8)
    assert share.low == pytest.approx(0.72, abs=0.03)
    assert share.high == pytest.approx(0.88, abs=0.03)
    assert share.cases == 100
    assert str(share).startswith("80.0% (")


def test_clips_of_one_speaker_are_not_independent() -> None:
    right = np.repeat([True, False], 50)
    speakers = np.repeat(["a", "b"], 50).tolist()
    share = bootstrap_share(right, speakers)
    assert (share.low, share.high) == (0.0, 1.0)


def test_certainty_has_no_width_and_nothing_has_no_share() -> None:
    assert bootstrap_share(np.ones(5, bool), list("abcde"))[:3] == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="nothing"):
        bootstrap_share(np.ones(0, bool), [])


def test_neighbouring_decades_count_as_near() -> None:
    said, true = np.array([0, 1, 2, 5]), np.array([0, 2, 0, 4])
    assert within_one_decade(said, true).tolist() == [True, True, False, True]


def test_judge_learns_what_can_be_seen(tables: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    sex = np.arange(200) % 2
    images = rng.integers(0, 60, (200, 32, 32, 3), dtype=np.uint8)
    images[sex == 1, 16:] += 150
    age = np.where(sex == 1, 4, 0)
    faces = FaceTable(images, sex, age, np.zeros((200, 6)), [str(k) for k in range(200)])
    judge = Judge(FaceFeatures(Path(tables["mobileface_v2"])))
    judge.fit(faces, epochs=30)
    verdict = judge(images)
    assert (verdict.sex == sex).mean() > 0.95
    assert (verdict.age == age).mean() > 0.95


def test_sheets_hold_pictures_and_captions() -> None:
    pictures = np.full((5, 8, 8, 3), 90, np.uint8)
    sheet = captioned_sheet(pictures, [f"seed {k}" for k in range(5)], columns=3, size=40)
    assert sheet.size == (120, 2 * 58)
    pixels = np.asarray(sheet)
    assert (pixels[:40, :40] == 90).all()
    assert pixels[40:58, :40].min() < 128, "there is writing under the picture"
    assert (pixels[58:98, 80:] == 255).all(), "the last place is empty"


def test_one_command_writes_the_report(
    tiny_pipeline: Voice2FacePipeline,
    tables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    folder, out = Path(tables["faces-0"]).parent, tmp_path / "report"
    arguments = ["--checkpoint", checkpoint, "--data", folder, "--networks", folder, "--out", out]
    monkeypatch.setattr(sys, "argv", ["evaluation", *map(str, arguments), "--steps", "1"])
    command.main()
    report = json.loads((out / "report.json").read_text())
    assert 0.0 <= report["portraits, test speakers, each clip"]["sex"]["value"] <= 1.0
    assert report["portraits, test speakers, each clip"]["sex"]["cases"] == 8
    assert "| sex |" in capsys.readouterr().out
    with Image.open(out / "portraits-24.png") as sheet:
        assert sheet.width == 8 * 128
    assert (out / "reconstructions.png").is_file()
