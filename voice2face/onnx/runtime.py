"""Networks run by onnxruntime instead of PyTorch, in the place where they lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from voice2face.compilation import Call, in_this_process
from voice2face.errors import CompileError, ExportError
from voice2face.models import Denoiser, FaceDecoder
from voice2face.models.denoiser import Condition
from voice2face.onnx.export import check_installed, example_of, write_network

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class PlainDenoiser(nn.Module):
    """A denoiser that takes its condition as single tensors.

    Args:
        denoiser: the trained UNet.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        speech: Tensor,
        numbers: Tensor,
        beside: Tensor | None = None,
    ) -> Tensor:
        """See ``Denoiser.forward`` and ``Condition``."""
        prediction: Tensor = self.denoiser(latents, timesteps, Condition(speech, numbers, beside))
        return prediction


def run_by_onnxruntime(denoisers: Sequence[Denoiser], decoder: FaceDecoder) -> None:
    """Have networks called through onnxruntime; their types and states stay as they are.

    Each is written as ONNX, compared with PyTorch's, and read again. The weights are held a second
    time. Threads may share the networks; forked processes and pickled copies use PyTorch's.

    Args:
        denoisers: in float32 on the CPU.
        decoder: likewise, of the latents that they draw.

    Raises:
        CompileError: the extra ``onnx`` is not installed, or a network comes out otherwise.
    """
    examples = [plain_example_of(denoiser) for denoiser in denoisers]
    calls = [
        call_of(denoiser, PlainDenoiser(denoiser).eval(), example)
        for denoiser, example in zip(denoisers, examples, strict=True)
    ]
    calls.append(call_of(decoder, decoder, {"latents": examples[0]["latents"]}))
    networks: list[nn.Module] = [*denoisers, decoder]
    for network, call in zip(networks, calls, strict=True):
        network._compiled_call_impl = call


def call_of(network: nn.Module, plain: nn.Module, inputs: Mapping[str, Tensor]) -> Call:
    """A call of the network that onnxruntime answers.

    Args:
        network: as the pipeline calls it.
        plain: the same for single tensors.
        inputs: an example of these, by name.

    Raises:
        CompileError: see ``run_by_onnxruntime``.
    """
    try:
        check_installed()
        with tempfile.TemporaryDirectory(prefix="voice2face-") as folder:
            path = Path(folder) / f"{type(network).__name__}.onnx"
            write_network(path, plain, inputs, ("output",))
            session = open_session(path)
    except (ExportError, OSError) as error:
        raise CompileError(f"onnxruntime cannot run the networks: {error}") from error

    def call(*arguments: Tensor | Condition) -> Tensor:
        arrays = [tensor.numpy() for tensor in flat(arguments)]
        return torch.from_numpy(session.run(None, dict(zip(inputs, arrays, strict=True)))[0])

    return in_this_process(network, call)


def flat(arguments: Iterable[Tensor | Condition]) -> list[Tensor]:
    """The tensors of a call, those of a condition in their order, without what is not there."""
    tensors: list[Tensor] = []
    for argument in arguments:
        parts = argument if isinstance(argument, Condition) else (argument,)
        tensors += [part.detach() for part in parts if part is not None]
    return tensors


@torch.no_grad()
def plain_example_of(denoiser: Denoiser) -> dict[str, Tensor]:
    """Inputs of ``PlainDenoiser`` by name, made of those of ``ToldDenoiser``."""
    given = example_of(denoiser)
    told = denoiser.condition(given["speech"], given["quality"])
    inputs = {
        "latents": given["latents"],
        "timesteps": given["timesteps"],
        "speech": told.speech,
        "numbers": told.numbers,
    }
    if "beside" in given:
        inputs["beside"] = given["beside"]
    return inputs


def open_session(path: Path) -> InferenceSession:
    """Read a network; it computes with as many threads as PyTorch, which do not spin when idle."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])
