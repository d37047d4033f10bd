"""Where the time of a portrait goes: ``python -m benchmarks.parts``.

For each part of the way from a file to a PNG: how long it takes, its floating-point operations and
the bytes of its weights, and the least time in which this machine could do them, by the rates of a
large matrix product and of a large copy, measured in the same run.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.__main__ import SPEECH, seconds_of
from benchmarks.options import add_repeats, refusing
from voice2face import Voice2FacePipeline
from voice2face.audio import load_audio
from voice2face.audio.voice_activity import speech_frames
from voice2face.finishing import finish
from voice2face.listening import Speech
from voice2face.settings import DEFAULT_PRESET, DISTILLED, PRESETS

MATRIX = 2048
COPIED_NUMBERS = 1 << 26


@dataclass(frozen=True)
class Part:
    """One part of the way.

    Attributes:
        name: as it is printed.
        run: does the part once.
        times: how often a portrait needs it.
        network: whose weights are read; none for parts without one.
        within_next: whether the next part's time holds its own.
    """

    name: str
    run: Callable[[], object]
    times: int = 1
    network: nn.Module | None = None
    within_next: bool = False


def recurrent_operations(
    sequence: torch.Size, from_input: torch.Size, from_hidden: torch.Size, *_: Any, **__: Any
) -> int:
    """Floating-point operations of oneDNN's recurrent layer: two products at every position."""
    positions = math.prod(sequence[:2])
    return 2 * positions * (math.prod(from_input) + math.prod(from_hidden))


def cudnn_operations(
    sequence: torch.Size, weights: Sequence[torch.Size], *_: Any, **__: Any
) -> int:
    """The same of cuDNN's recurrent layers, which are given all weights and biases at once."""
    matrices = sum(math.prod(weight) for weight in weights if len(weight) == 2)
    return 2 * math.prod(sequence[:2]) * matrices


def operations_of(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a call."""
    recurrent = {
        torch.ops.aten.mkldnn_rnn_layer: recurrent_operations,
        torch.ops.aten._cudnn_rnn: cudnn_operations,
    }
    with FlopCounterMode(display=False, custom_mapping=recurrent) as counter:
        run()
    return int(counter.get_total_flops())


def product_rate(
    repeats: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    side: int = MATRIX,
) -> float:
    """Operations a second of a product of two square matrices."""
    left, right = torch.randn(2, side, side).to(device, dtype)
    product = seconds_of(lambda: (left @ right)[0, 0].item(), repeats)
    return 2 * side**3 / product


def copy_rate(repeats: int, device: torch.device) -> float:
    """Bytes a second read or written by a large copy in a device's memory."""
    source = torch.zeros(COPIED_NUMBERS, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(done(lambda: target.copy_(source), device), repeats)


def done(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The call, until the device has done what it started."""

    def run_and_wait() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run_and_wait


def parts_of(pipe: Voice2FacePipeline, preset: str) -> list[Part]:
    """The way of a portrait with a preset, with what each part is given."""
    settings = pipe.settings(preset)
    waveform = load_audio(SPEECH)
    speech = Speech(waveform, speech_frames(waveform))
    distilled = settings.sampler == DISTILLED
    encoder = pipe.speech_encoder
    denoiser = pipe.method.denoisers()["few_step_denoiser" if distilled else "denoiser"]
    device, dtype = pipe.device, pipe.dtype
    window = torch.from_numpy(waveform[: encoder.window_samples])[None].to(device)
    portrait = pipe(SPEECH, seed=0, num_inference_steps=1)[0]
    drawn = pipe(SPEECH, seed=0, num_inference_steps=1, output_type="latent")
    latents = drawn.to(device, dtype).repeat(2, 1, 1, 1)
    voice = pipe.listen(SPEECH).embedding.to(device).repeat(2, 1)
    quality = torch.tensor(denoiser.config.good_portrait, device=device).repeat(2, 1)
    condition = denoiser.condition(voice, quality)
    alone = denoiser.condition(voice[:1], quality[:1])
    guided = 0 if distilled else -(-settings.num_inference_steps // settings.guidance_every)
    time = torch.full((2,), 500, device=device)
    decoder, size = pipe.face_decoder, pipe.output_size
    face = decoder(latents[:1])
    check = pipe.method.face_check
    return [
        Part("reading the file, resampling", lambda: load_audio(SPEECH)),
        Part("finding speech", lambda: speech_frames(waveform)),
        Part(
            "spectrogram of 6 s, in the next", lambda: encoder.spectrogram(window), within_next=True
        ),
        Part("speech encoder, all windows", lambda: pipe.listen(speech), network=encoder),
        Part(
            "UNet step with guidance",
            lambda: denoiser(latents, time, condition),
            guided,
            denoiser,
        ),
        Part(
            "distilled UNet step" if distilled else "UNet step that reuses it",
            lambda: denoiser(latents[:1], time[:1], alone),
            settings.num_inference_steps - guided,
            denoiser,
        ),
        Part(
            "face check",
            lambda: None if check is None else check.confidences(latents[:1]),
            0 if check is None else 1,
            check,
        ),
        Part("face decoder", lambda: decoder(latents[:1]), network=decoder),
        Part("resizing, watermark", lambda: finish(face, size, mark=True).cpu().numpy()),
        Part("PNG with its metadata", portrait.png),
    ]


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    description = (__doc__ or "").replace("``", "")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=description)
    add_repeats(parser, default=9)
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default=DEFAULT_PRESET, help="(default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="of the compiled pipeline")
    options = parser.parse_args(arguments)
    with refusing(parser):
        pipe = Voice2FacePipeline.from_pretrained(device=options.device)
    parts = [part for part in parts_of(pipe, options.preset) if part.times]
    counts = [operations_of(part.run) for part in parts]
    if options.compile:
        with refusing(parser):
            pipe.compile()
    operations = product_rate(options.repeats, pipe.device, pipe.dtype)
    traffic = copy_rate(options.repeats, pipe.device)
    print(
        f"{pipe.device}, {torch.get_num_threads()} threads, {pipe.dtype}, torch "
        f"{torch.__version__}; a matrix product runs at "
        f"{operations / 1e9:.0f} GFLOP/s, a copy at {traffic / 1e9:.1f} GB/s\n"
    )
    print("| part | times | GFLOP | weights, MB | floor, ms | measured, ms | ratio | share |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    measured = [seconds_of(done(part.run, pipe.device), options.repeats) for part in parts]
    total = sum(
        part.times * seconds
        for part, seconds in zip(parts, measured, strict=True)
        if not part.within_next
    )
    for part, flops, seconds in zip(parts, counts, measured, strict=True):
        weights = list(part.network.parameters()) if part.network is not None else []
        size = sum(weight.nbytes for weight in weights)
        floor = max(flops / operations, size / traffic)
        ratio = f"{seconds / floor:.1f}" if floor > 0 else ""
        print(
            f"| {part.name} | {part.times} | {flops / 1e9:.2f} | {size / 1e6:.1f} | "
            f"{1000 * floor:.2f} | {1000 * seconds:.2f} | {ratio} | "
            f"{part.times * seconds / total:.0%} |"
        )
    print(f"\n{1000 * total:.0f} ms a portrait, preset {options.preset}")


if __name__ == "__main__":
    main()
