"""A portrait's time beside other kinds of generators: ``python -m benchmarks.comparisons``.

Everything starts from a voice that was listened to, runs on one device with the same threads and
number type, makes one picture of 256 pixels, and ends with its pixels as bytes on the CPU. The two
other generators have random weights: how long they take does not depend on what they learnt, and
of the quality of their pictures this says nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.__main__ import PLAIN, SPEECH, seconds_of
from benchmarks.options import add_repeats, refusing
from voice2face import Voice2FacePipeline
from voice2face.methods.method import FEW_STEP
from voice2face.settings import DISTILLED, PRESETS, Settings

PICTURE_SIZE = 256
PROMPT_TOKENS = 77
GUIDANCE_SCALE = 7.5


class Row(NamedTuple):
    """One generator.

    Attributes:
        name: as it is printed.
        networks: those that run between a heard voice and its picture.
        seconds: a portrait's.
    """

    name: str
    networks: Sequence[nn.Module]
    seconds: float


class OnePassGenerator(nn.Sequential):
    """A face from a speech vector in one pass, as generators of GANs make it.

    Wen et al. ("Face Reconstruction from Voice using Generative Adversarial Networks", 2019) and
    SF2F (arXiv 2006.05888) have such generators. That of Wen et al. makes 4x4 positions of the
    vector by a transposed convolution, doubles them by four more (kernel 4, stride 2), and ends
    with a 1x1 convolution to colours, at 64 pixels. This one goes on doubling to 256 pixels, with
    about as many parameters as the face decoder.

    Args:
        speech_dim: size of the speech vector.
        channels: width at 4x4 positions and after each doubling.
    """

    def __init__(
        self, speech_dim: int = 256, channels: Sequence[int] = (512, 512, 256, 128, 64, 32, 16)
    ) -> None:
        layers: list[nn.Module] = [
            nn.Unflatten(1, (speech_dim, 1, 1)),
            nn.ConvTranspose2d(speech_dim, channels[0], 4),
            nn.ReLU(),
        ]
        for width, next_width in pairwise(channels):
            layers += [nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(channels[-1], 3, 1), nn.Tanh())


class LatentDiffusion:
    """A text-to-picture pipeline after the text was encoded: UNet, DDIM, guidance, decoder.

    Args:
        unet: attends to tokens of its ``cross_attention_dim``.
        autoencoder: its decoder makes the picture.
    """

    def __init__(self, unet: UNet2DConditionModel, autoencoder: AutoencoderKL) -> None:
        self.unet, self.autoencoder = unet.eval(), autoencoder.eval()
        shape = (2, PROMPT_TOKENS, unet.config.cross_attention_dim)
        self.tokens = torch.randn(shape).to(unet.device, unet.dtype)
        self.scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
        self.scheduler.set_timesteps(PRESETS[PLAIN].num_inference_steps)

    def denoise(self, steps: int) -> Tensor:
        """Take the first steps from noise: ``(1, channels, size, size)``."""
        config = self.unet.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        latents = torch.randn(shape).to(self.tokens)
        for timestep in self.scheduler.timesteps[:steps]:
            both = self.unet(latents.repeat(2, 1, 1, 1), timestep, self.tokens).sample
            told, untold = both.chunk(2)
            output = untold + GUIDANCE_SCALE * (told - untold)
            latents = self.scheduler.step(output, timestep, latents).prev_sample
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """The picture's bytes."""
        scaled = latents / self.autoencoder.config.scaling_factor
        return to_bytes(self.autoencoder.decode(scaled).sample)


def stable_diffusion_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's UNet with random weights, for pictures of 256 pixels."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
    )


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """Stable Diffusion 1.5's autoencoder with random weights."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=PICTURE_SIZE,
    )


def to_bytes(pictures: Tensor) -> Tensor:
    """``(batch, 3, size, size)`` around [-1, 1] as uint8 on the CPU."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu()


def millions_of(networks: Iterable[nn.Module]) -> float:
    """Parameters in millions."""
    return sum(weight.numel() for network in networks for weight in network.parameters()) / 1e6


