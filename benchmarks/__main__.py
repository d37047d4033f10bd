"""Measure starting, loading, sampling and memory of a checkpoint; print tables.

Machines differ and are noisy, so every time is also given as a ratio within the same run: starting
to importing torch and diffusers, a portrait to the paper's plain setting, 50 DDIM steps with
guidance (preset best).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.options import add_repeats, refusing
from voice2face.commands.options import number_argument
from voice2face.placed_networks import BACKENDS
from voice2face.settings import DEFAULT_PRESET, MOST_IMAGES, PRESETS

if TYPE_CHECKING:
    from voice2face import Voice2FacePipeline

PLAIN = "best"
DEFAULT = "default"
LARGE_MATRIX = 8192
PICTURES = 1024
SPEECH = Path(__file__).parent.parent / "examples" / "speech" / "female.flac"


class Times(NamedTuple):
    """Seconds of one portrait, from and to where, and of each in a batch."""

    file_to_png: float
    samples_to_portrait: float
    drawing_alone: float
    each_in_batch: float


class Compiled(NamedTuple):
    """A compiled pipeline, and the seconds until it was."""

    pipe: Voice2FacePipeline
    seconds: float


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return median(times)


def python(code: str, *arguments: str) -> Callable[[], object]:
    """A call that runs code in a new interpreter."""
    command = [sys.executable, "-c", code, *arguments]
    return lambda: subprocess.run(command, check=True, capture_output=True)


def peak_megabytes(*command: str) -> float:
    """Largest resident memory of a command in megabytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    per_megabyte = 1024 * 1024 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss / per_megabyte


def draw_pictures(pipe: Voice2FacePipeline, preset: str) -> None:
    """Go from a file to many pictures as arrays, invisibly marked, without PNGs."""
    latents = pipe(SPEECH, seed=0, num_images=PICTURES, preset=preset, output_type="latent")
    pipe.decode(latents)


def draw(pipe: Voice2FacePipeline, preset: str, count: int) -> None:
    """Go from a file to the bytes of PNGs."""
    for portrait in pipe(SPEECH, seed=0, num_images=count, preset=preset):
        portrait.png()


def time_presets(pipe: Voice2FacePipeline, batch: int, repeats: int) -> dict[str, Times]:
    """What each preset takes. The first of each batch's size, which compiles, is not counted."""
    from voice2face import load_audio
    from voice2face.audio import SAMPLE_RATE

    times = {}
    samples, voice = load_audio(SPEECH), pipe.listen(SPEECH)
    for name in PRESETS:
        for count in (1, batch):
            draw(pipe, name, count)
        times[name] = Times(
            seconds_of(lambda p=name: draw(pipe, p, 1), repeats),
            seconds_of(lambda p=name: pipe(samples, SAMPLE_RATE, seed=0, preset=p), repeats),
            seconds_of(lambda p=name: pipe.draw([voice], [0], preset=p), repeats),
            seconds_of(lambda p=name: draw(pipe, p, batch), 2) / batch,
        )
    return times


