from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
import soundfile as sf
from fastapi.testclient import TestClient
from nbclient import NotebookClient
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.picture_files import SYNTHETIC_SOURCE

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, check=True
    )


def test_voices_and_faces(tmp_path: Path, female_speech: Path, male_speech: Path) -> None:
    done = run("voices_and_faces.py", female_speech, male_speech, tmp_path / "faces.png")
    assert re.findall("sounds (female|male)", done.stdout) == ["female", "male"]
    with Image.open(tmp_path / "faces.png") as image:
        assert image.size == (8 * 160, 2 * 160)
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]
        waveform = np.asarray(image.crop((0, 0, 160, 160)))
    inked = (waveform < 255).any(2).sum(0)
    assert inked[:10].max() == 0 < inked[10:150].min() < inked.max() / 2


@pytest.mark.parametrize("name", ["voices_and_faces", "folder", "own_faces", "onnx_portrait"])
def refusal(name: str, *arguments: Path | str) -> str:
    """What an example says that ends with exit code 1."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["voices_and_faces", "folder", "own_faces", "onnx_portrait"])
def test_without_arguments_they_say_how_they_are_called(name: str) -> None:
    assert f"python examples/{name}.py" in refusal(f"{name}.py")


def test_the_onnx_example_says_of_which_method_it_is(tmp_path: Path, male_speech: Path) -> None:
    facts = {"method": "fine_portraitist", "checkpoint": "fine-portraitist-192"}
    (tmp_path / "sampling.json").write_text(json.dumps(facts))
    said = refusal("onnx_portrait.py", tmp_path, male_speech, "face.png")
    assert "fine-portraitist-192, of the method fine_portraitist" in said
    assert "voice2face export-onnx scldm-192" in said


def test_the_onnx_example_says_what_writes_its_networks(tmp_path: Path, male_speech: Path) -> None:
    assert refusal("onnx_portrait.py", tmp_path, male_speech, "face.png") == (
        f"{tmp_path / 'sampling.json'} is missing: "
        f"voice2face export-onnx scldm-192 --to {tmp_path}\n"
    )


def test_folder(tmp_path: Path, female_speech: Path) -> None:
    recordings, portraits = tmp_path / "recordings", tmp_path / "portraits"
    recordings.mkdir()
    (recordings / "talk.flac").write_bytes(female_speech.read_bytes())
    (recordings / "broken.wav").write_text("this is no audio")
    done = run("folder.py", recordings, portraits)
    assert "broken.wav" in done.stderr
    assert [path.name for path in portraits.iterdir()] == ["talk.flac.png"]
    with Image.open(portraits / "talk.flac.png") as image:
        assert int(image.info["voice2face:seed"]) >= 0


def test_own_faces(tmp_path: Path, male_speech: Path) -> None:
    done = run("own_faces.py", male_speech, tmp_path / "face.png")
    assert done.stdout.strip() == "Ben: 1.00"
    with Image.open(tmp_path / "face.png") as image:
        retrieved, drawn = np.hsplit(np.asarray(image).astype(int), 2)
    pipe = Voice2FacePipeline.from_pretrained(device="cpu")
    ben = np.asarray(pipe(male_speech, seed=5).images[0]).astype(int)
    assert np.abs(retrieved - ben).max() <= 1
    assert np.abs(drawn - ben).mean() > 2


@pytest.fixture(scope="module")
def service() -> ModuleType:
    specification = importlib.util.spec_from_file_location("service", EXAMPLES / "service.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def encoded(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


@pytest.fixture
def client(service: ModuleType) -> TestClient:
    return TestClient(service.app)


def test_service_answers_with_the_portrait(
    client: TestClient, service: ModuleType, female_speech: Path
) -> None:
    answer = client.post("/portrait?seed=7&steps=3", content=female_speech.read_bytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "7"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.info["voice2face:seed"] == "7"
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]
        expected = service.pipe(female_speech, seed=7, num_inference_steps=3).images[0]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize(
    ("query", "content", "status", "message"),
    [
        ("", b"this is no audio", 422, "not audio that can be decoded"),
        ("", bytes((20 << 20) + 1), 413, "20 MiB"),
        ("", encoded(np.zeros(601 * 4_000), 4_000), 422, "up to 600 s"),
        ("?steps=51", b"x", 422, "less than or equal to 50"),
        ("?seed=-1", b"x", 422, "greater than or equal to 0"),
    ],
)
def test_service_says_what_is_wrong(
    client: TestClient, query: str, content: bytes, status: int, message: str
) -> None:
    answer = client.post(f"/portrait{query}", content=content)
    assert answer.status_code == status
    assert message in answer.text


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """Running a notebook leaves a handler of SIGTERM, which children of later tests inherit."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_restored")
def test_notebook(tmp_path: Path) -> None:
    path = EXAMPLES / "notebook.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "it is kept without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": EXAMPLES}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    pictures = []
    for output in outputs:
        if "image/png" in output.get("data", {}):
            with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) as image:
                pictures.append(image.size)
    one, row, two_rows = (256, 256), (1024, 256), (1024, 512)
    assert pictures == [one, two_rows, one, one, two_rows, row, row, row]
    text = "".join(str(output.get("text", output.get("data"))) for output in outputs)
    assert "sounds like a man's voice" in text
    assert "'text/plain': 'True'" in text, "the same seed made the same pixels"
    assert "answer='yes'" in text
