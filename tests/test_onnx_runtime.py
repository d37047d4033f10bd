from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline
from voice2face.errors import CompileError, ExportError, SettingError
from voice2face.models import Denoiser, FaceDecoder
from voice2face.onnx.export import example_of, write_network
from voice2face.onnx.runtime import open_session

WORKER_SECONDS = 120

shared: dict[str, Voice2FacePipeline] = {}


def tiny() -> Voice2FacePipeline:
    return Voice2FacePipeline(**tiny_components(), output_size=48).to("cpu")


@pytest.fixture(scope="module")
def running() -> Voice2FacePipeline:
    return tiny().compile()


def draw(pipe: Voice2FacePipeline, tone: np.ndarray, count: int, seed: int = 3) -> np.ndarray:
    images = pipe(tone, 16_000, seed=seed, num_images=count, num_inference_steps=4).images
    return np.stack(images).astype(int)


def network_calls(pipe: Voice2FacePipeline, run: Callable[[], object]) -> int:
    """How often PyTorch's UNet and decoder run."""
    calls: list[object] = []
    networks = (pipe.method.parts()["denoiser"].unet, pipe.face_decoder.body)
    hooks = [network.register_forward_hook(lambda *_: calls.append(1)) for network in networks]
    run()
    for hook in hooks:
        hook.remove()
    return len(calls)


def test_onnxruntime_draws_the_same_pictures_in_batches_of_any_size(
    running: Voice2FacePipeline, tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    for count in (1, 3, 2):
        assert np.abs(draw(running, tone, count) - draw(tiny_pipeline, tone, count)).max() <= 2
    assert network_calls(running, lambda: draw(running, tone, 1)) == 0
    assert network_calls(tiny_pipeline, lambda: draw(tiny_pipeline, tone, 1)) == 5


def test_it_draws_in_two_stages(tone: np.ndarray) -> None:
    pipe = Voice2FacePipeline(**tiny_portraitist())
    expected = draw(pipe, tone, 2)
    assert np.abs(draw(pipe.compile("onnxruntime"), tone, 2) - expected).max() <= 2


def test_threads_share_it(running: Voice2FacePipeline, tone: np.ndarray) -> None:
    alone = [draw(running, tone, 2, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda call: draw(running, tone, 2, call % 4), range(12))
    for call, pictures in enumerate(made):
        assert np.abs(pictures - alone[call % 4]).max() <= 1


def test_copies_and_moved_networks_are_pytorchs(tone: np.ndarray) -> None:
    pipe = tiny().compile()
    assert type(pipe.method.parts()["denoiser"]) is Denoiser
    assert type(pipe.face_decoder) is FaceDecoder
    again = pickle.loads(pickle.dumps(pipe))
    assert network_calls(again, lambda: draw(again, tone, 1)) == 5
    assert network_calls(pipe, lambda: draw(pipe, tone, 1)) == 0
    assert network_calls(pipe.to("cpu"), lambda: draw(pipe, tone, 1)) == 5


def decode(seed: int) -> np.ndarray:
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return shared["pipeline"].decode(latents, watermark=False).astype(int)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_forked_workers_draw_without_it(
    running: Voice2FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(shared, "pipeline", running)
    expected = [decode(seed) for seed in range(2)]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        made = pool.map_async(decode, range(2)).get(WORKER_SECONDS)
    assert np.abs(np.subtract(made, expected)).max() <= 1


def test_it_computes_in_single_precision() -> None:
    with pytest.raises(CompileError, match=r"float32 on a CPU, not in torch.float16 on cpu"):
        tiny().half().compile("onnxruntime")


@pytest.mark.parametrize("error", [ExportError("no such operator"), OSError("disk is full")])
def test_where_one_network_fails_all_stay_pytorchs(
    error: Exception, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, network: torch.nn.Module, *given: object) -> None:
        if isinstance(network, FaceDecoder):
            raise error
        write_network(path, torch.nn.Linear(4, 4), {"input": torch.ones(3, 4)}, ("output",))

    monkeypatch.setattr("voice2face.onnx.runtime.write_network", write)
    pipe = tiny()
    with pytest.raises(CompileError, match=f"onnxruntime cannot run the networks: {error}"):
        pipe.compile("onnxruntime")
    assert network_calls(pipe, lambda: draw(pipe, tone, 1)) == 5


def test_weights_may_have_gradients(running: Voice2FacePipeline) -> None:
    denoiser = running.method.parts()["denoiser"]
    example = example_of(denoiser)
    condition = denoiser.condition(example["speech"], example["quality"])
    assert condition.speech.requires_grad
    given = (example["latents"], example["timesteps"], condition)
    expected = torch.nn.Module._call_impl(denoiser, *given).detach()
    torch.testing.assert_close(denoiser(*given), expected, atol=1e-3, rtol=0)


def test_networks_are_run_by_as_many_threads_as_pytorch_which_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = torch.nn.Linear(4, 4)
    write_network(tmp_path / "network.onnx", network, {"numbers": torch.ones(3, 4)}, ("output",))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    options = open_session(tmp_path / "network.onnx").get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_there_are_three_backends() -> None:
    backends = "onnxruntime, cudagraphs, inductor"
    with pytest.raises(SettingError, match=f"backend is {backends}, not 'tensorrt'"):
        tiny().compile("tensorrt")


def test_without_the_extra_the_error_names_it(
    tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pipe = tiny()
    with pytest.raises(CompileError, match=r"pip install 'voice2face\[onnx\]'"):
        pipe.compile()
    assert network_calls(pipe, lambda: draw(pipe, tone, 1)) == 5
