from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SPEECH, tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline, errors
from voice2face.cli import main
from voice2face.errors import DeviceError
from voice2face.models import FaceRetriever
from voice2face.models.face_entries import EIGHT_BITS
from voice2face.offload import Offload

RECORDINGS = (SPEECH / "female.flac", SPEECH / "male.flac")
WORKER_SECONDS = 120

shared: dict[str, Voice2FacePipeline] = {}


def make(pipe: Voice2FacePipeline, seed: int) -> bytes:
    portraits = pipe(
        RECORDINGS[seed % 2],
        seed=seed,
        num_inference_steps=2 + seed % 2,
        guidance_scale=1.0 + seed % 3,
    )
    return portraits.images[0].tobytes()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_eight_threads_with_twenty_calls_get_the_pictures_made_alone(
    pipeline: Voice2FacePipeline, threads: Callable[[int], None]
) -> None:
    threads(1)
    seeds = range(20)
    alone = [make(pipeline, seed) for seed in seeds]
    assert len(set(alone)) == len(alone)

    def twenty_calls(thread: int) -> list[tuple[int, bytes]]:
        mine = [seeds[(5 * thread + call) % len(seeds)] for call in range(20)]
        return [(seed, make(pipeline, seed)) for seed in mine]

    with ThreadPoolExecutor(8) as pool:
        made = [pair for pairs in pool.map(twenty_calls, range(8)) for pair in pairs]
    assert len(made) == 160
    assert all(picture == alone[seed] for seed, picture in made)


def use_inherited(seed: int) -> bytes:
    return make(shared["pipeline"], seed)


def load_and_use(seed: int) -> bytes:
    return make(Voice2FacePipeline.from_pretrained(device="cpu"), seed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
@pytest.mark.parametrize("work", [use_inherited, load_and_use])
def test_forked_workers_go_on_with_one_thread(
    pipeline: Voice2FacePipeline,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[int], bytes],
) -> None:
    threads(1)
    expected = [make(pipeline, seed) for seed in range(4)]
    threads(2)
    with_two_threads = make(pipeline, 0)
    monkeypatch.setitem(shared, "pipeline", pipeline)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(work, range(4)).get(WORKER_SECONDS) == expected
        assert pool.apply_async(torch.get_num_threads).get(WORKER_SECONDS) == 1
    assert torch.get_num_threads() == 2
    levels = [np.frombuffer(made, np.uint8).astype(int) for made in (with_two_threads, expected[0])]
    assert np.abs(np.subtract(*levels)).max() <= 1


def load_once(thread_count: int) -> None:
    torch.set_num_threads(thread_count)
    shared["pipeline"] = Voice2FacePipeline.from_pretrained(device="cpu")


def test_spawned_workers_load_in_their_initializer(pipeline: Voice2FacePipeline) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, load_once, (torch.get_num_threads(),)) as pool:
        made = pool.map_async(use_inherited, range(3)).get(WORKER_SECONDS)
    assert made == [make(pipeline, seed) for seed in range(3)]


def test_every_error_can_be_pickled() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert errors.RefusedError in kinds
    for kind in kinds:
        error = kind("too large", 413) if kind is errors.RefusedError else kind("too large")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (kind, "too large")
        assert vars(again) == vars(error)


@pytest.mark.parametrize("parts", [tiny_components, tiny_portraitist])
def test_a_pickled_pipeline_makes_the_same_pictures(
    parts: Callable[[], dict], tone: np.ndarray
) -> None:
    components = parts()
    if "retriever" in components:
        entries = components["retriever"].entries
        faces, bottoms = entries.faces.to(EIGHT_BITS), entries.bottoms.to(EIGHT_BITS)
        components["retriever"] = FaceRetriever(entries._replace(faces=faces, bottoms=bottoms))
    pipe = Voice2FacePipeline(**components, output_size=48, name="tiny")
    again = pickle.loads(pickle.dumps(pipe))
    one, other = (
        drawing(tone, 16_000, seed=3, num_inference_steps=2).images[0].tobytes()
        for drawing in (pipe, again)
    )
    assert one == other


