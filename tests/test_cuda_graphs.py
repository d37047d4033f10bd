from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline, cuda_graphs
from voice2face.cuda_graphs import Graphs, filled_up, inside_a_recording
from voice2face.models.denoiser import Condition
from voice2face.settings import Settings

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Recorded:
    """A graph that needs no GPU: it computes with its own memory, as one does, at every replay."""

    def __init__(self, call: Any, inputs: tuple[Any, ...], pool: object) -> None:
        self.call, self.buffer, self.answer = call, inputs[0].clone(), call(*inputs)
        assert not torch.is_grad_enabled()

    def replay(self, inputs: tuple[Any, ...]) -> torch.Tensor:
        rows = len(inputs[0])
        self.buffer[:rows].copy_(inputs[0])
        self.answer.copy_(self.call(self.buffer, *inputs[1:]))
        return self.answer[:rows].clone()


class Nothing:
    """An event or a stream with nothing to wait for."""

    def record(self, stream: object) -> None: ...
    def wait_event(self, event: object) -> None: ...


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Event", Nothing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Nothing())
    monkeypatch.setattr(cuda_graphs, "Graph", Recorded)


def test_threads_take_turns_and_keep_their_answers(no_gpu: None) -> None:
    call = Graphs(lambda numbers: numbers * 2.0)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, torch.arange(20.0).split(1)))
    assert [float(answer) for answer in answers] == [2.0 * k for k in range(20)]
    assert len(call.graphs) == 1


def test_errors_come_out_and_the_next_call_is_answered(no_gpu: None) -> None:
    answers = iter([torch.OutOfMemoryError("CUDA out of memory")])

    def fail_once(numbers: torch.Tensor) -> torch.Tensor:
        if error := next(answers, None):
            raise error
        return numbers + 1.0

    call = Graphs(fail_once)
    with pytest.raises(torch.OutOfMemoryError):
        call(torch.zeros(1))
    assert float(call(torch.zeros(1))) == 1.0


def test_graphs_are_recorded_for_powers_of_two_alone(no_gpu: None) -> None:
    call = Graphs(lambda latents: latents + 1.0)
    for rows in (1, 2, 3, 5, 8, 9):
        latents = torch.randn(rows, 4)
        assert torch.equal(call(latents), latents + 1.0)
    assert [kind[0][0] for kind in call.graphs] == [1, 2, 4, 8, 16]


def test_conditions_are_filled_up_with_their_last_row() -> None:
    numbers = torch.randn(5, 10)
    latents, condition = filled_up(
        (torch.zeros(5, 4), Condition(torch.zeros(5, 8, 2), numbers, None))
    )
    assert (len(latents), len(condition.speech), condition.beside) == (8, 8, None)
    assert torch.equal(condition.numbers, torch.cat([numbers, numbers[-1:].repeat(3, 1)]))


def test_what_is_recorded_inside_of_another_recording_is_part_of_it(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Graphs(lambda numbers: numbers * 2.0)

    class Entered(Recorded):
        def __init__(self, *arguments: Any) -> None:
            with inside_a_recording():
                super().__init__(*arguments)

        def replay(self, inputs: tuple[Any, ...]) -> torch.Tensor:
            with inside_a_recording():
                return super().replay(inputs)

    monkeypatch.setattr(cuda_graphs, "Graph", Entered)
    outer = Graphs(lambda numbers: inner(numbers) + 1.0)
    assert float(outer(torch.ones(1))) == 3.0
    assert not inner.graphs
    monkeypatch.setattr(cuda_graphs, "Graph", Recorded)
    assert float(inner(torch.ones(1))) == 2.0
    assert len(inner.graphs) == 1


def test_each_way_of_sampling_has_graphs_of_its_own(no_gpu: None) -> None:
    call = Graphs(lambda numbers, settings: numbers * settings.num_inference_steps)
    for steps in (2, 3, 2):
        settings = Settings(steps, 1.0, 0.0, "tiny")
        assert float(call(torch.ones(1), settings)) == steps
    assert len(call.graphs) == 2


GUIDED = {"num_inference_steps": 2}
RECORDED_WHOLE = GUIDED | {"guidance_scale": 1.0}


def draw(
    pipe: Voice2FacePipeline, tone: np.ndarray, count: int, seed: int = 3, **settings: Any
) -> np.ndarray:
    images = pipe(tone, 16_000, seed=seed, num_images=count, **settings).images
    return np.stack(images).astype(int)


def test_loops_without_anything_random_are_recorded_whole(
    tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48).to("cpu")
    loop, whole = pipe.method.denoising_loop("denoiser"), []

    def recorded(*given: Any) -> torch.Tensor:
        whole.append(given)
        return loop.forward(*given)

    plain = draw(pipe, tone, 2, **RECORDED_WHOLE)
    loop._compiled_call_impl = recorded
    assert not np.array_equal(draw(pipe, tone, 2, watermark=False, **RECORDED_WHOLE), plain)
    assert np.array_equal(draw(pipe, tone, 2, **RECORDED_WHOLE), plain)
    assert len(whole) == 2
    assert whole[0][3:] == whole[1][3:], "both are one recording"
    many = {"num_inference_steps": 9, "guidance_scale": 1.0}
    for settings in (GUIDED, many, RECORDED_WHOLE | {"sampler": "ddim", "eta": 0.5}):
        draw(pipe, tone, 1, **settings)
    pipe(tone, 16_000, seed=3, callback_on_step_end=lambda *_: {}, **RECORDED_WHOLE)
    assert len(whole) == 2
    assert np.array_equal(draw(pipe.to("cpu"), tone, 2, **RECORDED_WHOLE), plain)
    assert len(whole) == 2, "moving ended it"


@needs_cuda
@pytest.mark.parametrize("settings", [GUIDED, RECORDED_WHOLE])
@pytest.mark.parametrize("components", [tiny_components, tiny_portraitist])
def test_recorded_pictures_are_the_same_in_batches_of_any_size(
    components: Any, settings: dict[str, Any], tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what convolutions round away depends on the batch's size, and a batch may be filled up
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain, recorded = (
        Voice2FacePipeline(**components(), output_size=48).to("cuda", torch.float32)
        for _ in range(2)
    )
    recorded.compile()
    for count in (2, 3, 1, 5, 4):
        made, expected = (draw(pipe, tone, count, **settings) for pipe in (recorded, plain))
        assert np.abs(made - expected).max() <= 2


@needs_cuda
@pytest.mark.parametrize("settings", [GUIDED, RECORDED_WHOLE])
def test_threads_with_streams_of_their_own_share_graphs(
    settings: dict[str, Any], tone: np.ndarray
) -> None:
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48).to("cuda").compile()
    alone = [draw(pipe, tone, 1 + seed, seed, **settings) for seed in range(4)]

    def draw_aside(call: int) -> np.ndarray:
        with torch.cuda.stream(torch.cuda.Stream()):
            return draw(pipe, tone, 1 + call % 4, call % 4, **settings)

    with ThreadPoolExecutor(4) as pool:
        for call, pictures in enumerate(pool.map(draw_aside, range(24))):
            assert np.array_equal(pictures, alone[call % 4])
