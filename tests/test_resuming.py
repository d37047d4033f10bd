"""Runs go on as they were begun, or not at all."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import shorten_evaluation, tiny_components
from voice2face.errors import SettingError
from voice2face.training import __main__ as command
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.options import begun_with
from voice2face.training.resuming import STATE, refuse_other_options

SMALL = ["--block-channels", 16, 32, "--cross-attention-dim", 16, "--batch-size", 4]
SCHEDULE = "scheduler/scheduler_config.json"


def run(*arguments: object) -> None:
    command.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage 1 writes."""
    folder = tmp_path_factory.mktemp("encoders")
    for name in ("speech_encoder", "face_encoder", "face_decoder"):
        tiny_components()[name].save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def stage_two(
    tables: dict[str, str], encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[object], Path]:
    """The command of a run that predicts velocities, and what it wrote, in two steps."""
    out = tmp_path_factory.mktemp("begun") / "two"
    line = ["diffusion", "--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    line += ["--encoders", encoders, "--out", out, *SMALL]
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_evaluation(monkeypatch)
        run(*line, "--max-steps", 2, "--prediction-type", "v_prediction")
    return line, out


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ([], "--prediction-type was v_prediction"),
        (["--beta", 0.5], "--beta was 0.01"),
        (["--lognormal", 0.5], "--lognormal was 0.0"),
        (["--heard-attributes"], "--heard-attributes was not given"),
        (["--block-channels", 32, 64], "--block-channels was 16 32"),
        (["--limit", 7], "--limit was not given; the tables held other rows"),
    ],
)
def test_a_run_does_not_go_on_with_other_options(
    more: list[object], complaint: str, stage_two: tuple[list[object], Path]
) -> None:
    line, out = stage_two
    said = more and ["--prediction-type", "v_prediction"]
    schedule, prior = (out / SCHEDULE).read_text(), (out / "face_prior/config.json").read_text()
    with pytest.raises(SystemExit, match=complaint):
        run(*line, "--resume", "--max-steps", 3, *said, *more)
    assert (out / SCHEDULE).read_text() == schedule
    assert (out / "face_prior/config.json").read_text() == prior


@pytest.mark.usefixtures("quick_evaluation")
def test_a_run_whose_budget_is_spent_says_so_and_goes_on_with_a_larger_one(
    stage_two: tuple[list[object], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    line, out = stage_two
    monkeypatch.chdir(out.parent)
    resumed = [*line, "--resume", "--prediction-type", "v_prediction", "--out", out.name]
    with caplog.at_level("WARNING"):
        run(*resumed, "--max-steps", 2, "--cooldown", 0.5)
    assert "the budget of this run is spent" in caplog.text
    assert "--max-steps over 2 (it is 2)" in caplog.text
    caplog.clear()
    run(*resumed, "--max-steps", 3, "--time-budget", 1e6)
    assert "is spent" not in caplog.text
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 3


def test_the_same_rows_may_lie_elsewhere_and_older_states_go_on(
    tables: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(Path(tables["pairs-0"]).read_bytes())
    data = {"faces": None, "voices": None, "limit": None}
    before, after = (
        begun_with(Namespace(pairs=[str(file)], **data, time_budget=budget, encoders=Path("one")))
        for file, budget in ((tables["pairs-0"], 1.0), (moved, 2.0))
    )
    state = tmp_path / STATE
    refuse_other_options(state, after)
    save_file({"a": torch.zeros(1)}, state, {"begun_with": json.dumps(before)})
    refuse_other_options(state, after)
    with pytest.raises(SettingError, match=r"--encoders was .*one"):
        refuse_other_options(state, after | {"options": {"encoders": "two"}})
    save_file({"a": torch.zeros(1)}, state, {"progress": "{}"})
    with caplog.at_level("WARNING"):
        refuse_other_options(state, after)
    assert "of an older version" in caplog.text


def loop_of(width: int, out: Path) -> TrainingLoop:
    network = torch.nn.Linear(width, 1)
    options = LoopOptions(out=out, resume=True)
    return TrainingLoop(network, torch.optim.AdamW(network.parameters()), options)


def test_a_state_that_does_not_fit_or_is_damaged_is_named(tmp_path: Path) -> None:
    state = tmp_path / STATE
    loop_of(2, tmp_path).save_state()
    loop_of(2, tmp_path)
    with pytest.raises(SettingError, match=rf"{STATE} cannot be gone on from.*size mismatch"):
        loop_of(3, tmp_path)
    tensors = load_file(state)
    save_file(tensors, state)
    with pytest.raises(SettingError, match="begin anew, without --resume"):
        loop_of(2, tmp_path)
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(SettingError, match=f"{STATE} cannot be gone on from"):
        loop_of(2, tmp_path)
    with pytest.raises(SettingError, match=f"{STATE} cannot be gone on from"):
        refuse_other_options(state, {})


def test_options_of_a_run_are_noted_in_its_state(stage_two: tuple[list[object], Path]) -> None:
    with safe_open(stage_two[1] / STATE, "pt") as file:
        noted = json.loads(file.metadata()["begun_with"])
    assert noted["options"]["prediction_type"] == "v_prediction"
    assert len(noted["tables"]) == 2


@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["anew", "resumed"])
def test_a_stage_does_not_write_over_another_one(
    more: list[object], tables: dict[str, str], stage_two: tuple[list[object], Path]
) -> None:
    """Among others its note of what it learnt with, by which a release tells what fits."""
    out = stage_two[1]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    weights = ["--perceptual-weights", tables["squeezenet1_0"]]
    tables_of = ["--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    with pytest.raises(SystemExit, match="is the output folder of diffusion"):
        run("collaborative", *tables_of, *weights, "--out", out, "--max-steps", 1, *more)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_that_was_to_go_on_says_where_it_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a folder that is misspelt, say."""
    with caplog.at_level("INFO"):
        refuse_other_options(tmp_path / STATE, {})
    assert "to go on from: the run begins" in caplog.text


def test_the_log_of_a_run_that_was_killed_tells_each_step_once(tmp_path: Path) -> None:
    """Steps after the saved state are done again; the row that was being written is cut off."""
    network = torch.nn.Linear(2, 1)

    def loop(**options: Any) -> TrainingLoop:
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        return TrainingLoop(network, optimizer, LoopOptions(tmp_path, log_every=2, **options))

    def step(*_: object) -> dict[str, torch.Tensor]:
        return {"loss": network(torch.ones(1, 2)).square().mean()}

    loop(max_steps=4).run(step, lambda _: {"loss": 1.0})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 0.1}\n{"step": 7, "held_out_loss": 0.9}\n{"step": 8, "el')
    loop(max_steps=8, resume=True).run(step, lambda _: {"loss": 1.0})
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    assert [row["held_out_loss"] for row in rows if "loss" not in row] == [1.0, 0.9, 1.0]
