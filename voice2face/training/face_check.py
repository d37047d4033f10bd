"""The face check: a small network learns which latents show a face that is drawn well.

It learns four merits from a checkpoint's own portraits: how often a detector finds the face, how
much the eyes are in the dark (see ``data.hidden_eyes``), and how far the mouth and the whole face
are from those of photographs. Each has a bar of its own, below which a portrait is refused. No
portrait is to be refused for its skin: eyes are compared with the skin beneath them, and the other
merits with those of portraits as light, since detectors miss dark faces more often. The faces that
the evaluation counts are found by another detector; eyes are hidden by the same rule.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.commands.options import number_argument
from voice2face.components import load_component
from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.face_detection import LEAST_BESIDE
from voice2face.data.hidden_eyes import HIDDEN_SHARE
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.errors import SettingError
from voice2face.models import FaceCheck
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pixels import to_model_range
from voice2face.training.drawn_portraits import drawn_portraits, retrieved_from
from voice2face.training.heard_voices import hear_split, voices_of
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.options import (
    MOST,
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    checksum_of_split,
    count_argument,
    load_split,
    multiple_argument,
    options_from,
    share_argument,
)
from voice2face.training.part_folders import part_folder
from voice2face.training.photograph_distance import NEIGHBOUR, PhotographDistance
from voice2face.training.portrait_quality import (
    EYES,
    SPREAD_QUANTILES,
    MeasuredPortraits,
    Merits,
    measure,
)
from voice2face.training.trajectories import FIRST_SEEDS

SHOWN = 10
LEAST_HELD_OUT = SHOWN + 1  # or a row of the sheet would be empty
NAMES = ("found", "eyes", "mouth", "face")  # of the merits
PORTRAIT_NOISE = 0.25  # so much, or the check learns its portraits by heart
WEIGHT_DECAY = 0.1
RARE, RARE_WEIGHT = 0.3, 4.0  # merits below the first, in spreads above the bar, count so often


@dataclass(frozen=True)
class FaceCheckOptions:
    """Rates and shares.

    Attributes:
        batch_size: latents a step.
        learning_rate: of AdamW.
        bar: share of the portraits that lie below the quantile of a merit.
        refused: share of the portraits that the check is to refuse for each merit but the eyes.
        refused_for_eyes: likewise, for the eyes.
    """

    batch_size: int = 256
    learning_rate: float = 2e-3
    bar: float = 0.05
    refused: float = 0.03
    refused_for_eyes: float = 0.05


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
        merits = Merits(portraits, options.bar)
        self.target, self.held_out_target = merits(portraits), merits(held_out)
        self.spread = self.target.std(0).clamp(min=1e-3)

    def step(self, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Squared error of each merit in its own spreads; those that are missing count more."""
        latents = self.portraits.latents
        rows = torch.from_numpy(rng.integers(len(latents), size=self.options.batch_size))
        shown = latents[rows] + PORTRAIT_NOISE * torch.randn_like(latents[rows])
        target = self.target[rows]
        error = (self.check.merits(shown.to(self.check.device)).cpu() - target) / self.spread
        weight = torch.where(target < RARE, RARE_WEIGHT, 1.0)
        return {"loss": (weight * error.square()).mean()}

    def evaluate(self, check: FaceCheck) -> dict[str, float]:
        """How well it tells; writes the check and a sheet of what it refuses and what it likes."""
        portraits, options = self.held_out, self.options
        latents, mouth, face = portraits.latents, portraits.mouth_distance, portraits.face_distance
        parts = latents.split(256)
        merits = torch.cat([check.merits(part.to(check.device)).cpu() for part in parts])
        bars = merits.quantile(options.refused, 0)
        bars[EYES] = merits[:, EYES].quantile(options.refused_for_eyes)
        barred = deepcopy(check)  # the bars are no part of what is learnt on
        barred.raise_bars(bars.to(check.device))
        barred.save_pretrained(self.out / "face_check")
        confidence = (merits - bars).amin(1)
        order = confidence.argsort()
        rows = [order[:SHOWN], order[SHOWN : 2 * SHOWN], order[-SHOWN:]]
        shown = [latents[chosen].to(self.pipe.device) for chosen in rows]
        sheets = [self.pipe.decode(part, watermark=False) for part in shown]
        contact_sheet(sheets).save(self.out / "portraits.png")
        found, hidden = portraits.face_detections > LEAST_BESIDE, portraits.dark_eyes > HIDDEN_SHARE
        kept = confidence >= 0.0
        dark = portraits.brightness <= portraits.brightness.median()
        correlations = {
            f"correlation_{name}": float(torch.corrcoef(torch.stack(both))[0, 1])
            for name, *both in zip(NAMES, merits.T, self.held_out_target.T, strict=True)
        }
        return correlations | {
            "refused": float((~kept).float().mean()),
            "found": float(found.float().mean()),
            "found_of_kept": float(found[kept].float().mean()),
            "eyes_hidden": float(hidden.float().mean()),
            "eyes_hidden_of_kept": float(hidden[kept].float().mean()),
            "mouth_distance": float(mouth.mean()),
            "mouth_distance_of_kept": float(mouth[kept].mean()),
            "mouth_distance_of_refused": float(mouth[~kept].mean()),
            "face_distance": float(face.mean()),
            "face_distance_of_kept": float(face[kept].mean()),
            "face_distance_of_refused": float(face[~kept].mean()),
            "not_found_are_refused": float((~kept[~found]).float().mean()),
            "hidden_are_refused": float((~kept[hidden]).float().mean()),
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
        SettingError: the check is of other latents, or tells other merits.
    """
    folder = arguments.start_from
    if folder is None:
        return FaceCheck(*sizes, width=arguments.width, merits=len(NAMES))
    check: FaceCheck = load_component(FaceCheck, part_folder(folder, "face_check"))
    if (check.config.latent_channels, check.config.latent_size) != sizes:
        raise SettingError(f"the face check in {folder} looks at latents of another shape")
    if check.config.merits != len(NAMES):
        raise SettingError(f"the face check in {folder} does not tell {len(NAMES)} merits apart")
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
        type=number_argument(int, 2, MOST),
        default=16384,
        help="portraits to draw and to learn from (default: %(default)s)",
    )
    parser.add_argument(
        "--held-out-portraits",
        type=number_argument(int, LEAST_HELD_OUT, MOST),
        default=2048,
        help="portraits to draw and to measure with (default: 2048)",
    )
    parser.add_argument(
        "--photographs",
        type=number_argument(int, NEIGHBOUR, MOST),
        default=5000,
        help="faces that portraits are to be like, five at least (default: %(default)s)",
    )
    parser.add_argument(
        "--bar",
        type=number_argument(float, 0, 1 - SPREAD_QUANTILES),
        default=FaceCheckOptions.bar,
        metavar="SHARE",
        help="share of portraits as light that a merit is to lie above (default: %(default)s)",
    )
    parser.add_argument(
        "--refused",
        type=share_argument,
        default=FaceCheckOptions.refused,
        metavar="SHARE",
        help="share of the portraits that are refused and drawn again for each merit but the eyes; "
        "with --resume, a check that has learnt already is only given another (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--refused-for-eyes",
        type=share_argument,
        default=FaceCheckOptions.refused_for_eyes,
        metavar="SHARE",
        help="likewise, for eyes in the dark (default: %(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="such a run, or a checkpoint, whose face check learns on",
    )
    parser.add_argument(
        "--width",
        type=multiple_argument(8, FaceCheck.ranges["width"][1]),
        default=24,
        help="channels of the layers of a new one (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=share_argument,
        default=FaceCheckOptions.learning_rate,
        help="of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=count_argument,
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
        how = [made_of, *photographs, *MeasuredPortraits._fields]
        made_of = fingerprint(pipe.face_decoder, pipe.face_encoder, network, how)
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
