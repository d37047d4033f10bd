"""What the benchmarks refuse, in a line and before they measure anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import benchmarks.__main__ as benchmarks
from benchmarks import comparisons, parts


def refused(
    run: Callable[[list[str]], None], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """The last line that a command says where it ends by refusing its arguments."""
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert not told.out
    return told.err.splitlines()[-1]


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object, **__: object) -> None:
        pytest.fail("this was to be refused")

    monkeypatch.setattr(benchmarks, "measure_start", measured)
    monkeypatch.setattr(benchmarks, "compare_presets", measured)
    monkeypatch.setattr(parts, "parts_of", measured)
    monkeypatch.setattr(comparisons, "print_comparisons", measured)


@pytest.mark.parametrize(
    ("run", "arguments", "reason"),
    [
        (benchmarks.main, ["--repeats", "0"], "--repeats: give a whole number from 1 to"),
        (benchmarks.main, ["--batch", "1025"], "--batch: give a whole number from 1 to 1024"),
        (benchmarks.main, ["--checkpoint", "./nowhere"], "nowhere"),
        (parts.main, ["--repeats", "0"], "--repeats: give a whole number from 1 to"),
        (parts.main, ["--device", "nowhere"], "'nowhere' is no device"),
        (comparisons.main, ["--repeats", "-1"], "--repeats: give a whole number from 1 to"),
        (comparisons.main, ["--device", "nowhere"], "'nowhere' is no device"),
    ],
)
@pytest.mark.usefixtures("nothing_is_measured")
def test_arguments_that_cannot_be_measured_are_refused_first(
    run: Callable[[list[str]], None],
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reason in refused(run, arguments, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there, CUDA graphs are what is measured")
@pytest.mark.usefixtures("nothing_is_measured")
def test_what_cannot_be_compiled_is_refused_first(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", checkpoint, "--compile", "cudagraphs"]
    assert "CUDA graphs are of CUDA" in refused(benchmarks.main, arguments, capsys)


def test_networks_of_the_other_method_are_not_called_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from benchmarks import onnx

    (tmp_path / "sampling.json").write_text(json.dumps({"method": "fine_portraitist"}))
    line = refused(onnx.main, [str(tmp_path)], capsys)
    assert "holds networks of the method fine_portraitist" in line
    (tmp_path / "sampling.json").unlink()
    for option in ("--threads", "--turns", "--seconds"):
        assert f"{option}: give a" in refused(onnx.main, [str(tmp_path), option, "0"], capsys)
