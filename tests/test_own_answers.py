from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.errors import SettingError
from voice2face.evaluation import __main__ as command
from voice2face.evaluation.agreement import Difference, paired_difference
from voice2face.evaluation.answers import read_answers
from voice2face.evaluation.cases import COLUMNS, DIFFERENCES, Cases, add_differences, write_cases
from voice2face.evaluation.instruments import Instruments, load_artist
from voice2face.evaluation.judge import Verdict
from voice2face.evaluation.pairs import NAMES, measure_pairs
from voice2face.evaluation.report import Report


def test_a_difference_that_is_there_is_told_from_one_that_is_not() -> None:
    right = np.arange(200) % 10 < 7
    worse = right & (np.arange(200) % 3 > 0)
    clear = paired_difference(right, worse)
    assert clear is not None
    assert clear.value == pytest.approx(right.mean() - worse.mean())
    assert 0.0 < clear.low < clear.value < clear.high
    turned = paired_difference(worse, right)
    assert turned is not None
    assert turned[:3] == pytest.approx((-clear.value, -clear.high, -clear.low), abs=0.02)
    none = paired_difference(right, np.roll(right, 1))
    assert none is not None
    assert none.value == 0.0
    assert none.low < 0.0 < none.high


def test_a_difference_over_the_same_people_is_surer_than_over_others() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    ours, theirs = hard - 0.1 * rng.random(200), hard
    same, other = (paired_difference(ours, one) for one in (theirs, np.roll(theirs, 1)))
    assert same is not None
    assert other is not None
    assert same.high < 0.0 < other.high
    assert (same.high - same.low) < 0.2 * (other.high - other.low)
    error = (ours - theirs).std() / 200**0.5
    assert (same.high - same.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.15)


def test_no_difference_of_few_people_is_no_certainty() -> None:
    unseen = 1.0 - 0.025 ** (1 / 5)  # a share that shows in none of five in one of forty draws
    same = paired_difference(np.ones(5, bool), np.ones(5, bool))
    assert same == pytest.approx((0.0, -unseen, unseen, 5))
    assert paired_difference(np.ones(5), np.zeros(5)) == pytest.approx((1.0, 1 - unseen, 1.0, 5))
    alone = np.array([np.nan, 0.5, 0.0])
    assert paired_difference(alone, np.zeros(3)).people == 2  # type: ignore[union-attr]
    assert paired_difference(np.full(3, np.nan), np.zeros(3)) is None


def test_differences_are_written_and_read() -> None:
    report, difference = Report(), Difference(-0.05, -0.104, 0.0041, 196)
    report.add("difference: other", "sex", difference)
    assert "| sex | -5.0% (-10.4% to +0.4%, n=196) |" in report.markdown()
    assert Report.from_json(report.as_json()).figures["difference: other"]["sex"] == difference


def cases(
    features: np.ndarray, *, sex: Sequence[int], found: Sequence[bool], own_seeds: bool = False
) -> Cases:
    """Four people, two of each sex and all 20 to 29, with true faces that are the unit vectors."""
    judged = np.arange(4) if own_seeds else np.zeros(4, int)
    said = Verdict(np.array(sex), np.array([0, 1, 2, 0]))
    true = Verdict(np.array([0, 0, 1, 1]), np.zeros(4, int))
    return Cases(judged, said, np.array(found), np.zeros(4, bool), features, true, np.eye(4))


