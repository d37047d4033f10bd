"""``python -m voice2face.evaluation.presets``: what every preset costs in quality.

Portraits of the test speakers, from the same seeds with each preset; ``python -m benchmarks`` says
how long they take.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from voice2face.evaluation.comparison import compare
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.pictures import picture_features
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import hear
from voice2face.pipeline import Voice2FacePipeline
from voice2face.settings import PRESETS
from voice2face.training.tables import load_voices

GROUP = "presets"
BEST = "best"
RATIO = f"Fréchet distance, ratio to {BEST}"


def measure_presets(
    pipe: Voice2FacePipeline,
    data: Path,
    networks: Path,
    *,
    portraits_a_voice: int = 2,
    limit: int | None = None,
) -> Report:
    """Draw and judge with every preset.

    Args:
        pipe: the checkpoint.
        data: folder of the tables of faces and voices.
        networks: folder of the measuring networks.
        portraits_a_voice: seeds for each speaker.
        limit: rows to read of each split; for trial runs.
    """
    instruments = Instruments.load(str(data / "faces-*.parquet"), networks, limit)
    real = picture_features(instruments.test_faces.images, instruments.perceptual)
    heard = hear(pipe, load_voices(str(data / "voices-*.parquet"), "test", limit=limit))
    report = Report()
    measured = (heard, portraits_a_voice, instruments, real, report)
    distances = {
        name: compare(f"{GROUP}: {name}", Artist(pipe, name), *measured) for name in PRESETS
    }
    for name, distance in distances.items():
        report.add(f"{GROUP}: {name}", RATIO, distance / distances[BEST])
    return report


def main() -> None:
    """Measure, write ``presets.json`` and ``presets.md``, print the table."""
    parser = argparse.ArgumentParser(prog="python -m voice2face.evaluation.presets")
    parser.description = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("--checkpoint", help="folder or name (default: the one in the package)")
    parser.add_argument("--data", type=Path, required=True, help="folder of faces and voices")
    parser.add_argument("--networks", type=Path, required=True, help="the measuring networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument(
        "--portraits-a-voice", type=int, default=2, help="seeds a speaker (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--limit", type=int, help="rows to read of each split, for a trial run")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    report = measure_presets(
        Voice2FacePipeline.from_pretrained(options.checkpoint, device=options.device),
        options.data,
        options.networks,
        portraits_a_voice=options.portraits_a_voice,
        limit=options.limit,
    )
    (options.out / "presets.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    (options.out / "presets.md").write_text(report.markdown())
    print(report.markdown())


if __name__ == "__main__":
    main()
