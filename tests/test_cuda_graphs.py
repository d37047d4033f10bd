from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline, cuda_graphs
from voice2face.cuda_graphs import Graphs, filled_up
from voice2face.models.denoiser import Condition

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


def draw(pipe: Voice2FacePipeline, tone: np.ndarray, count: int, seed: int = 3) -> np.ndarray:
    images = pipe(tone, 16_000, seed=seed, num_images=count, num_inference_steps=2).images
    return np.stack(images).astype(int)


@needs_cuda
@pytest.mark.parametrize("components", [tiny_components, tiny_portraitist])
def test_recorded_pictures_are_the_same_in_batches_of_any_size(
    components: Any, tone: np.ndarray
) -> None:
    plain, recorded = (
        Voice2FacePipeline(**components(), output_size=48).to("cuda", torch.float32)
        for _ in range(2)
    )
    recorded.compile()
    for count in (2, 3, 1, 5, 4):
        assert np.abs(draw(recorded, tone, count) - draw(plain, tone, count)).max() <= 2


@needs_cuda
def test_threads_with_streams_of_their_own_share_graphs(tone: np.ndarray) -> None:
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48).to("cuda").compile()
    alone = [draw(pipe, tone, 1 + seed, seed) for seed in range(4)]

    def draw_aside(call: int) -> np.ndarray:
        with torch.cuda.stream(torch.cuda.Stream()):
            return draw(pipe, tone, 1 + call % 4, call % 4)

    with ThreadPoolExecutor(4) as pool:
        for call, pictures in enumerate(pool.map(draw_aside, range(24))):
            assert np.array_equal(pictures, alone[call % 4])
