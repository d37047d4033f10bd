"""The face check: a small network learns which latents show a face that is drawn well.

It learns from a checkpoint's own portraits how often detectors find the face and the eyes in each,
and how far its mouth and the whole of it are from those of photographs. Detectors miss dark faces
more often than light ones, and no portrait is to be refused for its skin. So each of these has a
bar that depends on how light the face is: of those as light, the same share falls below it. What
counts of a portrait is how far it lies above the bar that it is least above. The faces that the
evaluation counts are found by another detector.
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from voice2face.models import FaceCheck
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pixels import to_model_range
from voice2face.training.contact_sheets import contact_sheet
from voice2face.training.drawn_portraits import drawn_portraits, retrieved_from
from voice2face.training.face_detection import LEAST_BESIDE, times_eyes_found, times_found
from voice2face.training.heard_voices import hear_split, voices_of
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.loop import TrainingLoop
from voice2face.training.losses import PerceptualLoss
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    checksum_of_split,
    load_split,
    loop_options,
)
from voice2face.training.photograph_distance import PhotographDistance
from voice2face.training.trajectories import FIRST_SEEDS

SHOWN = 10
SHADES = 16
SPREAD_QUANTILES = 0.3  # between the quantiles whose distance is a bin's spread
LEAST_ABOVE, MOST_ABOVE = -2.0, 3.0  # in spreads; how far beyond does not count
# so much, and strong weight decay: or the check learns its portraits by heart
PORTRAIT_NOISE = 0.5
WEIGHT_DECAY = 0.5


class SeenPortraits(NamedTuple):
    """Portraits, what detectors see in their pictures, and how like photographs these are.

    Attributes:
        latents: Z^f, ``(N, C, H, W)``.
        times: how often the face is found, ``(N,)``.
        eyes: how often the eyes are, see ``times_eyes_found``, ``(N,)``.
        brightness: mean of the middle of the picture, 0 to 255, ``(N,)``.
        mouth: the mouth's ``PhotographDistance``, ``(N,)``.
        face: that of the whole face, ``(N,)``.
    """

    latents: Tensor
    times: Tensor
    eyes: Tensor
    brightness: Tensor
    mouth: Tensor
    face: Tensor

    @property
    def merits(self) -> list[Tensor]:
        """How clearly face and eyes are found, how near the mouth and the face are, ``(N,)``."""
        return [self.times.log1p() + self.eyes.log1p(), -self.mouth, -self.face]


class Bar:
    """A quantile of a merit as a function of the face's brightness, interpolated between bins.

    Args:
        merit: to find the quantiles of, ``(N,)``.
        brightness: of the same portraits, ``(N,)``.
        refused: the share of portraits below the quantile.
    """

    def __init__(self, merit: Tensor, brightness: Tensor, refused: float) -> None:
        shades = [rows for rows in brightness.argsort().chunk(SHADES) if len(rows)]
        self.brightness = [float(brightness[rows].mean()) for rows in shades]
        of_shades = [merit[rows] for rows in shades]
        self.height = [float(of_shade.quantile(refused)) for of_shade in of_shades]
        upper = [float(of_shade.quantile(refused + SPREAD_QUANTILES)) for of_shade in of_shades]
        self.spread = np.subtract(upper, self.height).clip(1e-3)

    def above(self, merit: Tensor, brightness: Tensor) -> Tensor:
        """How far each portrait lies above it, ``(N,)``, in spreads of the merit at its shade."""
        height, spread = (
            torch.from_numpy(np.interp(brightness.numpy(), self.brightness, of)).float()
            for of in (self.height, self.spread)
        )
        return (merit - height) / spread


class Bars:
    """The bar of each merit.

    Args:
        portraits: to find the bars of.
        refused: the share of portraits below each.
    """

    def __init__(self, portraits: SeenPortraits, refused: float) -> None:
        self.bars = [Bar(merit, portraits.brightness, refused) for merit in portraits.merits]

    def above(self, portraits: SeenPortraits) -> Tensor:
        """How far each portrait lies above the bar that it is least above, ``(N,)``."""
        heights = [
            bar.above(merit, portraits.brightness)
            for bar, merit in zip(self.bars, portraits.merits, strict=True)
        ]
        return torch.stack(heights).amin(0).clamp(LEAST_ABOVE, MOST_ABOVE)


class FaceCheckTraining:
    """The step and the held-out evaluation.

    Args:
        check: to be trained.
        portraits: to learn from.
        held_out: to measure with.
        arguments: of the command.
        pipe: decodes what is shown.
    """

    def __init__(
        self,
        check: FaceCheck,
        portraits: SeenPortraits,
        held_out: SeenPortraits,
        arguments: argparse.Namespace,
        pipe: Voice2FacePipeline,
    ) -> None:
        self.check, self.portraits, self.held_out = check, portraits, held_out
        self.arguments, self.pipe = arguments, pipe
        bars = Bars(portraits, arguments.bar)
        self.above, self.held_out_above = bars.above(portraits), bars.above(held_out)

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Squared error of the confidence, the height above the bar that is least exceeded."""
        latents = self.portraits.latents
        rows = torch.from_numpy(rng.integers(len(latents), size=self.arguments.batch_size))
        shown = latents[rows] + PORTRAIT_NOISE * torch.randn_like(latents[rows])
        device = self.check.device
        confidence = self.check(shown.to(device))
        return {"loss": F.mse_loss(confidence, self.above[rows].to(device))}

    def evaluate(self, check: Any) -> dict[str, float]:
        """How well it tells; writes the check and a sheet of what it refuses and what it likes."""
        latents, times, eyes, brightness, mouth, face = self.held_out
        confidence = torch.cat([check(part.to(check.device)).cpu() for part in latents.split(256)])
        check.register_to_config(
            least_confidence=float(confidence.quantile(self.arguments.refused))
        )
        check.save_pretrained(self.arguments.out / "face_check")
        order = confidence.argsort()
        rows = [order[:SHOWN], order[SHOWN : 2 * SHOWN], order[-SHOWN:]]
        shown = [latents[chosen].to(self.pipe.device) for chosen in rows]
        sheets = [self.pipe.decode(part, watermark=False) for part in shown]
        contact_sheet(sheets).save(self.arguments.out / "portraits.png")
        found, kept = times > LEAST_BESIDE, confidence >= check.config.least_confidence
        dark = brightness <= brightness.median()
        below = self.held_out_above < 0
        both = torch.stack([confidence, self.held_out_above])
        return {
            "correlation": float(torch.corrcoef(both)[0, 1]),
            "below_a_bar": float(below.float().mean()),
            "below_a_bar_of_kept": float(below[kept].float().mean()),
            "found": float(found.float().mean()),
            "found_of_kept": float(found[kept].float().mean()),
            "eyes_missing": float((eyes == 0).float().mean()),
            "eyes_missing_of_kept": float((eyes[kept] == 0).float().mean()),
            "mouth_distance": float(mouth.mean()),
            "mouth_distance_of_kept": float(mouth[kept].mean()),
            "mouth_distance_of_refused": float(mouth[~kept].mean()),
            "face_distance": float(face.mean()),
            "face_distance_of_kept": float(face[kept].mean()),
            "face_distance_of_refused": float(face[~kept].mean()),
            "missing_are_refused": float((~kept[~found]).float().mean()),
            "refused_of_the_darker_half": float((~kept[dark]).float().mean()),
        }


