"""Measure the networks in PyTorch, in onnxruntime, and there with 8-bit weights; print a table.

They take turns, and the shortest time of each is given, since machines differ and are noisy; on a
busy one, set ``OMP_WAIT_POLICY=PASSIVE``: threads that spin while they wait lose most there. Needs
the extra ``onnx`` and a folder that ``voice2face export-onnx`` wrote of the embedded checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from benchmarks.__main__ import SPEECH
from benchmarks.options import count_argument
from voice2face import Voice2FacePipeline
from voice2face.commands.options import number_argument
from voice2face.onnx.export import SAMPLING_FILE, ToldDenoiser, example_of
from voice2face.onnx.runtime import open_session

EXAMPLE = SPEECH.parent.parent / "onnx_portrait.py"
PAUSE_SECONDS = 0.2  # after which PyTorch's idle threads no longer spin
LEAST_SECONDS, MOST_SECONDS = 0.001, 3600.0  # of a turn

Run = Callable[[], object]


def shortest_seconds(runs: Sequence[Run], turns: int, turn_seconds: float) -> list[float]:
    """Shortest wall-clock seconds of each call; each takes its turns, of so many seconds."""
    shortest = [float("inf")] * len(runs)
    for _ in range(turns):
        for k, run in enumerate(runs):
            time.sleep(PAUSE_SECONDS)
            turn_began = now = time.perf_counter()
            while now < turn_began + turn_seconds:
                began = now
                run()
                now = time.perf_counter()
                shortest[k] = min(shortest[k], now - began)
    return shortest


def in_pytorch(network: nn.Module, inputs: Mapping[str, Tensor]) -> Run:
    @torch.inference_mode()
    def run() -> Tensor:
        answer = network(*inputs.values())
        return answer if isinstance(answer, Tensor) else answer[0]

    return run


def in_onnxruntime(path: Path, inputs: Mapping[str, Tensor]) -> Run:
    session = open_session(path)
    arrays = {name: rows.numpy() for name, rows in inputs.items()}
    return lambda: torch.from_numpy(session.run(None, arrays)[0])


def process(*arguments: object) -> Run:
    command = [sys.executable, *map(str, arguments)]
    return lambda: subprocess.run(command, check=True)


def quantise(path: Path, to: Path) -> None:
    """Write a network with 8-bit weights, whose activations are quantised as it runs."""
    network = onnx.load(path)
    del network.graph.value_info[:]  # the quantiser transposes weights and stumbles over old shapes
    quantize_dynamic(network, to, weight_type=QuantType.QUInt8)


def difference(expected: Run, found: Run) -> float:
    """Mean absolute difference of two runs' outputs, relative to the first's mean magnitude."""
    one, other = expected(), found()
    return float((one - other).abs().mean() / one.abs().mean())


def method_of(networks: Path) -> str | None:
    """The method whose networks a folder holds, where it says so."""
    facts = networks / SAMPLING_FILE
    return json.loads(facts.read_text())["method"] if facts.is_file() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    description = (__doc__ or "").replace("``", "")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx", description=description)
    parser.add_argument("networks", type=Path, help="folder that voice2face export-onnx wrote")
    parser.add_argument(
        "--threads", type=count_argument, default=2, help="of each runtime (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=count_argument, default=2, help="turns of each (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=number_argument(float, LEAST_SECONDS, MOST_SECONDS),
        default=1.5,
        help="of a turn (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    method = method_of(options.networks)
    if method not in (None, "scldm"):
        parser.error(
            f"{options.networks} holds networks of the method {method}; this measures those of "
            "SCLDM: voice2face export-onnx scldm-192 --to DIR"
        )
    torch.set_num_threads(options.threads)
    pipe = Voice2FacePipeline.from_pretrained(device="cpu")
    denoiser = ToldDenoiser(pipe.method.denoiser, pipe.method.face_prior()).eval()
    step = {name: rows[:2] for name, rows in example_of(denoiser.denoiser).items()}
    latents = {"latents": step["latents"][:1]}
    window = {"waveform": 0.1 * torch.randn(1, pipe.speech_encoder.window_samples)}
    networks = [
        ("UNet step with guidance (batch 2)", denoiser, "denoiser", step),
        ("face decoder (batch 1)", pipe.face_decoder, "face_decoder", latents),
        ("speech encoder (6 s)", pipe.speech_encoder, "speech_encoder", window),
    ]
    missing = [
        name for _, _, name, _ in networks if not (options.networks / f"{name}.onnx").is_file()
    ]
    if missing:
        parser.error(
            f"{options.networks} lacks {', '.join(missing)}; voice2face export-onnx writes them"
        )
    print(
        f"{options.threads} threads, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}; ms, in brackets how many times as fast as "
        "PyTorch, and how far off\n"
    )
    print("| what | PyTorch | onnxruntime | onnxruntime, int8 |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as space:
        for what, network, name, inputs in networks:
            path, small = options.networks / f"{name}.onnx", Path(space) / f"{name}.onnx"
            quantise(path, small)
            runs = [in_pytorch(network, inputs)]
            runs += [in_onnxruntime(file, inputs) for file in (path, small)]
            seconds = shortest_seconds(runs, options.turns, options.seconds)
            cells = [
                f"{1000 * took:.1f} ({seconds[0] / took:.2f}, {difference(runs[0], run):.0e})"
                for took, run in zip(seconds[1:], runs[1:], strict=True)
            ]
            print(f"| {what} | {1000 * seconds[0]:.1f} | {' | '.join(cells)} |", flush=True)
        picture = Path(space) / "face.png"
        starts = [
            process("-m", "voice2face", SPEECH, "-q", "-o", picture),
            process(EXAMPLE, options.networks, SPEECH, picture),
        ]
        torch_seconds, onnx_seconds = shortest_seconds(starts, options.turns, LEAST_SECONDS)
        print(
            f"| a portrait from a new process, preset fast | {1000 * torch_seconds:.0f} "
            f"| {1000 * onnx_seconds:.0f} ({torch_seconds / onnx_seconds:.2f}) | |"
        )


if __name__ == "__main__":
    main()
