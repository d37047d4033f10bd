"""``python -m voice2face.evaluation.face_parts``: which parts of a face follow the voice.

Fine-portraitist asks whether each part of a drawn face is nearer to the true face of its voice
than to those of other people. Here the same is asked of portraits of the true pairs: for each
person, how much farther a part of the portraits is from other people's true faces than from the
person's own, and Student's t of that difference over people; once among all people, once among
those of the same sex. Distances are LPIPS-style, over the part's place in the aligned picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.evaluation.instruments import (
    Instruments,
    add_checkpoint_option,
    add_drawing_options,
    add_measuring_options,
    load_artist,
)
from voice2face.evaluation.measuring_command import (
    measuring_command,
    measuring_parser,
    parse_options,
    write_and_print,
)
from voice2face.evaluation.pairs import load_people
from voice2face.evaluation.report import Report
from voice2face.pixels import to_model_range

SEEDS = 4
SIDE = 128
CHANCE = 1.97  # |t| that chance exceeds in 5 % of such measurements, 196 people
# top, bottom, left and right of each part, as shares of the aligned picture
PARTS = {
    "jaw": (0.82, 1.00, 0.10, 0.90),
    "mouth": (0.62, 0.82, 0.25, 0.75),
    "nose": (0.36, 0.62, 0.32, 0.68),
    "eyes": (0.25, 0.36, 0.12, 0.88),
    "brows": (0.12, 0.25, 0.12, 0.88),
}
PUBLISHED = {"jaw": 2.85, "mouth": 4.94, "nose": 2.26, "eyes": 0.47, "brows": 0.32}


@torch.inference_mode()
def part_features(images: np.ndarray, network: PerceptualLoss) -> dict[str, Tensor]:
    """Features of each part, ``(N, D)``, whose squared distance is the LPIPS-style one.

    Args:
        images: ``(N, size, size, 3)`` uint8, aligned.
        network: SqueezeNet's features.
    """
    resized = np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE))) for image in images]
    )
    collected: dict[str, list[Tensor]] = {name: [] for name in PARTS}
    for batch in to_model_range(resized).split(64):
        maps = network.maps(batch)
        for name, (top, bottom, left, right) in PARTS.items():
            cut = []
            for features in maps:
                height, width = features.shape[2:]
                rows = slice(math.floor(top * height), math.ceil(bottom * height))
                columns = slice(math.floor(left * width), math.ceil(right * width))
                part = features[:, :, rows, columns]
                cut.append(part.flatten(1) / (part.shape[2] * part.shape[3] * len(maps)) ** 0.5)
            collected[name].append(torch.cat(cut, 1))
    return {name: torch.cat(parts) for name, parts in collected.items()}


def nearness_to_own(distances: np.ndarray, comparable: np.ndarray) -> np.ndarray:
    """How much farther other people's true parts are than one's own, ``(people,)``.

    Some true faces are near to every portrait, others to none. That is taken off first, by each
    true face's mean distance to comparable people's portraits: it tells nothing of a voice, but
    would be most of the spread that ``students_t`` divides by.

    Args:
        distances: ``(people, people)``, from a portrait (row) to a true face (column).
        comparable: ``(people, people)`` boolean, who may be compared with whom; people who can be
            compared with nobody are left out.
    """
    distances = distances - np.where(comparable, distances, 0.0).sum(0) / comparable.sum(0)
    others = comparable & ~np.eye(len(distances), dtype=bool)
    kept = others.any(1)
    mean_of_others = np.where(others, distances, 0.0).sum(1)[kept] / others.sum(1)[kept]
    return mean_of_others - distances.diagonal()[kept]


def students_t(differences: np.ndarray) -> float:
    """Student's t of a mean against zero.

    Raises:
        ValueError: fewer than two differences.
    """
    if len(differences) < 2:
        raise ValueError("t needs at least two people")
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return float(differences.mean() / (error + 1e-12))


def bar_chart(values: dict[str, dict[str, float]]) -> Image.Image:
    """Bars of t by part, one colour a series; |t| by chance is beyond the line in 5 %."""
    colours, red = ("#2f5d8a", "#8fb3d1", "#c9c4b8"), "#b0392b"
    width, bar, level, margin = 110, 28, 30, 40
    every = [t for series in values.values() for t in series.values()]
    highest, lowest = math.ceil(max(*every, CHANCE)), math.floor(min(*every, 0.0))
    zero = margin + level * highest
    names = zero - level * lowest + 10
    image = Image.new("RGB", (margin + width * (len(PARTS) + 1), names + 70), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    draw.text((margin // 2, 2), "Student's t", "black", font)
    for position, part in enumerate(PARTS):
        start = margin + position * width
        for number, series in enumerate(values):
            left, end = start + number * bar, zero - round(level * values[series][part])
            draw.rectangle((left, min(end, zero), left + bar - 4, max(end, zero)), colours[number])
            draw.text((left, min(end, zero) - 18), f"{values[series][part]:.1f}", "black", font)
        draw.text((start, names), part, "black", font)
    line = zero - round(level * CHANCE)
    right = image.width - margin // 2
    draw.line((margin // 2, line, right, line), red)
    draw.text((right, line - 3), "5 % by chance", red, font, anchor="rb")
    for number, series in enumerate(values):
        left, top = margin + number * 180, names + 36
        draw.rectangle((left, top, left + 12, top + 12), colours[number])
        draw.text((left + 18, top - 2), series, "black", font)
    return image


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, compare, print the table; write ``face_parts.json``, ``.md`` and ``.png``."""
    parser = measuring_parser("voice2face.evaluation.face_parts", __doc__)
    add_checkpoint_option(parser)
    add_measuring_options(parser)
    add_drawing_options(parser)
    options = parse_options(parser, arguments)
    artist = load_artist(options)
    faces = str(options.data / "faces-*.parquet")
    instruments = Instruments.load(faces, options.networks, options.limit)
    truth = load_people(artist, instruments, options.data / "pairs-dev.parquet")
    seen = truth.faces if truth.frontal is None else truth.frontal
    true = part_features(seen, instruments.perceptual)
    distances = {part: np.zeros((len(truth.people),) * 2) for part in PARTS}
    for seed in tqdm(range(SEEDS), desc="portraits", unit="seed"):
        images = artist.draw(truth.voices, [seed] * len(truth.people))
        for part, drawn in part_features(images, instruments.perceptual).items():
            distances[part] += torch.cdist(drawn, true[part]).square().numpy() / SEEDS
    sex = truth.verdict.sex
    groups = {
        "all people": np.ones((len(sex), len(sex)), bool),
        "the same sex": sex[:, None] == sex[None],
    }
    report = Report()
    for name, comparable in groups.items():
        for part in PARTS:
            t = students_t(nearness_to_own(distances[part], comparable))
            report.add(f"t of parts that follow the voice: {name}", part, t)
    for part, t in PUBLISHED.items():
        report.add("t of parts that follow the voice: the paper's", part, t)
    series = {
        group.partition(": ")[2]: {part: float(rows[part]) for part in PARTS}  # type: ignore[arg-type]
        for group, rows in report.figures.items()
    }
    bar_chart(series).save(options.out / "face_parts.png")
    write_and_print(report, options.out, "face_parts")


if __name__ == "__main__":
    main()
