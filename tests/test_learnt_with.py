"""A checkpoint is made of parts that learnt together, and says where sex and age mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import tiny_components, tiny_update
from voice2face import Voice2FacePipeline
from voice2face.data.tables import load_voices
from voice2face.training import __main__ as command
from voice2face.training.learnt_with import (
    LEARNT_WITH,
    labelled_attributes_of,
    note_learnt_with,
    unlabelled_attributes,
    weights_fingerprint,
)


def run(*arguments: object) -> None:
    command.main(list(map(str, arguments)))


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Path]:
    """Folders of stages that learnt together, by the options of ``release``."""
    parts = tiny_components()
    shares = {
        "collaborative": ("speech_encoder", "face_encoder", "face_decoder"),
        "decoder": ("face_decoder",),
        "diffusion": ("face_prior", "denoiser", "scheduler"),
    }
    folders = {stage: tmp_path / stage for stage in (*shares, "distillation")}
    for stage, names in shares.items():
        for name in names:
            parts[name].save_pretrained(folders[stage] / name)
    tiny_update(parts["denoiser"]).save_pretrained(folders["distillation"] / "few_step_update")
    encoders = {name: parts[name] for name in ("face_encoder", "speech_encoder")}
    note_learnt_with(folders["collaborative"], {}, ["sex", "age"])
    note_learnt_with(folders["decoder"], {"face_encoder": parts["face_encoder"]})
    note_learnt_with(folders["diffusion"], encoders)
    note_learnt_with(folders["distillation"], {"denoiser": parts["denoiser"]})
    return folders


def release(stages: dict[str, Path], to: Path) -> None:
    given = [word for stage, folder in stages.items() for word in (f"--{stage}", folder)]
    run("release", *given, "--to", to)


def change(folder: Path, name: str, only: str = "") -> None:
    """Make other weights of a network that a stage wrote."""
    network = tiny_components()[name]
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.startswith(only):
                parameter.add_(0.1)
    network.save_pretrained(folder / name)


@pytest.mark.parametrize(
    ("stage", "name", "complaint"),
    [
        ("collaborative", "speech_encoder", "--diffusion .* another speech_encoder"),
        ("collaborative", "face_encoder", "--decoder .* another face_encoder"),
        ("diffusion", "denoiser", "--distillation .* another denoiser"),
    ],
)
def test_parts_that_did_not_learn_together_are_not_released(
    stage: str, name: str, complaint: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    change(stages[stage], name)
    with pytest.raises(SystemExit, match=complaint):
        release(stages, tmp_path / "released")
    assert not (tmp_path / "released").exists()


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("diffusion", "diffusion holds no face_decoder$"),
        ("nothing", "there is no folder .*nothing$"),
    ],
)
def test_a_part_is_missing_where_it_was_looked_for(
    folder: str, complaint: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=complaint):
        release(stages | {"decoder": tmp_path / folder}, tmp_path / "released")


@pytest.mark.parametrize("others", ["stages", "released"])
def test_parts_of_a_checkpoint_go_with_its_own_networks_alone(
    others: str, stages: dict[str, Path], tmp_path: Path
) -> None:
    released = tmp_path / "released"
    release(stages, released)
    tuned = stages if others == "stages" else {"collaborative": released}
    tuned = tuned | {"diffusion": stages["diffusion"], "distillation": released}
    release(tuned, tmp_path / "again")
    change(stages["diffusion"], "denoiser")
    with pytest.raises(SystemExit, match=r"--distillation .* another denoiser"):
        release(tuned, tmp_path / "mixed")
    change(stages["collaborative"], "speech_encoder")
    heard_otherwise = {"collaborative": stages["collaborative"], "diffusion": released}
    with pytest.raises(SystemExit, match=r"--diffusion .* another speech_encoder"):
        release(heard_otherwise, tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_what_no_part_depends_on_may_change(
    stages: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(stages["collaborative"], "speech_encoder", only="sex_head")
    change(stages["decoder"], "face_decoder")
    with caplog.at_level("WARNING"):
        release(stages, tmp_path / "released")
    assert "which networks it learnt with" not in caplog.text
    released = tmp_path / "released"
    again = dict.fromkeys(stages, released) | {"diffusion": stages["diffusion"]}
    (released / "README.md").write_text("# Mine")
    with caplog.at_level("WARNING"):
        release(again, released)
    assert "does not say which networks it learnt with" not in caplog.text, "of one checkpoint"
    with caplog.at_level("WARNING"):
        release(stages | {"distillation": released}, tmp_path / "again")
    assert "does not say which networks it learnt with" not in caplog.text, "its own"
    (stages["distillation"] / LEARNT_WITH).unlink()
    with caplog.at_level("WARNING"):
        release(stages, tmp_path / "again")
    assert "--distillation" in caplog.text
    assert caplog.text.count("does not say which networks it learnt with") == 1
    assert (released / "README.md").read_bytes() == b"# Mine"
    half = Voice2FacePipeline.from_pretrained(released, device="cpu").face_encoder
    noted = json.loads((stages["decoder"] / LEARNT_WITH).read_text())["networks"]
    assert weights_fingerprint(half) == noted["face_encoder"], "checkpoints are in half precision"


def test_a_released_checkpoint_says_that_no_voice_was_labelled(
    stages: dict[str, Path],
    tables: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, released = stages["collaborative"], tmp_path / "released"
    assert unlabelled_attributes(one) == []
    table = pq.read_table(tables["pairs-0"]).drop_columns("age")
    pq.write_table(table, tmp_path / "pairs.parquet")
    voices = load_voices(str(tmp_path / "pairs.parquet"), "train", speaker_column="person")
    with caplog.at_level("WARNING"):
        note_learnt_with(one, {}, labelled_attributes_of(voices))
    assert "no voice is labelled with age" in caplog.text
    said = "No voice that it learnt from was labelled with age"
    for _ in range(2):
        release(stages, released)
        card = (released / "README.md").read_text()
        assert card.startswith("# released\n")
        assert card.count(said) == 1
    (one / LEARNT_WITH).unlink()
    release(stages, released)
    assert said not in (released / "README.md").read_text()


@pytest.mark.parametrize("stage", ["diffusion", "bottom"])
def test_a_denoiser_is_not_told_what_nobody_labelled(
    stage: str,
    tables: dict[str, str],
    stages: dict[str, Path],
    tmp_path: Path,
) -> None:
    table = pq.read_table(tables["pairs-0"]).drop_columns(["gender", "age"])
    pq.write_table(table, tmp_path / "pairs.parquet")
    data = ["--pairs", tmp_path / "pairs.parquet", "--encoders", stages["collaborative"]]
    index = tmp_path / "index"
    run("retriever", *data, "--out", index, "--entries", 6, "--licence", "CC0-1.0")
    assert set(json.loads((index / LEARNT_WITH).read_text())["networks"]) == {
        *("face_encoder", "speech_encoder"),
    }
    more = ["--retriever", index] if stage == "bottom" else []
    with pytest.raises(SystemExit, match="no face is labelled with both: add columns gender"):
        run(stage, *data, *more, "--out", tmp_path / "out", "--heard-attributes")