def print_presets(times: dict[str, dict[str, Times]], batch: int) -> None:
    """Print time and throughput of every preset of every way of running, the plain one first."""
    plain = next(iter(times.values()))[PLAIN]
    print(
        f"| preset | one portrait, file to PNG, s | ratio to {PLAIN} | samples to portrait, s | "
        f"drawing alone, s | each of {batch}, s | ratio |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    for way, by_preset in times.items():
        for name, taken in by_preset.items():
            preset = PRESETS[name]
            print(
                f"| {name}: {preset.num_inference_steps} steps of {preset.sampler}{way} | "
                f"{taken.file_to_png:.3f} | {taken.file_to_png / plain.file_to_png:.2f} | "
                f"{taken.samples_to_portrait:.4f} | {taken.drawing_alone:.4f} | "
                f"{taken.each_in_batch:.4f} | {taken.each_in_batch / plain.each_in_batch:.2f} |"
            )


def print_throughput(rates: dict[str, float], operations: dict[str, int], rate: float) -> None:
    """Print pictures a second, and how much of the device that keeps busy.

    Args:
        rates: pictures a second, by preset and way of running.
        operations: of one picture, by the same names.
        rate: operations a second of a large bfloat16 matrix product.
    """
    print(
        f"\na bfloat16 matrix product runs at {rate / 1e12:.0f} TFLOP/s; {PICTURES} pictures at "
        "once, as arrays\n\n"
        "| preset | pictures a second | GFLOP each | share of the product's rate |\n"
        "|---|---:|---:|---:|"
    )
    for name, a_second in rates.items():
        print(
            f"| {name} | {a_second:.0f} | {operations[name] / 1e9:.1f} | "
            f"{a_second * operations[name] / rate:.1%} |"
        )


def compile_by(pipe: Voice2FacePipeline, backend: str) -> Compiled:
    """Compile a pipeline, by the default of ``pipe.compile()`` or another backend."""
    name = None if backend == DEFAULT else backend
    return Compiled(pipe, seconds_of(lambda: pipe.compile(name), 1))


def compare_presets(
    pipe: Voice2FacePipeline, batch: int, repeats: int, compiled: Compiled | None
) -> None:
    """Measure and print the presets, of a compiled pipeline too where one is given."""
    times, rates, operations = {}, {}, {}

    def measure(pipe: Voice2FacePipeline, way: str) -> None:
        times[way] = time_presets(pipe, batch, repeats)
        for name in PRESETS if pipe.device.type == "cuda" else ():
            draw_pictures(pipe, name)
            rates[name + way] = PICTURES / seconds_of(lambda p=name: draw_pictures(pipe, p), 3)

    import torch

    from benchmarks.parts import operations_of, product_rate

    measure(pipe, "")
    for name in rates:
        operations[name] = operations_of(lambda p=name: draw_pictures(pipe, p)) // PICTURES
    if compiled is not None:
        first, first_batch = (
            seconds_of(lambda count=count: draw(compiled.pipe, DEFAULT_PRESET, count), 1)
            for count in (1, batch)
        )
        print(
            f"compile(): {compiled.seconds:.1f} s, then the first portrait: {first:.1f} s, the "
            f"first batch: {first_batch:.1f} s\n"
        )
        way = ", compiled"
        measure(compiled.pipe, way)
        operations |= {name + way: operations[name] for name in PRESETS if name in operations}
    print_presets(times, batch)
    if rates:
        rate = product_rate(repeats, pipe.device, torch.bfloat16, LARGE_MATRIX)
        print_throughput(rates, operations, rate)


def measure_start(checkpoint: str | None, repeats: int) -> None:
    """Measure and print what a new process takes."""
    start = seconds_of(python("pass"), repeats)
    package = seconds_of(python("import voice2face"), repeats) - start
    frameworks = (
        seconds_of(python("import torch; from diffusers import UNet2DConditionModel"), 3) - start
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "voice2face", str(SPEECH), "-q"),
            *("-o", f"{folder}/face.png"),
            *(("--model", checkpoint) if checkpoint else ()),
        ]
        cold = seconds_of(lambda: subprocess.run(command, check=True), 3)
        memory = peak_megabytes(*command)

    from voice2face import Voice2FacePipeline

    load = seconds_of(lambda: Voice2FacePipeline.from_pretrained(checkpoint), 3)
    pipe = Voice2FacePipeline.from_pretrained(checkpoint)
    pipe(SPEECH, seed=0, num_inference_steps=2)
    listen = seconds_of(lambda: pipe.listen(SPEECH), repeats)

    rows = [
        ("import voice2face, beyond Python's start", package),
        ("import torch and diffusers, beyond Python's start", frameworks),
        ("from_pretrained, files verified before", load),
        (f"listening to {SPEECH.name}", listen),
        (f"command line, cold, preset {DEFAULT_PRESET}", cold),
    ]
    print("| what | seconds | ratio to importing torch and diffusers |\n|---|---:|---:|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.3f} | {seconds / frameworks:.2f} |")
    print(f"\npeak memory of the command: {memory:.0f} MB\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--checkpoint", help="name or folder of what to measure (default: the package's)"
    )
    parser.add_argument(
        "--batch",
        type=number_argument(int, 1, MOST_IMAGES),
        default=16,
        help="size of the batch (default: %(default)s)",
    )
    add_repeats(parser, default=5)
    parser.add_argument(
        "--compile",
        nargs="?",
        const=DEFAULT,
        choices=(DEFAULT, *BACKENDS),
        help="compare with the compiled pipeline, by pipe.compile()'s default or this backend",
    )
    parser.add_argument(
        "--warm", action="store_true", help="presets alone, not what a new process takes"
    )
    parser.add_argument(
        "--comparisons", action="store_true", help="compare with other generators (4 GB)"
    )
    options = parser.parse_args(arguments)

    import torch

    from voice2face import Voice2FacePipeline

    with refusing(parser):
        pipe = Voice2FacePipeline.from_pretrained(options.checkpoint)
        compiled = None
        if options.compile:
            another = Voice2FacePipeline.from_pretrained(options.checkpoint)
            compiled = compile_by(another, options.compile)
    if not options.warm:
        measure_start(options.checkpoint, options.repeats)
    device = torch.cuda.get_device_name() if pipe.device.type == "cuda" else pipe.device
    print(f"{device}, {torch.get_num_threads()} threads, {pipe.dtype}, torch {torch.__version__}\n")
    compare_presets(pipe, options.batch, options.repeats, compiled)
    if options.comparisons:
        from benchmarks.comparisons import print_comparisons

        print()
        print_comparisons(Voice2FacePipeline.from_pretrained(options.checkpoint), options.repeats)


if __name__ == "__main__":
    main()
