from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks import parts
from benchmarks.comparisons import (
    LatentDiffusion,
    OnePassGenerator,
    millions_of,
    stable_diffusion_autoencoder,
    stable_diffusion_unet,
    to_bytes,
)
from benchmarks.parts import cudnn_operations, operations_of
from voice2face import Voice2FacePipeline
from voice2face.settings import PRESETS

ROOT = Path(__file__).parent.parent


def test_the_large_networks_are_of_stable_diffusions_size() -> None:
    with torch.device("meta"):
        unet, autoencoder = stable_diffusion_unet(), stable_diffusion_autoencoder()
    assert millions_of([unet]) == pytest.approx(859.52, abs=0.005)
    assert millions_of([autoencoder]) == pytest.approx(83.65, abs=0.005)


@torch.no_grad()
def test_operations_of_recurrent_layers_are_counted() -> None:
    recurrent = torch.nn.LSTM(40, 256, 3, batch_first=True)
    weights = 1024 * (40 + 256) + 2 * 1024 * (256 + 256)
    assert operations_of(lambda: recurrent(torch.zeros(2, 8, 40))) == 2 * (2 * 8) * weights
    shapes = [weight.shape for weight in recurrent.parameters()]
    assert cudnn_operations(torch.Size((2, 8, 40)), shapes, 4, None) == 2 * (2 * 8) * weights


def test_the_one_pass_generator_makes_a_picture_as_large_as_a_portrait(
    pipeline: Voice2FacePipeline,
) -> None:
    generator = OnePassGenerator()
    with torch.no_grad():
        pictures = to_bytes(generator(torch.randn(2, 256)))
    assert pictures.shape == (2, 3, pipeline.output_size, pipeline.output_size)
    assert pictures.dtype == torch.uint8
    assert not torch.equal(pictures[0], pictures[1])
    assert millions_of([generator]) == pytest.approx(millions_of([pipeline.face_decoder]), rel=0.3)


@torch.no_grad()
def test_latent_diffusion_denoises_with_guidance_and_decodes() -> None:
    torch.manual_seed(0)
    widths = (8, 8, 16, 16)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=8,
    )
    autoencoder = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    )
    batches = []
    unet.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    diffusion = LatentDiffusion(unet, autoencoder)
    latents = diffusion.denoise(3)
    assert batches == [2, 2, 2]
    assert latents.shape == (1, 4, 32, 32)
    assert diffusion.decode(latents).shape == (1, 3, 256, 256)


def test_the_comparisons_print_a_table() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.comparisons"),
            *("--repeats", "1", "--device", "cpu", "--skip-large"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"\| (.+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", done.stdout)
    ratios = {name: float(ratio) for name, _, ratio in rows}
    assert len(ratios) == len(PRESETS) + 1
    assert [ratio for name, ratio in ratios.items() if "best" in name] == [1.0]
    assert ratios["one-pass generator, as of a GAN"] < 1.0
    assert all(float(millions) > 5 for _, millions, _ in rows)


def test_what_another_parts_time_holds_is_counted_once(
    tiny_pipeline: Voice2FacePipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken: list[float] = []

    def seconds_of(*_: object) -> float:
        taken.append(float(len(taken) + 1))
        return taken[-1]

    monkeypatch.setattr(Voice2FacePipeline, "from_pretrained", lambda **_: tiny_pipeline)
    monkeypatch.setattr(parts, "product_rate", lambda *_: 1e9)
    monkeypatch.setattr(parts, "copy_rate", lambda *_: 1e9)
    monkeypatch.setattr(parts, "seconds_of", seconds_of)
    parts.main(["--preset", "balanced"])
    printed = capsys.readouterr().out
    rows = re.findall(r"(?m)^\| ([^|]+) \| (\d+) \|.*\| ([\d.]+) \|[^|]*\| (\d+)% \|$", printed)
    assert [float(measured) for *_, measured, _ in rows] == [1000.0 * each for each in taken]
    spent = {name: int(times) * float(measured) for name, times, measured, _ in rows}
    total = sum(spent.values()) - spent["spectrogram of 6 s, in the next"]
    assert f"\n{total:.0f} ms a portrait" in printed
    for name, _, _, share in rows:
        assert int(share) == pytest.approx(100 * spent[name] / total, abs=0.51), name


@torch.no_grad()
def test_the_part_after_the_spectrogram_makes_it(tiny_pipeline: Voice2FacePipeline) -> None:
    made: list[torch.Tensor] = []
    encoder = tiny_pipeline.speech_encoder
    ways = parts.parts_of(tiny_pipeline, "balanced")
    hook = encoder.spectrogram.register_forward_hook(lambda *told: made.append(told[-1]))
    making = []
    for part in ways:
        made.clear()
        part.run()
        making += [part] if made else []
    hook.remove()
    assert [part.within_next for part in making] == [True, False]
    assert making == [part for part in ways if part.within_next or part.network is encoder]
