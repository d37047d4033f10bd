"""The main job: the embedded weights on speech."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from tests.conftest import preset_of
from voice2face import Voice2FacePipeline
from voice2face.checkpoints.files import shared_file, verify
from voice2face.checkpoints.manifest import PACKAGED_WEIGHTS, manifest
from voice2face.settings import PRESETS

ROOT = Path(__file__).parent.parent
LARGEST_BYTES = 90_000_000


def skin_like(image: Image.Image) -> float:
    """Share of the middle of the picture whose red is above green and green above blue."""
    red, green, blue = np.asarray(image)[80:200, 80:176].reshape(-1, 3).T.astype(int)
    return float(((red > green) & (green >= blue)).mean())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_voice_becomes_a_portrait(
    pipeline: Voice2FacePipeline, female_speech: Path, preset: str
) -> None:
    portrait = pipeline(female_speech, seed=9, preset=preset)[0]
    assert portrait.image.size == (256, 256)
    pixels = np.asarray(portrait.image).astype(float)
    assert pixels.std() > 25
    assert skin_like(portrait.image) > 0.6
    left, right = pixels[:, :128].mean(2), pixels[:, 128:][:, ::-1].mean(2)
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.3, "faces are symmetric"


@pytest.mark.parametrize(
    ("checkpoint", "guidance"), [("scldm-192", 1.5), ("fine-portraitist-192", 2.0)]
)
def test_four_distilled_steps_draw_what_many_guided_ones_draw(
    checkpoint: str, guidance: float, female_speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Voice2FacePipeline.from_pretrained(checkpoint, device="cpu")
    # or one preset alone might draw a portrait again
    monkeypatch.setattr(pipe.method, "face_check", None)
    fast, best, other = (
        pipe(female_speech, seed=seed, num_images=4, preset=preset, output_type="latent")
        for preset, seed in (("fast", 20), ("best", 20), ("best", 40))
    )
    assert preset_of(pipe.settings("fast")) == PRESETS["fast"]._replace(guidance_scale=guidance)

    def likeness(one: torch.Tensor, another: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([one.flatten(), another.flatten()]))[0, 1])

    assert likeness(fast, best) > 0.95
    assert likeness(fast, other) < 0.8


def test_the_voices_sex_is_heard(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    assert pipeline.listen(female_speech).evidence.male_probability < 0.2
    assert pipeline.listen(male_speech).evidence.male_probability > 0.8


def test_the_voice_changes_all_portraits_the_same_way(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    settings = {"num_images": 16, "num_inference_steps": 10, "output_type": "latent"}

    def change(seed: int) -> torch.Tensor:
        women, men = (
            pipeline(speech, seed=seed, **settings) for speech in (female_speech, male_speech)
        )
        return (women - men).flatten(1)

    one, other = change(0), change(100)
    means = torch.stack([one.mean(0), other.mean(0)])
    assert torch.nn.functional.cosine_similarity(*means, dim=0) > 0.7
    # by chance the mean of sixteen changes would have a sixteenth of their power
    assert one.mean(0).square().sum() > 0.15 * one.square().sum(1).mean()


def test_same_seed_same_bytes_and_alone_as_in_a_batch(
    pipeline: Voice2FacePipeline, male_speech: Path
) -> None:
    batch = pipeline(male_speech, num_images=3, seed=5, num_inference_steps=5)
    again = pipeline(male_speech, num_images=3, seed=5, num_inference_steps=5)
    assert [i.tobytes() for i in batch.images] == [i.tobytes() for i in again.images]
    alone = pipeline(male_speech, seed=6, num_inference_steps=5)
    difference = np.asarray(alone.images[0]).astype(int) - np.asarray(batch.images[1])
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("steps", [1, 3, 30])
def test_any_number_of_steps_gives_a_finite_latent(
    pipeline: Voice2FacePipeline, female_speech: Path, steps: int
) -> None:
    latents = pipeline(
        female_speech,
        seed=0,
        num_inference_steps=steps,
        guidance_scale=1.0,
        output_type="latent",
    )
    assert torch.isfinite(latents).all()
    assert 0.1 < latents.std() < 2.0


def test_manifest_and_files_agree() -> None:
    manifest = json.loads((ROOT / "weights_manifest.json").read_text())
    schema = json.loads((PACKAGED_WEIGHTS / "weights_manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    packaged = PACKAGED_WEIGHTS / "weights_manifest.json"
    assert (ROOT / "weights_manifest.json").read_bytes() == packaged.read_bytes()
    assert manifest["default"] in manifest["checkpoints"]
    total = 0
    for name, entry in manifest["checkpoints"].items():
        folder = PACKAGED_WEIGHTS / name
        verify(folder, entry["files"], again=True)
        present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        shared = {
            file
            for file, facts in entry["files"].items()
            if shared_file(folder, file, facts) is not None
        }
        assert present | shared == set(entry["files"])
        assert not present & shared
        total += sum((folder / file).stat().st_size for file in present)
    assert total < LARGEST_BYTES


def test_git_leaves_line_ends_of_the_weights_alone() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not in a clone")
    card = PACKAGED_WEIGHTS.relative_to(ROOT) / manifest()["default"]
    command = ["git", "check-attr", "text", card / "README.md", card / "model_index.json"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["unset", "unset"]


def test_card_is_valid_and_carries_the_figures() -> None:
    for name, entry in manifest()["checkpoints"].items():
        card = ModelCard.load(PACKAGED_WEIGHTS / name / "README.md")
        assert card.data.license == entry["licence"].lower()
        assert card.data.library_name == "voice2face"
        sections = (
            "Intended use",
            "What a voice cannot tell",
            "Data",
            "Figures",
            "How it was made",
        )
        for section in sections:
            assert f"## {section}" in card.text
        lines = card.text.splitlines()
        assert entry["figures"]
        for figures in entry["figures"].values():
            for measure, value in figures.items():
                rows = [line for line in lines if line.startswith(f"| {measure} |")]
                assert any(f"| {figure_text(value)}" in row for row in rows), (measure, value)


def figure_text(value: float | int | dict[str, float]) -> str:
    if isinstance(value, (float, int)):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    if "people" in value:  # a difference
        return f"{value['value']:+.1%}"
    return f"{value['value']:.1%}" if "cases" in value else f"{value['value']:.3f}"


def test_loading_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert Voice2FacePipeline.from_pretrained(device="cpu").name


def test_wheel_holds_the_weights_and_runs_elsewhere(tmp_path: Path, female_speech: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel], check=True)
    packages = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert packages - {"bin", "__pycache__"} == {"voice2face"}
    assert (site / "voice2face" / "py.typed").is_file()
    page = {path.name for path in (ROOT / "voice2face" / "app" / "page").iterdir()}
    assert page == {path.name for path in (site / "voice2face" / "app" / "page").iterdir()}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import voice2face.cli as c; "
        "assert c.__file__.startswith(sys.argv[1]); sys.exit(c.main(sys.argv[2:]))"
    )
    run = [sys.executable, "-P", "-c", code, str(site), str(female_speech.resolve())]
    done = subprocess.run(
        [*run, "-o", "face.png", "--steps", "2"], cwd=elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with Image.open(elsewhere / "face.png") as image:
        assert image.size == (256, 256)


def test_benchmarks_print_a_table() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--batch", "2", "--repeats", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seconds = [float(x) for x in re.findall(r"(?m)^\| [^|]+ \| (-?[\d.]+) \|", done.stdout)]
    assert len(seconds) == 5 + len(PRESETS)
    assert sum(seconds) < time.monotonic() - began
    ratios = dict(re.findall(r"\| (\w+): .*? \| [\d.]+ \| ([\d.]+) \|", done.stdout))
    assert ratios.keys() == PRESETS.keys()
    assert float(ratios["fast"]) < float(ratios["best"]) == 1.0
    assert "peak memory" in done.stdout


def test_readme_and_ci_run_the_same_test_command() -> None:
    command = "pip install '.[test]' && python -m pytest"
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("preset", "ways"),
    [
        ("fast", ["distilled UNet step"]),
        ("balanced", ["UNet step with guidance", "UNet step that reuses it"]),
    ],
)
def test_the_parts_of_a_portrait_are_timed(preset: str, ways: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parts", "--repeats", "1", "--preset", preset],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"\| ([^|]+) \| (\d+) \| [\d.]+ \| [\d.]+ \|.*\| (\d+)% \|", done.stdout)
    times = {name: int(count) for name, count, _ in rows}
    assert sum(times[way] for way in ways) == PRESETS[preset].num_inference_steps
    assert times["face check"] == 1
    assert 95 <= sum(int(share) for *_, share in rows) <= 105


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_fine_portraitist_draws_near_a_retrieved_face(
    preset: str, female_speech: Path, male_speech: Path
) -> None:
    pipe = Voice2FacePipeline.from_pretrained("fine-portraitist-192", device="cpu")
    for speech in (female_speech, male_speech):
        portrait = pipe(speech, seed=7, preset=preset)[0]
        assert skin_like(portrait.image) > 0.6
        found = portrait.evidence.retrieved[0]
        row = pipe.retriever.rows[found.id]
        assert found.score == pytest.approx(
            float(pipe.retriever.entries.speech[row].float() @ pipe.listen(speech).embedding),
            abs=1e-3,
        )
        assert "FairFace" in pipe.retriever.entries.licences[row]
        with_it, pipe.retriever = pipe.retriever, pipe.retriever.remove([found.id])
        without = pipe(speech, seed=7, preset=preset)[0]
        assert without.evidence.retrieved[0].id != found.id
        assert without.image.tobytes() != portrait.image.tobytes()
        pipe.retriever = with_it
    index = PACKAGED_WEIGHTS / "fine-portraitist-192" / "retriever"
    assert sum(file.stat().st_size for file in index.iterdir()) < 20_000_000
