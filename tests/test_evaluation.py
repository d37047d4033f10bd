from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.conftest import tiny_components
from voice2face import Voice2FacePipeline
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import UNKNOWN, FaceTable
from voice2face.errors import SettingError
from voice2face.evaluation import __main__ as command
from voice2face.evaluation import (
    ablation,
    face_parts,
    presets,
    publish,
    stages_ablation,
    variety,
    watermark,
)
from voice2face.evaluation.agreement import bootstrap_share, share_of_known, within_one_decade
from voice2face.evaluation.distribution import (
    covered_by,
    frechet_distance,
    kernel_distance,
    precision_and_recall,
)
from voice2face.evaluation.evaluate import evaluate
from voice2face.evaluation.face_parts import nearness_to_own, students_t
from voice2face.evaluation.groups import groups_of, measure_groups
from voice2face.evaluation.instruments import Instruments, load_artist
from voice2face.evaluation.judge import FaceFeatures, Judge, Verdict
from voice2face.evaluation.pairs import rows_to_measure
from voice2face.evaluation.pictures import face_found, sharpness
from voice2face.evaluation.quality import add_quality
from voice2face.evaluation.real_faces import random_faces
from voice2face.evaluation.report import Report
from voice2face.evaluation.retrieval import nearness, ranks, recalled
from voice2face.evaluation.sheets import captioned_sheet, labelled_sheet
from voice2face.evaluation.voices import add_agreement
from voice2face.models import FaceCheck, FaceRetriever
from voice2face.settings import PRESETS
from voice2face.training.latents import EncodedTables


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


def test_unanimity_is_no_certainty_and_nothing_has_no_share() -> None:
    least = 0.025 ** (1 / 5)  # of which all of five are right in one of forty draws
    right = np.ones(5, bool)
    assert bootstrap_share(right, list("abcde"))[:3] == pytest.approx((1.0, least, 1.0))
    assert bootstrap_share(~right, list("abcde"))[:3] == pytest.approx((0.0, 0.0, 1.0 - least))
    assert bootstrap_share(right, list("aaaaa")).low == pytest.approx(0.025), "one speaker"
    with pytest.raises(ValueError, match="nothing"):
        bootstrap_share(np.ones(0, bool), [])


