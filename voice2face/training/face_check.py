"""The face check: a small network learns which latents show a face that is drawn well.

It learns from a checkpoint's own portraits how often detectors find the face and the eyes in each,
and how far its mouth and the whole of it are from those of photographs. Detectors miss dark faces
more often than light ones, and no portrait is to be refused for its skin. So each of these has a
bar, a quantile that depends on how light the face is: of those as light, the same share falls below
it. What counts of a portrait is how far it lies above the bar that it is least above. The faces
that the evaluation counts are found by another detector.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from voice2face.components import load_component
from voice2face.data.face_detection import LEAST_BESIDE
from voice2face.errors import SettingError
from voice2face.models import FaceCheck
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pixels import to_model_range
from voice2face.training.contact_sheets import contact_sheet
from voice2face.training.drawn_portraits import drawn_portraits, retrieved_from
from voice2face.training.heard_voices import hear_split, voices_of
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.losses import PerceptualLoss
from voice2face.training.options import (
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    checksum_of_split,
    load_split,
    options_from,
)
from voice2face.training.part_folders import part_folder
from voice2face.training.photograph_distance import PhotographDistance
from voice2face.training.portrait_quality import BrightnessQuantiles, MeasuredPortraits, measure
from voice2face.training.trajectories import FIRST_SEEDS

SHOWN = 10
# so much, and strong weight decay: or the check learns its portraits by heart
PORTRAIT_NOISE = 0.5
WEIGHT_DECAY = 0.5


@dataclass(frozen=True)
class FaceCheckOptions:
    """Rates and shares.

    Attributes:
        batch_size: latents a step.
        learning_rate: of AdamW.
        bar: share of the portraits that lie below the quantile of each quality score.
        refused: share of the portraits that the check is to refuse.
    """

    batch_size: int = 128
    learning_rate: float = 2e-3
    bar: float = 0.1
    refused: float = 0.06


class FaceCheckTraining:
    """The step and the held-out evaluation.

    Args:
        check: to be trained.
        portraits: to learn from.
        held_out: to measure with.
        options: rates and shares.
        out: folder for check and sheet.
        pipe: decodes what is shown.
    """

    def __init__(
        self,
        check: FaceCheck,
        portraits: MeasuredPortraits,
        held_out: MeasuredPortraits,
        options: FaceCheckOptions,
        out: Path,
        pipe: Voice2FacePipeline,
    ) -> None:
        self.check, self.portraits, self.held_out = check, portraits, held_out
        self.options, self.out, self.pipe = options, out, pipe
        quantiles = BrightnessQuantiles(portraits, options.bar)
        self.target = quantiles.least_excess(portraits)
        self.held_out_target = quantiles.least_excess(held_out)

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Squared error of the confidence, the height above the bar that is least exceeded."""
        latents = self.portraits.latents
        rows = torch.from_numpy(rng.integers(len(latents), size=self.options.batch_size))
        shown = latents[rows] + PORTRAIT_NOISE * torch.randn_like(latents[rows])
        device = self.check.device
        confidence = self.check(shown.to(device))
        return {"loss": F.mse_loss(confidence, self.target[rows].to(device))}

    def evaluate(self, check: FaceCheck) -> dict[str, float]:
        """How well it tells; writes the check and a sheet of what it refuses and what it likes."""
        portraits, below = self.held_out, self.held_out_target < 0
        latents, mouth, face = portraits.latents, portraits.mouth_distance, portraits.face_distance
        confidence = torch.cat([check(part.to(check.device)).cpu() for part in latents.split(256)])
        check.register_to_config(least_confidence=float(confidence.quantile(self.options.refused)))
        check.save_pretrained(self.out / "face_check")
        order = confidence.argsort()
        rows = [order[:SHOWN], order[SHOWN : 2 * SHOWN], order[-SHOWN:]]
        shown = [latents[chosen].to(self.pipe.device) for chosen in rows]
        sheets = [self.pipe.decode(part, watermark=False) for part in shown]
        contact_sheet(sheets).save(self.out / "portraits.png")
        found, eyeless = portraits.face_detections > LEAST_BESIDE, portraits.eye_detections == 0
        kept = confidence >= check.config.least_confidence
        dark = portraits.brightness <= portraits.brightness.median()
        both = torch.stack([confidence, self.held_out_target])
        return {
            "correlation": float(torch.corrcoef(both)[0, 1]),
            "below_a_bar": float(below.float().mean()),
            "below_a_bar_of_kept": float(below[kept].float().mean()),
            "found": float(found.float().mean()),
            "found_of_kept": float(found[kept].float().mean()),
            "eyes_missing": float(eyeless.float().mean()),
            "eyes_missing_of_kept": float(eyeless[kept].float().mean()),
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


def starting_check(arguments: argparse.Namespace, sizes: tuple[int, int]) -> FaceCheck:
    """A new check, or that of ``--start-from``.

    Args:
        arguments: of the command line.
        sizes: channels and side of the latents.

    Raises:
        SettingError: the check is of other latents.
    """
    folder = arguments.start_from
    if folder is None:
        return FaceCheck(*sizes, width=arguments.width)
    check: FaceCheck = load_component(FaceCheck, part_folder(folder, "face_check"))
    if (check.config.latent_channels, check.config.latent_size) != sizes:
        raise SettingError(f"the face check in {folder} looks at latents of another shape")
    return check.train()


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
        default=FaceCheckOptions.bar,
        metavar="SHARE",
        help="share of the portraits that lie below the bar of each merit (default: %(default)s)",
    )
    parser.add_argument(
        "--refused",
        type=float,
        default=FaceCheckOptions.refused,
        metavar="SHARE",
        help="share of the portraits that are refused and drawn again; with --resume, a check that "
        "has learnt already is only given another (default: %(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="such a run, or a checkpoint, whose face check learns on",
    )
    parser.add_argument(
        "--width",
        type=int,
        default=24,
        help="channels of the layers of a new one (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=FaceCheckOptions.learning_rate,
        help="of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=FaceCheckOptions.batch_size,
        help="latents a step (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train the check as the command line asks."""
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipe = Voice2FacePipeline.from_pretrained(
        arguments.checkpoint, device=arguments.device, dtype=torch.float32
    )
    sizes = pipe.face_encoder.config.latent_channels, pipe.face_encoder.latent_size
    torch.manual_seed(arguments.seed)  # loading may have drawn
    check = starting_check(arguments, sizes).to(pipe.device)
    network = PerceptualLoss(arguments.perceptual_weights).to(pipe.device)

    @cache
    def distance() -> PhotographDistance:
        return PhotographDistance(network, photographs_decoded(arguments, pipe, "train"))

    def drawn(split: str, count: int) -> MeasuredPortraits:
        out = Path(arguments.out)
        draw = partial(portraits_of_voices, arguments, pipe, split, count)
        drawing = [part for part in pipe.method.networks() if not isinstance(part, FaceCheck)]
        how = [count, arguments.seed, checksum_of_split(arguments, split)]
        made_of = fingerprint(*drawing, *retrieved_from(pipe.method), pipe.speech_encoder, how)
        latents = kept_tensor(out / f"portraits_{split}.safetensors", made_of, draw)
        photographs = [arguments.photographs, checksum_of_split(arguments, "train")]
        made_of = fingerprint(pipe.face_decoder, pipe.face_encoder, network, [made_of], photographs)
        file = out / f"seen_{split}.safetensors"
        seen = kept_tensor(file, made_of, lambda: measure(latents, pipe, distance()))
        return MeasuredPortraits(latents, *seen)

    train = drawn("train", arguments.portraits)
    held_out = drawn("validation", arguments.held_out_portraits)
    torch.manual_seed(arguments.seed)  # the same, whether or not what is kept was made now
    options = options_from(arguments, FaceCheckOptions)
    optimizer = torch.optim.AdamW(
        check.parameters(), options.learning_rate, weight_decay=WEIGHT_DECAY
    )
    stage = FaceCheckTraining(check, train, held_out, options, arguments.out, pipe)
    loop = TrainingLoop(check, optimizer, options_from(arguments, LoopOptions))
    note_learnt_with(arguments.out, {"face_encoder": pipe.face_encoder})
    loop.run(stage.step, stage.evaluate)
