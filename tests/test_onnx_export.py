from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile as sf
import torch
from onnxruntime import InferenceSession
from PIL import Image

from tests.conftest import tiny_components, tiny_portraitist, tiny_update, tiny_updates
from voice2face import Voice2FacePipeline
from voice2face.cli import main
from voice2face.errors import ExportError, OutputError
from voice2face.methods.guided_sampling import noise_scale
from voice2face.models.face_retriever import FaceRetriever
from voice2face.onnx.export import SAMPLING_FILE, example_of, export_onnx, write_network
from voice2face.picture_files import SYNTHETIC_SOURCE
from voice2face.sampling import Prediction, ddim, split_prediction, trailing_timesteps
from voice2face.settings import DEFAULT_VARIETY
from voice2face.watermark import detect

EXAMPLE = Path(__file__).parent.parent / "examples" / "onnx_portrait.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "networks"
    assert main(["export-onnx", "--to", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def networks(exported: Path):
    specification = importlib.util.spec_from_file_location("onnx_portrait", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.Networks(str(exported))


def test_the_same_recording_and_noise_give_the_same_picture(
    pipeline: Voice2FacePipeline, networks, female_speech: Path
) -> None:
    speech = networks.listen(str(female_speech))
    heard = pipeline.listen(female_speech).embedding.numpy()
    np.testing.assert_allclose(speech, heard, atol=1e-5)

    # what a pipeline draws from a seed: first the quality to ask for, then the noise
    generator = torch.Generator().manual_seed(9)
    quality = pipeline.method.denoiser.good_portraits([generator], DEFAULT_VARIETY)[0].numpy()
    noise = torch.randn(networks.facts["latent_shape"], generator=generator).numpy()
    noise *= noise_scale(DEFAULT_VARIETY)
    guided = {"num_inference_steps": 5, "sampler": "ddim", "guidance_every": 1}
    assert same(
        networks.decode(networks.draw(speech, noise, quality, steps=5)),
        pipeline(female_speech, seed=9, watermark=False, **guided).images[0],
    )
    assert networks.facts["distilled_steps"] == 4
    assert same(
        networks.decode(networks.draw(speech, noise, quality)),
        pipeline(female_speech, seed=9, watermark=False, preset="fast").images[0],
    )


def test_the_same_latents_are_drawn_again(
    pipeline: Voice2FacePipeline, networks, female_speech: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, *networks.facts["latent_shape"], generator=generator)
    portraits = pipeline(female_speech, seed=1, num_images=4, output_type="latent")
    latents = torch.cat([noise, portraits.float()])
    check = pipeline.method.face_check
    least = check.config.least_confidence
    refused = [row for row, sure in enumerate(check.confidences(latents)) if sure < least]
    assert 0 < len(refused) < len(latents)
    found = [networks.confidence(latent) for latent in latents.numpy()]
    np.testing.assert_allclose(found, check.confidences(latents), atol=1e-3)
    assert networks.least_confidence == least
    assert [row for row, sure in enumerate(found) if sure < least] == refused
    without = copy.copy(networks)
    without.face_check = None
    assert all(without.confidence(latents[row].numpy()) == np.inf for row in refused)


def same(found: np.ndarray, expected: Image.Image) -> bool:
    difference = np.abs(found.astype(int) - np.asarray(expected))
    return difference.max() <= 2 and difference.mean() < 0.05


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_example_takes_the_steps_of_the_package(networks, prediction_type: str) -> None:
    class Half:
        def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            share = np.where(inputs["speech_kept"], 0.5, 0.25)[:, None, None, None]
            return [(inputs["latents"] * share).astype(np.float32)]

    example = copy.copy(networks)
    example.denoiser = Half()
    example.facts = networks.facts | {"prediction_type": prediction_type}
    noise = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = example.draw(np.zeros(4), noise.numpy(), np.zeros(6), steps=7, guidance=3.0)
    alphas = networks.facts["alphas_cumprod"]

    def denoise(latents: torch.Tensor, timestep: int) -> Prediction:
        output = 0.25 * latents + 3.0 * 0.25 * latents
        return split_prediction(output, latents, alphas[timestep], prediction_type)

    expected = ddim(denoise, noise, alphas, trailing_timesteps(7, len(alphas)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_networks_take_any_batch_and_stand_alone(exported: Path) -> None:
    files = sorted(path.name for path in exported.iterdir())
    networks = ("denoiser", "face_check", "face_decoder", "few_step_denoiser", "speech_encoder")
    names = [f"{name}.onnx" for name in networks]
    assert files == ["README.md", *names[:4], "sampling.json", names[4]]
    for name in names:
        network = onnx.load(exported / name)
        onnx.checker.check_model(network)
        assert not any(tensor.external_data for tensor in network.graph.initializer)
        for tensor in (*network.graph.input, *network.graph.output):
            assert tensor.type.tensor_type.shape.dim[0].dim_param, f"{name}: {tensor.name}"


def test_the_example_draws_a_portrait_without_pytorch(
    exported: Path, female_speech: Path, tmp_path: Path
) -> None:
    code = (
        "import runpy, sys; sys.modules.update(torch=None, diffusers=None, torchaudio=None); "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    picture = tmp_path / "face.png"
    command = [sys.executable, "-c", code, EXAMPLE, exported, female_speech, picture]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLE.parent.parent)
    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image:
        assert image.size == (256, 256)
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]
        assert np.asarray(image).std() > 25
        assert detect(image).answer == "yes"


def test_the_example_says_what_it_cannot_use_in_a_line(
    exported: Path, female_speech: Path, tmp_path: Path
) -> None:
    short, missing = tmp_path / "short.wav", tmp_path / "missing"
    sf.write(short, 0.3 * np.sin(np.arange(4_000) / 20), 16_000)
    for recording, picture, reason in (
        (short, "face.png", r".*of speech.*"),
        (missing, "face.png", r"\S+missing does not exist; .*"),
        (female_speech, missing / "face.png", r".*missing.*"),
    ):
        done = subprocess.run(
            [sys.executable, EXAMPLE, exported, recording, picture],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert re.fullmatch(reason + "\n", done.stderr), done.stderr


def test_the_benchmark_prints_a_table(exported: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.onnx",
            exported,
            "--turns",
            "1",
            "--seconds",
            "0.01",
            "--threads",
            "1",
        ],
        capture_output=True,
        text=True,
        cwd=EXAMPLE.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \(([\d.]+)(?:, (\S+))?\) \|", done.stdout)
    assert len(rows) == 4
    for in_torch, in_onnxruntime, ratio, off in rows:
        assert float(ratio) == pytest.approx(
            float(in_torch) / float(in_onnxruntime), rel=0.02, abs=0.02
        )
        assert float(off or 0.0) < 1e-4


def test_both_denoisers_of_fine_portraitist(tmp_path: Path) -> None:
    pipe = Voice2FacePipeline(**tiny_portraitist(), output_size=32, name="tiny")
    asked = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    pipe.method.upper_denoiser.register_to_config(good_portrait=asked)
    folder = export_onnx(pipe, tmp_path / "networks")
    for name in ("bottom_denoiser", "upper_denoiser"):
        denoiser = getattr(pipe.method, name)
        inputs = example_of(denoiser)
        told = denoiser.condition(inputs["speech"], inputs["quality"], inputs["speech_kept"])
        with torch.no_grad():
            expected = denoiser(
                inputs["latents"], inputs["timesteps"], told._replace(beside=inputs["beside"])
            )
        session = InferenceSession(folder / f"{name}.onnx")
        (found,) = session.run(None, {key: rows.numpy() for key, rows in inputs.items()})
        np.testing.assert_allclose(found, expected, atol=1e-4)
    entries = FaceRetriever.load(folder / "retriever").entries
    assert entries.ids == pipe.retriever.entries.ids
    facts = json.loads((folder / "sampling.json").read_text())
    assert facts["method"] == "fine_portraitist"
    assert facts["good_portrait"] == asked, "as the pipeline asks, not as the bottom denoiser would"
    assert facts["alphas_cumprod"] == pytest.approx(pipe.scheduler.alphas_cumprod.tolist())


class SpoiltByExport(torch.nn.Module):
    """Answers otherwise while it is exported."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents + (1.0 if torch.compiler.is_exporting() else 0.0)


def test_a_network_that_comes_out_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    with pytest.raises(ExportError, match=r"network.onnx differs .* by 1, more than"):
        write_network(path, SpoiltByExport(), {"latents": torch.zeros(3, 4)}, ["images"])


@pytest.mark.parametrize(
    ("second", "difference"), [(torch.full((3,), torch.nan), "nan"), (torch.zeros(3, 1), "inf")]
)
def test_every_output_is_compared(
    second: torch.Tensor, difference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self, *_: object) -> list[np.ndarray]:
            return [np.zeros((3, 4), np.float32), second.numpy()]

    class Two(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return latents, latents[:, 0]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    with pytest.raises(ExportError, match=rf"network.onnx differs .* by {difference}, more than"):
        write_network(
            tmp_path / "network.onnx", Two(), {"latents": torch.zeros(3, 4)}, ["images", "score"]
        )


def test_nothing_is_left_of_a_failed_export(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("an operator is not known")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"speech_encoder.onnx .* an operator is not known"):
        export_onnx(tiny_pipeline, tmp_path / "networks")
    assert not list(tmp_path.iterdir())


def test_other_files_and_checkpoints_are_never_replaced(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "voice2face.onnx.export.write_network", lambda *_: pytest.fail("began to write")
    )
    assert main(["export-onnx", checkpoint, "--to", checkpoint]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert Voice2FacePipeline.from_pretrained(checkpoint, device="cpu").name == "tiny"


def tiny_distilled() -> Voice2FacePipeline:
    components = tiny_components()
    update = tiny_update(components["denoiser"])
    return Voice2FacePipeline(**components, few_step_update=update, output_size=48)


def tiny_distilled_portraitist() -> Voice2FacePipeline:
    return Voice2FacePipeline(**tiny_portraitist(), **tiny_updates(), output_size=48)


@pytest.mark.parametrize("pipeline_of", [tiny_distilled, tiny_distilled_portraitist])
@pytest.mark.parametrize("name", ["notes.txt", "other.onnx"])
def test_only_what_an_export_wrote_is_replaced(
    name: str,
    pipeline_of: Callable[[], Voice2FacePipeline],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "voice2face.onnx.export.write_network", lambda path, *_: path.write_bytes(b"")
    )
    tiny_pipeline = pipeline_of().to("cpu")
    folder = export_onnx(tiny_pipeline, tmp_path / "networks")
    assert any(path.name.startswith("few_step_") for path in folder.iterdir())
    export_onnx(tiny_pipeline, folder)
    (folder / name).write_text("mine")
    with pytest.raises(OutputError, match=f"holds other files, {name}"):
        export_onnx(tiny_pipeline, folder)
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    (folder / SAMPLING_FILE).write_text("{}")
    with pytest.raises(OutputError, match="holds other files"):
        export_onnx(tiny_pipeline, folder)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_the_error_names_the_extra(
    package: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export-onnx", checkpoint, "--to", str(tmp_path / "networks")]) == 1
    assert "pip install 'voice2face[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "networks").exists()