def test_the_interval_of_parts_is_about_as_wide_as_theirs() -> None:
    parts = np.linspace(0.25, 0.75, 101)
    share = bootstrap_share(parts, [str(k) for k in range(101)])
    assert share.value == pytest.approx(0.5)
    error = parts.std() / 101**0.5
    assert (share.high - share.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.15)


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
    features = FaceFeatures(Path(tables["mobileface_v2"]))
    judge = Judge(features)
    judge.fit(faces, epochs=30)
    torch.manual_seed(1)
    again = Judge(features)
    again.fit(faces, epochs=30)
    for one, other in zip(judge.members, again.members, strict=True):
        for value, same in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(value, same)
    verdict = judge(images)
    assert (verdict.sex == sex).mean() > 0.95
    assert (verdict.age == age).mean() > 0.95
    people = np.array([str(k // 8) for k in range(200)])
    mixed = images.copy()
    mixed[sex == 0] = np.where(rng.random((100, 1, 1, 1)) < 0.5, images[sex == 1], images[sex == 0])
    together = judge(mixed, people)
    assert all(len(set(together.sex[people == who])) == 1 for who in people)


def test_what_is_not_labelled_neither_teaches_nor_counts(tables: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    sex = np.array([0, 1, UNKNOWN, 1] * 2)
    judge = Judge(FaceFeatures(Path(tables["mobileface_v2"])), members=1)
    ids = [str(k) for k in range(8)]
    judge.fit(FaceTable(images, sex, np.full(8, UNKNOWN), np.zeros((8, 6)), ids), epochs=1)
    assert all(torch.isfinite(value).all() for value in judge.members[0].parameters())
    right = np.array([True, False, True])
    share = share_of_known(right, np.array([0, UNKNOWN, 1]), ["a", "b", "c"])
    assert share is not None
    assert (share.value, share.cases) == (1.0, 2)
    assert share_of_known(right, np.full(3, UNKNOWN), ["a", "b", "c"]) is None


def test_pairs_that_were_trained_on_are_not_measured(
    tables: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        rows = rows_to_measure(Path(tables["pairs-0"]))
    assert {row["split"] for row in rows} == {"test"}
    assert "the 8 rows of split test are measured, 16 left out" in caplog.text
    assert len(rows_to_measure(Path(tables["pairs-dev"]))) == 8, "where nothing says a split, all"
    learnt = pq.read_table(tables["pairs-0"]).to_pylist()[:8]
    pq.write_table(pa.Table.from_pylist(learnt), tmp_path / "pairs-dev.parquet")
    with pytest.raises(SettingError, match="no row of split 'test'"):
        rows_to_measure(tmp_path / "pairs-dev.parquet")


def test_unlabelled_test_speakers_and_plain_pairs_are_measured_as_far_as_they_go(
    tiny_pipeline: Voice2FacePipeline, tables: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("faces-0", "voices-0", "pairs-dev"):
        rows = pq.read_table(tables[name]).to_pylist()
        for row in rows:
            if name == "pairs-dev":
                del row["speech2face"], row["face_frontal"], row["id"]
            elif row["split"] == "test" or row["id"] == "train-3":
                row["gender"] = row["age"] = None
        pq.write_table(pa.Table.from_pylist(rows), data / f"{name}.parquet")
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    artist = load_artist(Namespace(checkpoint=checkpoint, device="cpu", preset="fast", variety=1.0))
    assert tiny_pipeline.output_size == 48
    assert artist.pipe.output_size == 32, "pictures are measured at the decoder's own size"
    report = evaluate(artist, data, Path(tables["faces-0"]).parent, tmp_path)
    assert not {"the voice is heard, test speakers: portraits", "judge"} & report.figures.keys()
    people = {group for group in report.figures if group.startswith("the person is met")}
    assert people == {
        *("the person is met: voice2face", "the person is met: mean face"),
        "the person is met: random real face of that sex",
        "the person is met: random real face of the sex and age heard",
    }


def test_real_faces_are_of_the_sex_and_age_asked_for_where_there_are_any() -> None:
    sex = np.repeat([0, 1], 12)
    age = np.tile([0, 1, 2], 8)
    images = (10 * sex + age).astype(np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    faces = FaceTable(images, sex, age, np.zeros((24, 6)), [str(k) for k in range(24)])
    drawn = random_faces(faces, np.array([0, 1, 1, 0]), np.array([2, 0, 1, 2]))
    assert drawn[:, 0, 0, 0].tolist() == [2, 10, 11, 2]
    unknown = random_faces(faces, np.array([1] * 12), np.array([5] * 12))[:, 0, 0, 0]
    assert sorted(unknown.tolist()) == [10] * 4 + [11] * 4 + [12] * 4, "each face once"
    faces.age[0] = UNKNOWN
    of_sex = random_faces(faces, np.array([0, 1] * 20))[:, 0, 0, 0] // 10
    assert of_sex.tolist() == [0, 1] * 20
    drawn = random_faces(faces, np.zeros(12, int))[:, 0, 0, 0]
    assert sorted(drawn.tolist()) == [0] * 4 + [1] * 4 + [2] * 4, "all, not that of unknown age"


def test_no_face_is_answered_with_that_it_is_compared_with(tables: dict[str, str]) -> None:
    instruments = Instruments.load(tables["faces-0"], Path(tables["faces-0"]).parent, None)
    kinds = [instruments.training_faces, instruments.test_faces, instruments.other_faces]
    ids = [face for faces in kinds for face in faces.ids]
    assert len(set(ids)) == len(ids) == 24


def test_sheets_hold_pictures_and_captions() -> None:
    pictures = np.full((5, 8, 8, 3), 90, np.uint8)
    sheet = captioned_sheet(pictures, [f"seed {k}" for k in range(5)], columns=3, size=40)
    assert sheet.size == (120, 2 * 58)
    pixels = np.asarray(sheet)
    assert (pixels[:40, :40] == 90).all()
    assert pixels[40:58, :40].min() < 128, "there is writing under the picture"
    assert (pixels[58:98, 80:] == 255).all(), "the last place is empty"


def test_captions_do_not_run_into_their_neighbours() -> None:
    pictures = np.full((3, 8, 8, 3), 90, np.uint8)
    captions = ["", "sex unknown 20-29\nseen: female", ""]
    pixels = np.asarray(captioned_sheet(pictures, captions, columns=3, size=64))
    below = pixels[64:]
    assert len(below) == 2 * 18, "two lines"
    assert below[:18, 64:128].min() < 128
    assert below[18:, 64:128].min() < 128
    assert (below[:, :64] == 255).all()
    assert (below[:, 128:] == 255).all()


def test_rows_have_their_labels_at_their_left() -> None:
    row = np.full((2, 32, 32, 3), 90, np.uint8)
    pixels = np.asarray(labelled_sheet({"1": row, "0.4": row}))
    height, width, _ = pixels.shape
    assert height == 64
    assert (pixels[:, width - 64 :] == 90).all()
    labels = pixels[:, : width - 64]
    assert labels[:32].min() < 128
    assert labels[32:].min() < 128
    assert (labels[:32] != labels[32:]).any()


def seen_in_none(people: int, pictures: int) -> dict[str, float]:
    """A share of none of the pictures, as of that many people."""
    return {"value": 0.0, "low": 0.0, "high": 1.0 - 0.025 ** (1 / people), "cases": pictures}


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
    monkeypatch.setattr("voice2face.evaluation.quality.face_found", lambda _: False)
    for module in ("quality", "evaluate"):
        seen = f"voice2face.evaluation.{module}.hidden_eyes"
        monkeypatch.setattr(seen, lambda images: np.zeros(len(images)))
    command.main([*map(str, arguments), "--preset", "fast"])
    report = json.loads((out / "report.json").read_text())
    good = report["the picture is good, test speakers"]
    for measure in ("a face is found", "eyes are hidden"):
        assert good[measure] == seen_in_none(4, 8), "those of a speaker are drawn together"
    assert good["eyes are hidden, test faces"] == seen_in_none(8, 8)
    assert report["the voice is heard, test speakers: portraits"]["sex"]["cases"] == 8
    for name, of_picture in (("Speech2Face", True), ("voice2face", False)):
        person = report[f"the person is met: {name}"]
        same = person["cos x100, a picture"] == pytest.approx(person["cos x100, seeds averaged"])
        assert same == of_picture, "of one picture the average is that picture"
        if of_picture:
            for measure in ("R@10", "mean rank among people of that sex"):
                assert person[f"{measure}, a picture"] == person[measure]
    heard = report["the voice is heard, test speakers: portraits"]
    assert 0.0 <= heard["sex, mean over speakers"] <= 1.0
    near = report["test faces by FairFace's group: portraits come near"]
    assert {name: share["cases"] for name, share in near.items()} == {"another": 4, "one": 4}
    assert "speech encoder by corpus, test speakers" not in report, "of no corpus"
    steady = report["it is steady"]
    assert steady["same sex, all clips of the speaker"]["cases"] == 4, "speakers of two clips"
    always = {
        figures["age within 10 years, if always 30-39"]["value"]
        for group, figures in report.items()
        if group.startswith("the voice is heard, true pairs: ")
    }
    assert len(always) == 1, "it does not depend on the pictures"
    printed = capsys.readouterr().out
    assert "| measure | voice2face | Speech2Face | mean face |" in printed
    sheets = {path.name for path in out.iterdir() if path.suffix == ".png"}
    assert sheets == {
        *("reconstructions.png", "portraits.png", "failures.png", "nearest.png", "pairs.png"),
    }
    with Image.open(out / "portraits.png") as sheet:
        assert sheet.width == 8 * 128

    card, readme, speed = (tmp_path / name for name in ("card.md", "readme.md", "speed.txt"))
    card.write_text("above\n<!-- figures -->\nold\n<!-- /figures -->\nbelow\n")
    markers = ("speakers", "true pairs", "differences", "speed", "glance")
    readme.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in markers))
    speed.write_text("### speed\n\n| cold | 3.5 |\n")
    arguments = ["--report", out / "report.json", "--page", card, "--page", readme]
    arguments += ["--table", "speed", speed, "--checkpoint", "one"]
    arguments += ["--beside", "two", out / "report.json"]
    line = list(map(str, arguments))
    publish.main(line)
    written = card.read_text()
    assert "old" not in written
    assert written.startswith("above\n<!-- figures -->")
    assert written.endswith("<!-- /figures -->\nbelow\n")
    assert (out / "report.md").read_text().strip() in written
    whole = report["the voice is heard, true pairs: Speech2Face"]["sex"]["value"]
    assert f" {whole:.1%} |" in readme.read_text()
    assert "<!-- speed -->\n\n| cold | 3.5 |\n" in readme.read_text()
    assert "| measure | one | two |" in readme.read_text()
    for label, _, _ in (*publish.SPEAKER_ROWS, *publish.PAIR_ROWS):
        assert f"| {label} | " in readme.read_text()
    assert (
        "| measure | one | two | Speech2Face | true face, frontal | random real face of that sex |"
        in readme.read_text()
    )
    _, _, differences = readme.read_text().partition("<!-- differences -->")
    differences, _, _ = differences.partition("<!-- /differences -->")
    assert "| measure | one to Speech2Face | one to random real face of that sex |" in differences
    behind = report["differences of voice2face to other answers, true pairs: Speech2Face"]
    assert f"| eyes are hidden | {behind['eyes are hidden']['value']:+.1%} (" in differences
    publish.main(line)
    assert card.read_text() == written
    with pytest.raises(SystemExit, match="no page has the marker 'other'"):
        publish.main([*line, "--table", "other", str(speed)])
    damaged = readme.with_name("damaged.md")
    damaged.write_text("<!-- figures --> that never end\n")
    before = readme.read_text().replace("| cold | 3.5 |", "| cold | old |")
    readme.write_text(before)
    with pytest.raises(SystemExit, match="once each"):
        publish.main([*line, "--page", str(damaged)])
    assert readme.read_text() == before, "no page is written, or all of them are"
    with pytest.raises(SystemExit, match=r"is no report\.json of the evaluation"):
        publish.main(["--report", str(card), "--page", str(readme)])
    plain = {group: figures for group, figures in report.items() if "Speech2Face" not in group}
    del plain["the voice is heard, test speakers: speech encoder"]["sex"]
    (out / "report.json").write_text(json.dumps(plain))
    publish.main(line)
    assert "| measure | one | two | true face, frontal |" in readme.read_text()
    assert "sex, each clip" not in readme.read_text()


@pytest.mark.parametrize("marker", ["presets", "presets of another"])
def test_a_table_comes_without_its_heading_under_any_marker(marker: str, tmp_path: Path) -> None:
    Report({"presets: fast": {"sex": 0.5}}).write(tmp_path, "presets")
    Report({"parts: one": {"sex": 0.5}, "the prior": {"moves": 0.1}}).write(tmp_path, "two")
    page = tmp_path / "page.md"
    page.write_text(f"<!-- {marker} -->\n<!-- /{marker} -->\n<!-- two -->\n<!-- /two -->\n")
    arguments = ["--report", tmp_path / "presets.json", "--page", page]
    for name, file in ((marker, "presets.md"), ("two", "two.md")):
        arguments += ["--table", name, tmp_path / file]
    publish.main(list(map(str, arguments)))
    table = "| measure | fast |\n|---|---|\n| sex | 0.500 |"
    assert f"<!-- {marker} -->\n\n{table}\n\n<!-- /{marker} -->" in page.read_text()
    two = (tmp_path / "two.md").read_text().strip()
    assert f"<!-- two -->\n\n{two}\n\n<!-- /two -->" in page.read_text(), "two tables need theirs"


def test_a_face_of_unknown_sex_is_not_misjudged(
    tables: dict[str, str], tiny_pipeline: Voice2FacePipeline
) -> None:
    instruments = Instruments.load(tables["faces-0"], Path(tables["faces-0"]).parent, None)
    faces, report = instruments.test_faces, Report()
    faces.sex[0] = UNKNOWN
    groups = groups_of(tables["faces-0"], "test", None)
    measure_groups(faces.images, tiny_pipeline, instruments, groups, report)
    counted = {
        group.partition(": ")[2]: sum(share.cases for share in figures.values())
        for group, figures in report.figures.items()
    }
    assert counted == {"portraits come near": 8, "the judge sees the sex": 7, "a face is found": 8}


def test_how_often_a_face_check_refuses_each_group_is_told(tables: dict[str, str]) -> None:
    instruments = Instruments.load(tables["faces-0"], Path(tables["faces-0"]).parent, None)
    faces, groups = instruments.test_faces, groups_of(tables["faces-0"], "test", None)
    refused = {}
    for least in (-1e3, 1e3):
        check, report = FaceCheck(4, 8, width=8, least_confidence=least), Report()
        pipe = Voice2FacePipeline(**tiny_components(), face_check=check).to("cpu")
        measure_groups(faces.images, pipe, instruments, groups, report)
        figures = report.figures["test faces by FairFace's group: the face check refuses"]
        refused[least] = {group: share.value for group, share in figures.items()}
    assert refused == {
        -1e3: dict.fromkeys(groups.values(), 0.0),
        1e3: dict.fromkeys(groups.values(), 1.0),
    }


def test_networks_that_are_not_there_are_named(tmp_path: Path) -> None:
    for kind in (FaceFeatures, PerceptualLoss):
        with pytest.raises(SettingError, match=r"there is no .*missing.*docs/.*says"):
            kind(tmp_path / "missing")


def test_a_checkpoint_that_is_none_is_said_in_a_line(
    tables: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(tables["faces-0"]).parent
    arguments = ["--checkpoint", "none", "--data", folder, "--networks", folder, "--out", tmp_path]
    with pytest.raises(SystemExit, match="none"):
        command.main(list(map(str, arguments)))


@pytest.fixture
def compared(
    tiny_pipeline: Voice2FacePipeline, tables: dict[str, str], tmp_path: Path
) -> Callable[[ModuleType, str], tuple[dict, Path]]:
    """Runs a comparison's command; returns what its report says, and where it lies."""
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    folder, out = Path(tables["faces-0"]).parent, tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--data", folder, "--networks", folder, "--out", out]

    def run(module: ModuleType, name: str) -> tuple[dict, Path]:
        module.main([*map(str, arguments), "--portraits-a-voice", "1"])
        return json.loads((out / f"{name}.json").read_text()), out

    return run


def test_presets_are_measured_side_by_side(compared) -> None:
    report, out = compared(presets, "presets")
    assert list(report) == [f"presets: {name}" for name in PRESETS]
    assert all(figures["sex"]["cases"] == 4 for figures in report.values())
    best = report["presets: best"]
    assert best[presets.RATIO] == 1.0
    fast = report["presets: fast"]
    assert fast["Fréchet distance"] != best["Fréchet distance"], "they draw differently"
    ratio = fast["Fréchet distance"] / best["Fréchet distance"]
    assert fast[presets.RATIO] == pytest.approx(ratio)
    assert "| measure | fast | balanced | best |" in (out / "presets.md").read_text()


def test_varieties_are_measured_side_by_side(compared) -> None:
    report, out = compared(variety, "variety")
    assert list(report) == [f"variety: {number:g}" for number in variety.VARIETIES]
    distances = [figures["Fréchet distance"] for figures in report.values()]
    assert len(set(distances)) == len(distances), "they draw differently"
    with Image.open(out / "variety.png") as sheet:
        assert sheet.height == len(variety.VARIETIES) * 32


def test_figures_need_their_markers() -> None:
    with pytest.raises(ValueError, match="once each"):
        publish.fill("<!-- figures --> and no end", "figures", "1")
    assert publish.fill("no markers", "figures", "1") == "no markers"


@pytest.fixture
def ablation_arguments(
    quick_evaluation: None,
    tiny_pipeline: Voice2FacePipeline,
    tables: dict[str, str],
    tmp_path: Path,
) -> list[str]:
    """The command line of an ablation of one step, which writes to ``out``."""
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    folder = Path(tables["faces-0"]).parent
    arguments = ["--collaborative", checkpoint, "--data", folder, "--networks", folder]
    arguments += ["--out", tmp_path / "out", "--steps", 1, "--block-channels", 16]
    return list(map(str, arguments))


def test_ablation_trains_and_measures_every_variant(
    ablation_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(ablation, "PRIOR_SIZES", (2, 4, 8))
    monkeypatch.setattr("voice2face.evaluation.comparison.face_found", lambda _: False)
    ablation.main(ablation_arguments)
    report = json.loads((out / "ablation.json").read_text())
    for variant in ablation.VARIANTS:
        figures = report[f"Parts of SCLDM, 1 steps: {variant.name}"]
        assert 0.0 < figures["held-out loss"] < 10.0
        assert figures["sex"]["cases"] == 4 * ablation.PORTRAITS_A_VOICE
        assert figures["a face is found"] == seen_in_none(4, 4 * ablation.PORTRAITS_A_VOICE)
    betas = {
        json.loads(file.read_text())["weight"] for file in out.glob("*/face_prior/config.json")
    }
    assert betas == {variant.beta for variant in ablation.VARIANTS}
    told = {
        json.loads(file.read_text())["heard_attributes"]
        for file in out.glob("*/denoiser/config.json")
    }
    assert told == {0, 2}
    assert {file.parent.name for file in out.glob("*/log.jsonl")} == {
        *("untrained-beta-0-1-steps", "pretrained-beta-0-1-steps"),
        *("untrained-beta-0.01-1-steps", "pretrained-beta-0.01-1-steps"),
        *("pretrained-beta-0.05-1-steps", "pretrained-beta-0.1-1-steps"),
        "pretrained-beta-0.01--heard-attributes-1-steps",
    }, "each variant goes on with no other one's run, nor with one of other steps"
    moved = report["the prior, L1 it moves"]
    assert set(moved) == {"from N = 2 to 4", "from N = 4 to 8"}
    assert min(moved.values()) > 0.0
    assert "| sex | " in (out / "ablation.md").read_text()


def test_what_the_prior_averages_is_said_where_one_sex_has_fewer_faces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "PRIOR_SIZES", (2, 4, 8, 10))
    latents = torch.arange(10.0).view(10, 1, 1, 1, 1).expand(10, 2, 1, 1, 1)
    encoded = EncodedTables(latents, torch.zeros(10, 2, 6), torch.zeros(1, 1, 1))
    report = Report()
    ablation.measure_prior(encoded, np.array([0] * 2 + [1] * 8), report)
    assert list(report.figures["the prior, L1 it moves"]) == ["from N = 2 to 4"]


def test_stages_ablation_trains_and_measures_every_variant(
    ablation_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(stages_ablation, "ENTRIES", 6)
    stages_ablation.main(ablation_arguments)
    report = json.loads((out / "stages.json").read_text())
    names = [stages_ablation.ONE_STAGE.name, *stages_ablation.TWO_STAGES]
    table = "One stage, two stages, retrieval, 1 steps"
    assert list(report) == [f"{table}: {name}" for name in names]
    assert all(0.0 < figures["held-out loss"] < 10.0 for figures in report.values())
    assert {file.parent.name for file in out.glob("*/log.jsonl")} == {
        "pretrained-beta-0-1-steps",
        *(f"index-{stage}-1-steps" for stage in ("bottom", "upper")),
        *(f"index-blank-{stage}-1-steps" for stage in ("bottom", "upper")),
    }
    blank = FaceRetriever.load(stages_ablation.blank(out / "index")).entries
    index = FaceRetriever.load(out / "index").entries
    assert blank.ids == index.ids
    assert not blank.faces.any()
    assert index.faces.any()


def test_watermark_rates_are_measured(tables: dict[str, str], tmp_path: Path) -> None:
    folder = Path(tables["faces-0"]).parent
    arguments = ["--data", folder, "--out", tmp_path, "--count", 2, "--preset", "fast"]
    watermark.main(list(map(str, arguments)))
    report = json.loads((tmp_path / "watermark.json").read_text())
    assert report["watermark: portraits, yes"]["PNG"]["value"] == 1.0
    assert report["watermark: real faces, yes"]["PNG"]["value"] == 0.0
    assert set(report["watermark: portraits, unsure"]) == set(watermark.CHANGES)
    assert set(report["watermark: real faces, unsure"]) < set(watermark.CHANGES)


def test_parts_near_their_own_truth_have_a_high_t() -> None:
    rng = np.random.default_rng(0)
    truths, strangers = rng.standard_normal((2, 40, 6))
    portraits = truths + 0.5 * rng.standard_normal((40, 6))
    everybody = np.ones((40, 40), bool)
    near, far = (
        np.square(drawn[:, None] - truths[None]).sum(2) for drawn in (portraits, strangers)
    )
    assert students_t(nearness_to_own(near, everybody)) > 10.0
    assert abs(students_t(nearness_to_own(far, everybody))) < 3.0
    alone = np.eye(40, dtype=bool)
    alone[0, 1] = alone[1, 0] = True
    two = near[:2, :2] - near[:2, :2].mean(0)
    expected = [two[0, 1] - two[0, 0], two[1, 0] - two[1, 1]]
    assert nearness_to_own(near, alone) == pytest.approx(expected)
    assert students_t(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0 / (1.0 / 3**0.5))
    with pytest.raises(ValueError, match="two people"):
        students_t(np.array([1.0]))


def test_t_of_parts_that_follow_nothing_is_by_chance_what_students_is() -> None:
    rng = np.random.default_rng(0)
    everybody = np.ones((60, 60), bool)
    found = [
        students_t(nearness_to_own(5 * hard + rng.standard_normal((60, 1)) * noise, everybody))
        for hard, noise in (
            (rng.standard_normal(60), rng.standard_normal((60, 60))) for _ in range(400)
        )
    ]
    assert 0.9 < np.std(found) < 1.1
    assert 0.02 < np.mean(np.abs(found) > 2.0) < 0.08


def test_face_parts_are_measured(
    tiny_pipeline: Voice2FacePipeline, tables: dict[str, str], tmp_path: Path
) -> None:
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    folder, out = Path(tables["faces-0"]).parent, tmp_path / "parts"
    arguments = ["--checkpoint", checkpoint, "--data", folder, "--networks", folder, "--out", out]
    face_parts.main([*map(str, arguments), "--preset", "fast"])
    report = json.loads((out / "face_parts.json").read_text())
    for group in ("all people", "the same sex"):
        measured = report[f"t of parts that follow the voice: {group}"]
        assert measured.keys() == face_parts.PARTS.keys()
        assert all(np.isfinite(value) for value in measured.values())
    with Image.open(out / "face_parts.png") as chart:
        assert len(chart.getcolors(10**6)) > 5


def test_a_part_is_seen_at_its_place_alone(tables: dict[str, str]) -> None:
    network = PerceptualLoss(Path(tables["squeezenet1_0"]))
    plain = np.full((1, 128, 128, 3), 90, np.uint8)
    changed = plain.copy()
    changed[:, 85:100, 45:80] = np.random.default_rng(0).integers(0, 255, (15, 35, 3))
    one, other = (face_parts.part_features(images, network) for images in (plain, changed))
    moved = {part: float((one[part] - other[part]).square().sum()) for part in face_parts.PARTS}
    assert max(moved, key=moved.__getitem__) == "mouth"
    assert moved["brows"] < 0.05 * moved["mouth"]


def test_frechet_distance_of_known_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20_000, 3))
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-6)
    shifted = one + np.array([3.0, 0.0, 0.0])
    assert frechet_distance(one, shifted) == pytest.approx(9.0, abs=1e-6)
    wider = 2.0 * rng.standard_normal((20_000, 3))
    assert frechet_distance(one, wider) == pytest.approx(3.0, abs=0.1)


def test_kernel_distance_is_zero_for_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 1000, 4))
    same, shifted = kernel_distance(one, other), kernel_distance(one, other + 1.0)
    assert same is not None
    assert shifted is not None
    assert abs(same.value) < same.deviation < 100
    assert shifted.value > 10 * abs(same.value)


def test_too_few_pictures_have_no_distance() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 8, 4))
    for few in (1, 2, 3):
        assert kernel_distance(one[:few], other) is kernel_distance(one, other[:few]) is None
    assert kernel_distance(one[:4], other[:4]) is not None
    with pytest.raises(SettingError, match="two pictures or more"):
        frechet_distance(one[:1], other)
    assert frechet_distance(one[:2], other[:2]) > 0.0


