"""``python -m voice2face.evaluation.watermark``: how often the watermark is found, and wrongly so.

Portraits are marked and changed as pictures are on their way through the world; real faces, marked
by nobody, are searched as they are and after the harshest of these changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from voice2face.commands.options import number_argument
from voice2face.data.tables import load_faces, load_voices
from voice2face.evaluation.agreement import bootstrap_share
from voice2face.evaluation.instruments import add_checkpoint_option, add_drawing_options
from voice2face.evaluation.measuring_command import (
    measuring_command,
    measuring_parser,
    parse_options,
    write_and_print,
)
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import hear
from voice2face.pipeline import Voice2FacePipeline
from voice2face.watermark import Detection, detect

SIZE = 256


def jpeg(image: Image.Image, rng: np.random.Generator, quality: int = 80) -> Image.Image:
    """Through JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def half(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """At half the size."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of the picture, 60 to 85 % of each side, at 0.7 to 1.5 times its size, as JPEG."""
    side = int(rng.uniform(0.60, 0.85) * image.width)
    left, top = rng.integers(0, image.width - side, 2)
    scaled = round(side * rng.uniform(0.7, 1.5))
    part = image.crop((left, top, left + side, top + side))
    return jpeg(part.resize((scaled, scaled), Image.Resampling.BICUBIC), rng, 90)


def phone(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As a phone with a dense screen shows it: 2 to 4.5 times the size, as JPEG."""
    side = round(image.width * rng.uniform(2.0, 4.5))
    return jpeg(image.resize((side, side), Image.Resampling.BICUBIC), rng, 90)


Change = Callable[[Image.Image, np.random.Generator], Image.Image]
CHANGES: dict[str, Change] = {
    "PNG": lambda image, rng: image,
    "JPEG, quality 80": jpeg,
    "half the size": half,
    "half the size, JPEG": lambda image, rng: jpeg(half(image, rng), rng),
    "screenshot of a part": screenshot,
    "on a phone's screen": phone,
}


CHANGES_OF_REAL_FACES = ("PNG", "screenshot of a part")


def search(change: str, number: int, picture: np.ndarray) -> Detection:
    """Change one picture and look for the watermark."""
    return detect(CHANGES[change](Image.fromarray(picture), np.random.default_rng(number)))


def draw_portraits(
    pipe: Voice2FacePipeline, voices: str, count: int, preset: str, variety: float
) -> np.ndarray:
    """Marked portraits of test speakers, a seed each."""
    heard = hear(pipe, load_voices(voices, "test", limit=min(count, 64))).voices
    pictures = []
    for start in tqdm(range(0, count, 32), desc="portraits", unit="batch"):
        seeds = list(range(start, min(start + 32, count)))
        of_seeds = [heard[seed % len(heard)] for seed in seeds]
        drawn = pipe.draw(of_seeds, seeds, preset=preset, variety=variety)
        pictures += [np.asarray(image) for image in drawn.images]
    return np.stack(pictures)


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; write ``watermark.json`` and ``watermark.md``."""
    parser = measuring_parser("voice2face.evaluation.watermark", __doc__)
    add_checkpoint_option(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder of faces and voices")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument(
        "--count",
        type=number_argument(int, 1, 1_000_000),
        default=1_000,
        help="pictures of each kind (default: %(default)s)",
    )
    add_drawing_options(parser)
    parser.add_argument(
        "--processes",
        type=number_argument(int, 1, 1024),
        default=2,
        help="searches at once (default: %(default)s)",
    )
    options = parse_options(parser, arguments)
    pipe = Voice2FacePipeline.from_pretrained(options.checkpoint)
    kinds = {
        "portraits": draw_portraits(
            pipe,
            str(options.data / "voices-*.parquet"),
            options.count,
            options.preset,
            options.variety,
        ),
        "real faces": load_faces(
            str(options.data / "faces-*.parquet"), "test", SIZE, limit=options.count
        ).images,
    }
    report = Report()
    with ProcessPoolExecutor(options.processes) as pool:
        for kind, pictures in kinds.items():
            for change in CHANGES if kind == "portraits" else CHANGES_OF_REAL_FACES:
                jobs = pool.map(
                    partial(search, change), range(len(pictures)), pictures, chunksize=8
                )
                found = list(tqdm(jobs, total=len(pictures), desc=f"{kind}, {change}"))
                names = np.arange(len(found)).astype(str)
                for answer in ("yes", "unsure"):
                    share = np.array([detection.answer == answer for detection in found])
                    report.add(
                        f"watermark: {kind}, {answer}", change, bootstrap_share(share, names)
                    )
    write_and_print(report, options.out, "watermark")


if __name__ == "__main__":
    main()