def test_every_case_is_written(tmp_path: Path) -> None:
    right, turned = np.eye(4), np.eye(4)[[1, 0, 3, 2]]
    ours = cases(
        np.stack([right, turned]),
        sex=[0, 0, 1, 1],
        found=[True, True, True, False],
        own_seeds=True,
    )
    theirs = cases(np.stack([turned]), sex=[1, 1, 0, 0], found=[True] * 4)
    ids, people = np.array(list("abcd")), np.array(["ann", "bea", "carl", "dan"])
    write_cases(tmp_path / "cases.csv", ids, people, {"voice2face": ours, "theirs": theirs})
    with (tmp_path / "cases.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == COLUMNS
    written = [(row["answer"], row["id"], row["seed"]) for row in rows]
    assert written == [
        *[("voice2face", who, seed) for who in "ab" for seed in "01"],
        *[("voice2face", "c", seed) for seed in "012"],
        *[("voice2face", "d", seed) for seed in "013"],
        *[("theirs", who, "0") for who in "abcd"],
    ]
    common = {"id": "c", "person": "carl", "true_sex": "male", "true_age": "20-29"}
    compared, seen = ("in_ten_nearest", "rank", "cosine"), ("sex", "age", "face_found")
    first, second, own = rows[4:7]
    assert first == common | dict(
        zip(
            ("answer", "seed", *seen, "eyes_hidden", *compared),
            ("voice2face", "0", "", "", "", "", "1", "0.000000", "1.000000"),
            strict=True,
        )
    )
    assert [second[column] for column in compared] == ["1", "1.000000", "0.000000"]
    assert [own[column] for column in (*seen, *compared)] == ["male", "40-49", "1", "", "", ""]
    assert [rows[-1][column] for column in (*seen, *compared)] == [
        *("female", "20-29", "1", "1", "1.000000", "0.000000")
    ]

    report = Report()
    add_differences(report, ours, {"theirs": theirs})
    differences = report.figures[f"{DIFFERENCES}: theirs"]
    assert {name: figure.value for name, figure in differences.items()} == {
        "sex": 1.0,
        "age within 10 years": 0.0,
        "R@10, a picture": 0.0,
        "mean rank among people of that sex, a picture": -0.5,  # over seeds 0 and 1, less 1
        "a face is found": -0.25,
        "eyes are hidden": 0.0,
    }


def answers_table(file: Path, pictures: Sequence[tuple[str, bytes]]) -> Path:
    """A table of ids and pictures."""
    rows = [{"id": pair, "picture": picture} for pair, picture in pictures]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def png(width: int, height: int) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "PNG")
    return buffer.getvalue()


def test_the_published_pictures_have_their_figures_as_answers_of_another_method(
    tiny_pipeline: Voice2FacePipeline, tables: dict[str, str], tmp_path: Path
) -> None:
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    artist = load_artist(Namespace(checkpoint=checkpoint, device="cpu", preset="fast", variety=1.0))
    instruments = Instruments.load(tables["faces-0"], Path(tables["faces-0"]).parent, None)
    pairs = Path(tables["pairs-dev"])
    rows = pq.read_table(pairs).to_pylist()
    one = [(row["id"], row["speech2face"]) for row in reversed(rows)]
    two = [(row["id"], row[of]) for of in ("speech2face", "face_frontal") for row in rows]
    given = [("copy", answers_table(tmp_path / "one.parquet", one))]
    given += [("two", answers_table(tmp_path / "two.parquet", two))]
    reports = []
    for answers in ([], given):
        reports.append(Report())
        other_methods = read_answers(answers, pairs)
        measure_pairs(
            artist, instruments, pairs, reports[-1], tmp_path, other_methods=other_methods
        )
    before, report = (one.as_json() for one in reports)
    columns = {group.partition(": ")[2] for group in before}
    assert columns == {*NAMES}, "those that no other method can be called"
    assert {group: report[group] for group in before} == before, "they are measured as ever"
    titles = {group.partition(": ")[0] for group in before}
    assert len(titles) == 4
    for title in titles:
        assert report[f"{title}: copy"] == report[f"{title}: Speech2Face"]
    person, first, second = (
        report[f"the person is met: {name}"] for name in ("two", "copy", "true face, frontal")
    )
    for measure in ("cos x100, a picture", "L1, a picture"):
        assert person[measure] == pytest.approx((first[measure] + second[measure]) / 2)
    for title in ("the voice is heard, true pairs", "the picture is good"):
        assert report[f"{title}: two"] == report[f"{title}: copy"], "the first picture is judged"
    with (tmp_path / "cases.csv").open(newline="") as text:
        written = list(csv.DictReader(text))
    assert {row["id"] for row in written} == {"0", "2", "4", "6"}, "the first of each person"
    of_two = [row["seed"] for row in written if row["answer"] == "two"]
    assert of_two == ["0", "1"] * 4
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.height % (3 + 1 + 4 + 2) == 0, "a row for each, and two of other methods"