@pytest.mark.parametrize(
    ("module", "option", "number"),
    [
        *((module, "--limit", number) for module in (command, face_parts) for number in (-2, 0, 1)),
        *((presets, option, 0) for option in ("--limit", "--portraits-a-voice")),
        *((watermark, option, 0) for option in ("--count", "--processes")),
    ],
)
def test_numbers_that_nothing_can_be_measured_with_are_refused_at_once(
    module: ModuleType,
    option: str,
    number: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit):
        module.main([option, str(number), "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert f"argument {option}: give a whole number from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reports_and_pages_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from voice2face.evaluation import publish; "
        "report = publish.Report({'the picture: one': {'Fr\\u00e9chet': 1.0}}); "
        "report.write(Path(), 'report'); publish.main()"
    )
    page, marked = tmp_path / "page.md", "Fréchet\n<!-- figures -->\n{}\n<!-- /figures -->\n"
    page.write_text(marked.format(""), encoding="utf-8")
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    arguments = [sys.executable, "-c", code, "--report", "report.json", "--page", "page.md"]
    subprocess.run(arguments, cwd=tmp_path, env=environment, check=True)
    table = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == marked.format(f"\n{table}")


def test_precision_and_recall() -> None:
    rng = np.random.default_rng(0)
    real = rng.uniform(0, 1, (400, 2))
    assert precision_and_recall(real, real) == (1.0, 1.0)
    precision, recall = precision_and_recall(real, real * [0.5, 1.0])
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.15)
    assert precision_and_recall(real, real + 10.0) == (0.0, 0.0)
    left = real[:, 0] < 0.5
    near = covered_by(real, real[left])
    assert near[left].all()
    assert near[~left].mean() < 0.2


