"""Numbers that no stage of the training can do anything with are refused before it reads a row."""

from __future__ import annotations

import math
from argparse import Action, ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import tiny_components
from voice2face.training import __main__ as command


def options_of(stage: str) -> list[Action]:
    """The options of a stage that are followed by numbers."""
    parser = ArgumentParser()
    module = command.MODULES.get(stage, stage)
    import_module(f"voice2face.training.{module}").add_arguments(parser)
    return [action for action in parser._actions if action.type not in (None, Path)]


def refused(stage: str, *words: object) -> None:
    with pytest.raises(SystemExit):
        command.main([stage, *map(str, words)])


@pytest.mark.parametrize("stage", command.STAGES)
def test_every_number_has_a_range_and_the_default_lies_in_it(
    stage: str, capsys: pytest.CaptureFixture
) -> None:
    for action in options_of(stage):
        option = action.option_strings[0]
        assert action.type not in (int, float), f"{option} takes any number"
        for nothing in (-1, "nan", "many"):
            refused(stage, option, nothing)
            assert f"argument {option}: give a" in capsys.readouterr().err
        for default in action.default if isinstance(action.default, list) else [action.default]:
            read = default if default is None else action.type(str(default))
            assert (read, type(read)) == (default, type(default)), option


@pytest.mark.parametrize(
    ("stage", "option", "number"),
    [
        *(("collaborative", "--image-size", size) for size in (0, 100, 200, 2048)),
        *(("collaborative", option, 0) for option in ("--batch-size", "--latent-channels")),
        *(("decoder", option, 0) for option in ("--batch-size", "--image-size", "--time-budget")),
        *(("speaker", "--limit", rows) for rows in (0, 1)),
        *(("diffusion", option, 0) for option in ("--max-steps", "--prior-faces")),
        *(("diffusion", option, 1.5) for option in ("--dropout", "--cooldown", "--beta")),
        ("bottom", "--block-channels", 0),
        ("upper", "--attributes-emphasis", 11),
        *(("distillation", option, 0) for option in ("--portraits", "--steps", "--rank")),
        ("distillation", "--whole-portraits", 1),
        ("distillation", "--teacher-steps", 1001),
        ("distillation", "--face-weight", math.inf),
        ("face-check", "--portraits", 1),
        ("face-check", "--held-out-portraits", 10),
        ("face-check", "--photographs", 4),
        ("face-check", "--width", 12),
        ("face-check", "--bar", 0.8),
        ("release", "--output-size", 0),
        ("retriever", "--entries", 0),
    ],
)
def test_numbers_that_a_stage_cannot_do_anything_with_are_refused(
    stage: str, option: str, number: float, capsys: pytest.CaptureFixture
) -> None:
    refused(stage, option, number)
    assert f"argument {option}: give a" in capsys.readouterr().err


def test_widths_that_cannot_be_normalised_are_refused(
    tables: dict[str, str], tmp_path: Path
) -> None:
    for name in ("speech_encoder", "face_encoder", "face_decoder"):
        tiny_components()[name].save_pretrained(tmp_path / name)
    line = ["diffusion", "--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    line += ["--encoders", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="multiples of 32"):
        command.main([*line, "--block-channels", "64", "100"])
    assert not (tmp_path / "out").exists()
