"""The face check: a small network learns from a face detector which latents show a face.

It learns from a checkpoint's own portraits, how often the detector finds the face in each. What the
evaluation counts is found by another detector.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from voice2face.models import FaceCheck
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.decoder import drawn_portraits
from voice2face.training.distillation import voices_of
from voice2face.training.face_detection import LEAST_BESIDE, times_found
from voice2face.training.images import contact_sheet
from voice2face.training.latents import kept_in
from voice2face.training.loop import TrainingLoop
from voice2face.training.options import add_data_options, add_loop_options, load_split, loop_options
from voice2face.training.speech_scores import embed_clips

LATENT_NOISE = 0.2
SHOWN = 10


class FaceCheckTraining:
    """The step and the held-out evaluation.

    Args:
        check: to be trained.
        portraits: Z^f and how often a face is found in each, to learn from.
        held_out: likewise, to measure with.
        arguments: of the command.
        pipe: decodes what is shown.
    """

    def __init__(
        self,
        check: FaceCheck,
        portraits: tuple[Tensor, Tensor],
        held_out: tuple[Tensor, Tensor],
        arguments: argparse.Namespace,
        pipe: Voice2FacePipeline,
    ) -> None:
        self.check, self.portraits, self.held_out = check, portraits, held_out
        self.arguments, self.pipe = arguments, pipe

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Squared error of the confidence, ``log(1 + times found)``."""
        latents, times = self.portraits
        rows = torch.from_numpy(rng.integers(len(latents), size=self.arguments.batch_size))
        shown = latents[rows] + LATENT_NOISE * torch.randn_like(latents[rows])
        device = self.check.device
        confidence = self.check(shown.to(device))
        return {"loss": F.mse_loss(confidence, times[rows].log1p().to(device))}

    def evaluate(self, check: Any) -> dict[str, float]:
        """How well it tells; writes the check and a sheet of what it refuses and what it likes."""
        latents, times = self.held_out
        confidence = torch.cat([check(part.to(check.device)).cpu() for part in latents.split(256)])
        check.register_to_config(
            least_confidence=float(confidence.quantile(self.arguments.refused))
        )
        check.save_pretrained(self.arguments.out / "face_check")
        order = confidence.argsort()
        rows = [order[:SHOWN], order[SHOWN : 2 * SHOWN], order[-SHOWN:]]
        sheets = [self.pipe.decode(latents[chosen], watermark=False) for chosen in rows]
        contact_sheet(sheets).save(self.arguments.out / "portraits.png")
        found, kept = times > LEAST_BESIDE, confidence >= check.config.least_confidence
        return {
            "correlation": float(torch.corrcoef(torch.stack([confidence, times.log1p()]))[0, 1]),
            "found": float(found.float().mean()),
            "found_of_kept": float(found[kept].float().mean()),
            "missing_are_refused": float((~kept[~found]).float().mean()),
        }


def portraits_of_voices(
    arguments: argparse.Namespace, pipe: Voice2FacePipeline, split: str, count: int
) -> Tensor:
    """Z^f of portraits of ``count`` voices, as often of each sex and age as training pairs them."""
    _, voices, pairing = load_split(arguments, split, pipe.face_encoder.config.image_size)
    with torch.inference_mode():
        heard = embed_clips(pipe.speech_encoder, voices.waveforms, pipe.device, disturbed=False)
    rng = np.random.default_rng(arguments.seed)
    return drawn_portraits(pipe, voices_of(pairing, heard.float().cpu(), rng, count))


def times_found_in(latents: Tensor, pipe: Voice2FacePipeline) -> Tensor:
    """How often the detector finds the face in the picture of each latent, ``(N,)``, float32."""
    times = [
        times_found(picture, "alt2")
        for part in tqdm(latents.split(64), desc="face detection", unit="batch")
        for picture in pipe.decode(part.to(pipe.device), watermark=False)
    ]
    return torch.tensor(times, dtype=torch.float32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    parser.add_argument(
        "--checkpoint", help="folder or name of what draws (default: the one in the package)"
    )
    parser.add_argument(
        "--portraits", type=int, default=8192, help="to draw and learn from (default: %(default)s)"
    )
    parser.add_argument(
        "--held-out-portraits", type=int, default=1024, help="to measure with (default: 1024)"
    )
    parser.add_argument(
        "--refused",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the portraits, to be drawn again (default: %(default)s)",
    )
    parser.add_argument("--width", type=int, default=24, help="channels (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--batch-size", type=int, default=64, help="latents a step")


def main(arguments: argparse.Namespace) -> None:
    """Train the check as the command line asks."""
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipe = Voice2FacePipeline.from_pretrained(
        arguments.checkpoint, device=arguments.device, dtype=torch.float32
    )

    def drawn(split: str, count: int) -> tuple[Tensor, Tensor]:
        out = Path(arguments.out)
        draw = partial(portraits_of_voices, arguments, pipe, split, count)
        latents = kept_in(out / f"portraits_{split}.safetensors", draw)
        count_faces = partial(times_found_in, latents, pipe)
        return latents, kept_in(out / f"times_found_{split}.safetensors", count_faces)

    train = drawn("train", arguments.portraits)
    held_out = drawn("validation", arguments.held_out_portraits)
    sizes = pipe.face_encoder.config.latent_channels, pipe.face_encoder.latent_size
    check = FaceCheck(*sizes, width=arguments.width).to(pipe.device)
    optimizer = torch.optim.AdamW(check.parameters(), arguments.rate, weight_decay=0.05)
    training = FaceCheckTraining(check, train, held_out, arguments, pipe)
    TrainingLoop(check, optimizer, loop_options(arguments)).run(training.step, training.evaluate)