@pytest.fixture
def many_recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for k in range(24):
        (folder / f"{k:02}.flac").write_bytes(RECORDINGS[k % 2].read_bytes())
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to a process there")
def test_an_interrupted_folder_holds_whole_pictures_and_can_be_gone_on_with(
    many_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    arguments = [str(many_recordings), "-o", str(out), "--batch-size", "2", "--device", "cpu"]
    arguments += ["--steps", "3", "--seed", "1"]
    # a shell has what it runs in the background ignore Ctrl-C, and programs inherit that
    here = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = subprocess.Popen(
        [sys.executable, "-m", "voice2face", *arguments], stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, here)
    deadline = time.monotonic() + WORKER_SECONDS
    while not list(out.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    _, complaint = command.communicate(timeout=WORKER_SECONDS)
    assert command.returncode == 130
    assert "interrupted, nothing half-written was left" in complaint
    assert "Traceback" not in complaint
    finished = sorted(out.iterdir())
    assert 0 < len(finished) < 24
    for path in finished:
        assert path.suffix == ".png"
        with Image.open(path) as image:
            image.load()
            assert image.size == (256, 256)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{24 - len(finished)} made, {len(finished)} there already, 0 failed" in printed
    assert len(list(out.iterdir())) == 24


def test_an_interrupted_write_leaves_the_older_picture(
    tiny_pipeline: Voice2FacePipeline,
    tone: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portraits = tiny_pipeline(tone, 16_000, num_images=2, num_inference_steps=1)
    face = portraits[0].save(tmp_path / "face.png")
    before = face.read_bytes()

    def interrupt(self: Path, target: Path) -> None:
        assert self.stat().st_size > 0
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        portraits[1].save(face)
    assert list(tmp_path.iterdir()) == [face]
    assert face.read_bytes() == before


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> dict[torch.nn.Module, str]:
    """Where each network was moved to last; nothing is moved, for there may be no GPU."""
    found: dict[torch.nn.Module, str] = {}

    def move(network: torch.nn.Module, device: object, *_: object, **__: object) -> torch.nn.Module:
        found[network] = torch.device(device).type
        return network

    monkeypatch.setattr(torch.nn.Module, "to", move)
    return found


@pytest.fixture
def offloaded(
    places: dict[torch.nn.Module, str], monkeypatch: pytest.MonkeyPatch
) -> Voice2FacePipeline:
    monkeypatch.setattr("voice2face.placed_networks.choose_device", torch.device)
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48)
    pipe.enable_model_cpu_offload("cuda", dtype=torch.float32)
    assert len(places) == 5
    assert set(places.values()) == {"cpu"}
    assert pipe.device.type == "cuda"
    return pipe


def test_offloaded_networks_are_on_the_gpu_for_their_turn_alone(
    offloaded: Voice2FacePipeline,
    places: dict[torch.nn.Module, str],
    tiny_pipeline: Voice2FacePipeline,
    tone: np.ndarray,
) -> None:
    turns = []

    def note_turn(network: torch.nn.Module, _: object) -> None:
        here = {other for other, place in places.items() if place == "cuda"}
        assert network in here
        assert len(here - {offloaded.method.face_prior}) == 1
        turns.append(type(network).__name__)

    for network in places:
        network.register_forward_pre_hook(note_turn)

    def portrait(seed: int) -> bytes:
        return offloaded(tone, 16_000, seed=seed, num_inference_steps=2).images[0].tobytes()

    expected = [
        tiny_pipeline(tone, 16_000, seed=seed, num_inference_steps=2).images[0].tobytes()
        for seed in range(8)
    ]
    assert portrait(0) == expected[0]
    assert turns == ["SpeechEncoder", "FacePrior", "Denoiser", "Denoiser", "FaceDecoder"]
    assert set(places.values()) == {"cpu"}
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(portrait, range(8))) == expected
    list(offloaded.map([(tone, 16_000)] * 3, batch_size=2, num_inference_steps=1, progress=False))
    assert set(places.values()) == {"cpu"}


def test_a_turn_inside_another_leaves_the_outer_ones_networks(
    offloaded: Voice2FacePipeline, places: dict[torch.nn.Module, str], tone: np.ndarray
) -> None:
    def make_another(
        pipe: Voice2FacePipeline, step: int, timestep: int, state: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        pipe(tone, 16_000, num_inference_steps=1)
        assert places[pipe.method.denoiser] == "cuda"
        return state

    offloaded(tone, 16_000, num_inference_steps=2, callback_on_step_end=make_another)
    assert set(places.values()) == {"cpu"}


def test_networks_come_back_after_an_error(
    offloaded: Voice2FacePipeline,
    places: dict[torch.nn.Module, str],
    tone: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(offloaded.method.denoiser, "forward", fail)
    with pytest.raises(DeviceError, match="cuda ran out of memory"):
        offloaded(tone, 16_000, num_inference_steps=1)
    assert set(places.values()) == {"cpu"}


@pytest.mark.parametrize("error", [NotImplementedError, RecursionError, RuntimeError])
def test_other_errors_are_not_called_a_lack_of_memory(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, error: type[RuntimeError]
) -> None:
    def fail(*_: object) -> None:
        raise error("of the callback")

    with pytest.raises(error, match="of the callback"):
        tiny_pipeline(tone, 16_000, num_inference_steps=1, callback_on_step_end=fail)


def test_moving_ends_offloading_and_copies_keep_it(
    offloaded: Voice2FacePipeline, places: dict[torch.nn.Module, str]
) -> None:
    assert isinstance(offloaded._offload, Offload)
    again = pickle.loads(pickle.dumps(offloaded))
    assert again.device.type == "cuda"
    assert again.to("cpu").device.type == "cpu"


def test_offloading_without_a_gpu_is_refused(tiny_pipeline: Voice2FacePipeline) -> None:
    with pytest.raises(DeviceError, match="no GPU"):
        tiny_pipeline.enable_model_cpu_offload("cpu")


def test_float16_gives_nearly_the_same_picture(tone: np.ndarray) -> None:
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48)
    whole = pipe(tone, 16_000, seed=1, num_inference_steps=2)
    assert pipe.half() is pipe
    assert pipe.dtype == torch.float16
    assert pipe.speech_encoder.dtype == torch.float32, "what is heard does not depend on rounding"
    rough = pipe(tone, 16_000, seed=1, num_inference_steps=2)
    levels = [np.asarray(portraits.images[0]).astype(int) for portraits in (whole, rough)]
    assert np.abs(np.subtract(*levels)).mean() < 1
    assert rough.evidence.male_probability == pytest.approx(
        whole.evidence.male_probability, abs=0.01
    )
