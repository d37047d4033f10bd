"""``python -m voice2face.evaluation.told_age``: how strongly to guide, and how to tell the age.

Portraits of the validation speakers, compared with the validation faces: for every guidance scale
and every emphasis of the age that are asked for, all from the same seeds. What is chosen here is
fixed in the presets and, by ``training release --age-emphasis``, in a checkpoint; the test
speakers, whose figures are published, have no say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from voice2face.evaluation.comparison import compare
from voice2face.evaluation.instruments import FACE_SIZE, Artist, Instruments, add_preset_option
from voice2face.evaluation.pictures import picture_features
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import hear
from voice2face.models import Denoiser
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.tables import load_faces, load_voices

SPLIT = "validation"


def measure_told_ages(
    pipe: Voice2FacePipeline,
    data: Path,
    networks: Path,
    *,
    preset: str,
    guidance: Sequence[float],
    emphases: Sequence[float],
    pivot: float,
    portraits_a_voice: int = 4,
    limit: int | None = None,
) -> Report:
    """Draw and judge with each guidance scale and emphasis.

    Args:
        pipe: the checkpoint; left with the last emphasis.
        data: folder of the tables of faces and voices.
        networks: folder of the measuring networks.
        preset: sampler and steps.
        guidance: scales to try.
        emphases: values of ``age_emphasis`` to try.
        pivot: ``age_pivot``, in decades above 20.
        portraits_a_voice: seeds for each speaker.
        limit: rows to read of each split; for trial runs.
    """
    faces = str(data / "faces-*.parquet")
    instruments = Instruments.load(faces, networks, limit)
    held_out = load_faces(faces, SPLIT, FACE_SIZE, limit=limit)
    real = picture_features(held_out.images, instruments.perceptual)
    heard = hear(pipe, load_voices(str(data / "voices-*.parquet"), SPLIT, limit=limit))
    report = Report()
    variants = list(itertools.product(guidance, emphases))
    for scale, emphasis in tqdm(variants, desc="variants", unit="variant"):
        for network in pipe.method.networks():
            if isinstance(network, Denoiser):
                network.register_to_config(age_emphasis=emphasis, age_pivot=pivot)
        group = f"told age, {SPLIT}: guidance {scale:g}, emphasis {emphasis:g}"
        artist = Artist(pipe, preset, scale)
        compare(group, artist, heard, portraits_a_voice, instruments, real, report)
    return report


def main() -> None:
    """Measure, write ``told_age.json`` and ``told_age.md``, print the table."""
    parser = argparse.ArgumentParser(prog="python -m voice2face.evaluation.told_age")
    parser.description = (__doc__ or "").partition("\n\n")[2]
    add = parser.add_argument
    add("--checkpoint", help="folder or name (default: the one in the package)")
    add("--data", type=Path, required=True, help="folder of faces and voices")
    add("--networks", type=Path, required=True, help="the measuring networks")
    add("--out", type=Path, required=True, help="folder for the table")
    add_preset_option(parser)
    add("--guidance", type=float, nargs="+", default=[2.0, 3.0], help="scales to try")
    add("--emphasis", type=float, nargs="+", default=[1.0, 1.5], help="of the age, to try")
    add("--pivot", type=float, default=2.4, help="age told as heard, in decades above 20")
    add("--portraits-a-voice", type=int, default=4, help="seeds a speaker (default: %(default)s)")
    add("--limit", type=int, help="rows to read of each split, for a trial run")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    report = measure_told_ages(
        Voice2FacePipeline.from_pretrained(options.checkpoint),
        options.data,
        options.networks,
        preset=options.preset,
        guidance=options.guidance,
        emphases=options.emphasis,
        pivot=options.pivot,
        portraits_a_voice=options.portraits_a_voice,
        limit=options.limit,
    )
    (options.out / "told_age.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    (options.out / "told_age.md").write_text(report.markdown())
    print(report.markdown())


if __name__ == "__main__":
    main()
