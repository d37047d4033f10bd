from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline
from voice2face.errors import CompileError
from voice2face.models import Denoiser, FaceDecoder
from voice2face.offload import Offload

ROOT = Path(__file__).parent.parent
WORKER_SECONDS = 300
COMPILERS = (os.environ.get("CXX", "g++"), "clang++", "cl")

needs_a_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler"
)

shared: dict[str, Voice2FacePipeline] = {}


def tiny() -> Voice2FacePipeline:
    """One whose UNet has a single level, as every kernel takes a second to compile."""
    components = tiny_components()
    config = dict(components["denoiser"].config) | {"block_channels": (16,)}
    torch.manual_seed(0)
    components["denoiser"] = Denoiser.from_config(config)
    return Voice2FacePipeline(**components, output_size=48).to("cpu")


@pytest.fixture(scope="module")
def plain() -> Voice2FacePipeline:
    return tiny()


@pytest.fixture(scope="module")
def compiled() -> Iterator[Voice2FacePipeline]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny().compile("inductor")
    torch.set_num_threads(before)


def compiled_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def draw(pipe: Voice2FacePipeline, tone: np.ndarray, count: int, seed: int = 3) -> np.ndarray:
    settings = {"num_inference_steps": 2, "guidance_every": 1}
    images = pipe(tone, 16_000, seed=seed, num_images=count, **settings).images
    return np.stack(images).astype(int)


@needs_a_compiler
def test_compiled_pictures_are_the_same_in_batches_of_any_size(
    compiled: Voice2FacePipeline, plain: Voice2FacePipeline, tone: np.ndarray
) -> None:
    before, graphs = compiled_graphs(), []
    for count in (2, 3, 5, 4):
        assert np.abs(draw(compiled, tone, count) - draw(plain, tone, count)).max() <= 2
        graphs.append(compiled_graphs() - before)
    assert graphs == [2, 4, 4, 4]


@needs_a_compiler
def test_threads_share_compiled_networks(compiled: Voice2FacePipeline, tone: np.ndarray) -> None:
    alone = [draw(compiled, tone, 2, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda call: draw(compiled, tone, 2, call % 4), range(12))
    for call, pictures in enumerate(made):
        assert np.array_equal(pictures, alone[call % 4])


@needs_a_compiler
def test_components_are_saved_as_before(
    compiled: Voice2FacePipeline, plain: Voice2FacePipeline, tmp_path: Path
) -> None:
    assert type(compiled.method.denoiser) is Denoiser
    assert type(compiled.face_decoder) is FaceDecoder
    again = Voice2FacePipeline.from_pretrained(compiled.save_pretrained(tmp_path), device="cpu")
    for name in ("denoiser", "face_decoder"):
        old, new = (pipe._parts()[name].state_dict() for pipe in (plain, again))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


@needs_a_compiler
def test_a_pickled_copy_is_not_compiled(compiled: Voice2FacePipeline, tone: np.ndarray) -> None:
    again = pickle.loads(pickle.dumps(compiled))
    before = compiled_graphs()
    one, three = draw(again, tone, 1), draw(again, tone, 3)
    assert compiled_graphs() == before
    assert np.abs(one - three[:1]).max() <= 1
    assert np.abs(draw(compiled, tone, 3) - three).max() <= 2


def draw_in_fork(tone: np.ndarray) -> tuple[np.ndarray, int]:
    made, graphs = draw(shared["pipeline"], tone, 2), compiled_graphs()
    with pytest.raises(CompileError, match="forked"):
        shared["pipeline"].compile("inductor")
    return made, graphs


@needs_a_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_in_forked_workers_nothing_is_compiled(
    compiled: Voice2FacePipeline,
    plain: Voice2FacePipeline,
    tone: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(shared, "pipeline", compiled)
    before, alone = compiled_graphs(), draw(plain, tone, 2)
    torch.set_num_threads(2)
    try:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            made, graphs = pool.apply_async(draw_in_fork, (tone,)).get(WORKER_SECONDS)
    finally:
        torch.set_num_threads(1)
    assert graphs == before
    assert np.array_equal(made, alone)


@needs_a_compiler
@pytest.mark.parametrize("change", [lambda pipe: pipe.to("cpu"), Voice2FacePipeline.half])
def test_moved_networks_are_no_longer_compiled(change: object, tone: np.ndarray) -> None:
    pipe = tiny().compile("inductor")
    before = compiled_graphs()
    draw(change(pipe), tone, 2)
    assert compiled_graphs() == before


@needs_a_compiler
def test_both_denoisers_of_fine_portraitist_are_compiled() -> None:
    pipe = Voice2FacePipeline(**tiny_portraitist()).compile("inductor")
    parts = pipe._parts()
    names = {name for name, part in parts.items() if getattr(part, "_compiled_call_impl", None)}
    assert names == {"bottom_denoiser", "upper_denoiser", "face_decoder"}


def test_networks_lent_to_a_gpu_are_not_compiled() -> None:
    pipe = tiny()
    pipe._offload = Offload(torch.device("cuda"))
    with pytest.raises(CompileError, match=r"call to\(\) first"):
        pipe.compile()


def test_cuda_graphs_are_of_cuda_alone() -> None:
    with pytest.raises(CompileError, match="CUDA graphs are of CUDA, not of cpu"):
        tiny().compile("cudagraphs")


def test_without_a_compiler_the_error_says_what_is_needed(tmp_path: Path) -> None:
    code = "from tests.test_compilation import tiny; tiny().compile('inductor')"
    surroundings = {"CXX": str(tmp_path / "c++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    complaint = done.stderr.strip().splitlines()[-1]
    assert complaint.startswith("voice2face.errors.CompileError: nothing can be compiled for cpu")
    assert "the variable CXX names another" in complaint