def presets_of(pipe: Voice2FacePipeline, repeats: int) -> list[Row]:
    """The pipeline by preset."""
    voice = pipe.listen(SPEECH)
    pipe.draw([voice], [0], num_inference_steps=2)
    rows = []
    for name in PRESETS:
        settings = pipe.settings(name)
        title = f"voice2face, {name}: {settings.num_inference_steps} steps of {settings.sampler}"
        networks = [*drawing_networks(pipe, settings), pipe.face_decoder]
        seconds = seconds_of(lambda p=name: pipe.draw([voice], [0], preset=p), repeats)
        rows.append(Row(title, networks, seconds))
    return rows


def drawing_networks(pipe: Voice2FacePipeline, settings: Settings) -> list[nn.Module]:
    """The denoisers that draw with these settings."""
    return [
        denoiser
        for name, denoiser in pipe.method.denoisers().items()
        if name.startswith(FEW_STEP) == (settings.sampler == DISTILLED)
    ]


def one_pass(pipe: Voice2FacePipeline, repeats: int) -> Row:
    """The generator that needs no steps."""
    speech = pipe.listen(SPEECH).embedding[None].to(pipe.device, pipe.dtype)
    generator = OnePassGenerator(speech.shape[1]).to(pipe.device, pipe.dtype).eval()
    to_bytes(generator(speech))
    seconds = seconds_of(lambda: to_bytes(generator(speech)), repeats)
    return Row("one-pass generator, as of a GAN", [generator], seconds)


def stable_diffusion(pipe: Voice2FacePipeline, repeats: int, steps_measured: int) -> Row:
    """Latent diffusion at Stable Diffusion 1.5's size, as many steps as the plain preset."""
    unet, autoencoder = stable_diffusion_unet(), stable_diffusion_autoencoder()
    for network in (unet, autoencoder):
        nn.Module.to(network, pipe.device, pipe.dtype)  # ModelMixin.to warns of nothing
    diffusion = LatentDiffusion(unet, autoencoder)
    latents = diffusion.denoise(1)
    diffusion.decode(latents)
    denoising = seconds_of(lambda: diffusion.denoise(steps_measured).cpu(), repeats)
    decoding = seconds_of(lambda: diffusion.decode(latents), repeats)
    steps = PRESETS[PLAIN].num_inference_steps
    return Row(
        f"latent diffusion of Stable Diffusion 1.5's size, {steps} steps of ddim "
        f"(reckoned from {steps_measured} of them and the decoder)",
        [unet, autoencoder.post_quant_conv, autoencoder.decoder],
        denoising / steps_measured * steps + decoding,
    )


@torch.inference_mode()
def print_comparisons(
    pipe: Voice2FacePipeline, repeats: int, *, steps_measured: int = 2, large: bool = True
) -> None:
    """Measure and print the table.

    Args:
        pipe: the checkpoint.
        repeats: runs of each.
        steps_measured: of Stable Diffusion's size.
        large: whether to run that at all; it needs 4 GB.
    """
    rows = [*presets_of(pipe, repeats), one_pass(pipe, repeats)]
    if large:
        rows.append(stable_diffusion(pipe, repeats, steps_measured))
    (plain,) = (row.seconds for row in rows if row.name.startswith(f"voice2face, {PLAIN}:"))
    print(
        f"{pipe.device}, {torch.get_num_threads()} threads, {pipe.dtype}, "
        f"torch {torch.__version__}; one portrait of {PICTURE_SIZE} pixels of a voice that was "
        "listened to, all diffusion but the distilled steps with guidance\n"
    )
    print(f"| generator | parameters, millions | seconds | ratio to {PLAIN} |")
    print("|---|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row.name} | {millions_of(row.networks):.1f} | {row.seconds:.3f} | "
            f"{row.seconds / plain:.2f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    description = (__doc__ or "").replace("``", "")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparisons", description=description
    )
    add_repeats(parser, default=5)
    parser.add_argument("--device", help="default: CUDA, else MPS, else the CPU")
    parser.add_argument(
        "--steps-measured",
        type=int,
        default=2,
        choices=range(1, PRESETS[PLAIN].num_inference_steps + 1),
        metavar="STEPS",
        help="of Stable Diffusion's size, the rest is reckoned from them (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-large", action="store_true", help="leave Stable Diffusion's size (4 GB) out"
    )
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    with refusing(parser):
        pipe = Voice2FacePipeline.from_pretrained(device=options.device)
    print_comparisons(
        pipe,
        options.repeats,
        steps_measured=options.steps_measured,
        large=not options.skip_large,
    )


if __name__ == "__main__":
    main()