def test_speakers_count_once_however_many_clips_they_have() -> None:
    report, said = Report(), Verdict(np.array([0, 0, 0, 1]), np.zeros(4, int))
    sex, age = np.array([0, 0, 0, 0]), np.zeros(4, int)
    add_agreement(report, "voices", said, sex, age, np.array(["a", "a", "a", "b"]))
    assert report.figures["voices"]["sex"].value == 0.75
    assert report.figures["voices"]["sex, mean over speakers"] == 0.5


def test_pictures_are_compared_with_the_test_faces_by_recognition_features(
    tables: dict[str, str],
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    half = images.copy()
    half[:, 16:] = 0
    unknown = np.full(60, -1)
    faces = FaceTable(images, unknown, unknown, np.zeros((60, 6)), [str(k) for k in range(60)])
    features = FaceFeatures(Path(tables["mobileface_v2"]))
    instruments = Instruments(features, Judge(features), PerceptualLoss(None), faces, faces, faces)
    report, people = Report(), np.array(faces.ids)
    add_quality(report, "the same", images, people, instruments)
    add_quality(report, "half black", half, people, instruments)
    add_quality(report, "dim", images // 2, people, instruments)
    name = "Fréchet distance, recognition features"
    assert report.figures["the same"][name] == pytest.approx(0.0, abs=1e-2)
    assert report.figures["half black"][name] > 1.0
    name = "fine detail, ratio to test faces"
    assert report.figures["the same"][name] == pytest.approx(1.0)
    assert report.figures["dim"][name] == pytest.approx(0.25, rel=0.02)


def test_ranks_and_recall() -> None:
    faces = np.eye(4)
    assert ranks(faces, faces).tolist() == [0.0] * 4
    assert recalled(faces, faces, 1).all()
    everybody = np.full((4, 4), 0.5)
    assert ranks(everybody, faces).tolist() == [0.5] * 4
    confused = faces[[1, 0, 3, 2]] + 0.5 * faces
    assert ranks(confused, faces) == pytest.approx([1 / 3] * 4)
    assert not recalled(confused, faces, 1).any()
    assert recalled(confused, faces, 2).all()
    alone = ranks(faces, faces, np.array([0, 0, 0, 1]))
    assert np.isnan(alone[3])


def test_nearness_of_known_vectors() -> None:
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    near = nearness(one, other)
    assert near == pytest.approx((100.0, 2.0, 100.0 * 2**0.5))
    assert nearness(one, one) == (0.0, 0.0, 0.0)


def test_a_blank_picture_shows_no_face_and_is_not_sharp() -> None:
    blank = np.full((128, 128, 3), 90, np.uint8)
    assert not face_found(blank)
    assert sharpness(blank) == 0.0
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    assert sharpness(noise) > 1000.0


def test_portraits_show_faces(pipeline: Voice2FacePipeline, female_speech: Path) -> None:
    images = pipeline(female_speech, seed=0, num_images=4).images
    assert sum(face_found(np.asarray(image)) for image in images) >= 3