def portraits_of_voices(
    arguments: argparse.Namespace, pipe: Voice2FacePipeline, split: str, count: int
) -> Tensor:
    """Z^f of portraits of ``count`` voices, as often of each sex and age as training pairs them."""
    rng = np.random.default_rng([arguments.seed, FIRST_SEEDS[split]])
    voices = voices_of(*hear_split(arguments, pipe, split), rng, count)
    return drawn_portraits(pipe, voices, split, arguments.seed)


def photographs_decoded(
    arguments: argparse.Namespace, pipe: Voice2FacePipeline, split: str
) -> np.ndarray:
    """Photographs of a split as the decoder draws them, ``(N, H, W, 3)`` uint8."""
    faces = load_split(arguments, split, pipe.face_encoder.config.image_size)[0]
    rng = np.random.default_rng(arguments.seed)
    rows = rng.permutation(len(faces))[: arguments.photographs]
    drawn = []
    for part in tqdm(np.array_split(rows, -(-len(rows) // 64)), desc="photographs", unit="batch"):
        with torch.inference_mode():
            latents = pipe.face_encoder(to_model_range(faces.images[part]).to(pipe.device))
        drawn.append(pipe.decode(latents, watermark=False))
    return np.concatenate(drawn)


def seen_in(latents: Tensor, pipe: Voice2FacePipeline, distance: PhotographDistance) -> Tensor:
    """What ``SeenPortraits`` holds beside each latent, in its order, ``(5, N)``."""
    seen, distances = [], []
    for part in tqdm(latents.split(64), desc="face detection", unit="batch"):
        pictures = pipe.decode(part.to(pipe.device), watermark=False)
        distances.append(distance(pictures))
        for picture in pictures:
            quarter = len(picture) // 4
            middle = picture[quarter:-quarter, quarter:-quarter]
            seen.append((times_found(picture, "alt2"), times_eyes_found(picture), middle.mean()))
    return torch.cat([torch.tensor(seen, dtype=torch.float32), torch.cat(distances)], 1).T


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    add_perceptual_option(parser)
    parser.add_argument(
        "--checkpoint", help="folder or name of what draws (default: the one in the package)"
    )
    parser.add_argument(
        "--portraits",
        type=int,
        default=16384,
        help="portraits to draw and to learn from (default: %(default)s)",
    )
    parser.add_argument(
        "--held-out-portraits",
        type=int,
        default=2048,
        help="portraits to draw and to measure with (default: 2048)",
    )
    parser.add_argument(
        "--photographs",
        type=int,
        default=5000,
        help="faces that portraits are to be like, five at least (default: %(default)s)",
    )
    parser.add_argument(
        "--bar",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the portraits that lie below the bar of each merit (default: %(default)s)",
    )
    parser.add_argument(
        "--refused",
        type=float,
        default=0.06,
        metavar="SHARE",
        help="share of the portraits that are refused and drawn again; with --resume, a check that "
        "has learnt already is only given another (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=int, default=24, help="channels of its layers (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=2e-3, help="of AdamW (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="latents a step")


def main(arguments: argparse.Namespace) -> None:
    """Train the check as the command line asks."""
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipe = Voice2FacePipeline.from_pretrained(
        arguments.checkpoint, device=arguments.device, dtype=torch.float32
    )
    network = PerceptualLoss(arguments.perceptual_weights).to(pipe.device)

    @cache
    def distance() -> PhotographDistance:
        return PhotographDistance(network, photographs_decoded(arguments, pipe, "train"))

    def drawn(split: str, count: int) -> SeenPortraits:
        out = Path(arguments.out)
        draw = partial(portraits_of_voices, arguments, pipe, split, count)
        drawing = [part for part in pipe.method.networks() if not isinstance(part, FaceCheck)]
        how = [count, arguments.seed, checksum_of_split(arguments, split)]
        made_of = fingerprint(*drawing, *retrieved_from(pipe.method), pipe.speech_encoder, how)
        latents = kept_tensor(out / f"portraits_{split}.safetensors", made_of, draw)
        photographs = [arguments.photographs, checksum_of_split(arguments, "train")]
        made_of = fingerprint(pipe.face_decoder, pipe.face_encoder, network, [made_of], photographs)
        file = out / f"seen_{split}.safetensors"
        seen = kept_tensor(file, made_of, lambda: seen_in(latents, pipe, distance()))
        return SeenPortraits(latents, *seen)

    train = drawn("train", arguments.portraits)
    held_out = drawn("validation", arguments.held_out_portraits)
    sizes = pipe.face_encoder.config.latent_channels, pipe.face_encoder.latent_size
    torch.manual_seed(arguments.seed)  # the same, whether or not what is kept was made now
    check = FaceCheck(*sizes, width=arguments.width).to(pipe.device)
    optimizer = torch.optim.AdamW(
        check.parameters(), arguments.learning_rate, weight_decay=WEIGHT_DECAY
    )
    training = FaceCheckTraining(check, train, held_out, arguments, pipe)
    TrainingLoop(check, optimizer, loop_options(arguments)).run(training.step, training.evaluate)