def test_answers_that_cannot_be_measured_are_refused(
    tables: dict[str, str], tmp_path: Path
) -> None:
    pairs, file = Path(tables["pairs-dev"]), tmp_path / "mine.parquet"
    right = [(str(k), png(8, 8)) for k in range(8)]

    def refused(name: str = "mine", of: Path = pairs) -> str:
        with pytest.raises(SettingError) as error:
            read_answers([("other", good), (name, file)], of)
        return str(error.value)

    good = answers_table(tmp_path / "good.parquet", right)
    assert "cannot be read" in refused()
    file.write_bytes(b"no table")
    assert "cannot be read" in refused()
    answers_table(file, [(f"x{k}", png(8, 8)) for k in range(5)])
    assert "'x0', 'x1', 'x2' and 2 more; leave them out" in refused()
    answers_table(file, right[1:7])
    assert "no picture for 2 of the 8 pairs to measure: '0', '7'; add a row" in refused()
    answers_table(file, [*right, right[3]])
    assert "2 pictures for '3' and 1 for '0'; give each id as many" in refused()
    answers_table(file, [*right[:7], ("7", png(8, 9))])
    assert "row '7' cannot be used: its picture has 8 x 9 pixels" in refused()
    assert "docs/training.md" in refused()
    answers_table(file, [*right[:7], ("7", b"")])
    assert "row '7' cannot be used: its picture is empty" in refused()
    pq.write_table(pa.table({"id": ["0"], "image": [b""]}), file)
    assert "needs the columns id and picture" in refused()
    answers_table(file, right)
    for name in ("other", *NAMES):
        assert f"the report has a column {name!r}; choose another name" in refused(name)
    assert "there is no" in refused(of=tmp_path / "missing.parquet")
    for ids in ([None] * 8, ["0"] * 8):
        rows = pq.read_table(pairs).to_pylist()
        changed = [row | {"id": one} for row, one in zip(rows, ids, strict=True)]
        pq.write_table(pa.Table.from_pylist(changed), tmp_path / "pairs.parquet")
        assert "another one in each row" in refused(of=tmp_path / "pairs.parquet")
    rows[0]["speech2face"] = b""
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    answers_table(file, right[1:])
    answers = read_answers([("mine", file)], tmp_path / "pairs.parquet")
    assert answers["mine"].keys() == set("1234567"), "what is not compared needs no answer"


@pytest.mark.parametrize("given", ["mine.parquet", "=mine.parquet", "mine=", "a|b=mine.parquet"])
def test_answers_are_named(given: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command.main(["--data", ".", "--networks", ".", "--out", ".", "--answers", given])
    assert "is not NAME=FILE.parquet" in capsys.readouterr().err


def test_answers_are_refused_before_anything_is_measured(
    tiny_pipeline: Voice2FacePipeline, tables: dict[str, str], tmp_path: Path
) -> None:
    checkpoint = tiny_pipeline.save_pretrained(tmp_path / "tiny")
    data, nothing = Path(tables["faces-0"]).parent, tmp_path / "no networks"
    arguments = ["--checkpoint", checkpoint, "--data", data, "--networks", nothing]
    arguments += ["--out", tmp_path, "--answers", f"mine={tmp_path / 'missing.parquet'}"]
    with pytest.raises(SystemExit, match=r"missing\.parquet cannot be read"):
        command.main(list(map(str, arguments)))
