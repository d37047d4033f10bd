"""``python -m voice2face.evaluation.stages_ablation``: what Fine-portraitist's parts contribute.

As in the paper's ablation, on denoisers that are trained for the same number of steps: the face in
one stage, in two stages without retrieval, and in two stages with it. Without retrieval, every
retrieved latent is replaced by zeros, while training and when sampling.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from voice2face.evaluation.ablation import (
    Variant,
    measure,
    parse,
    pipeline_from,
    pipeline_of,
    train,
    training_arguments,
)
from voice2face.evaluation.measuring_command import measuring_command, write_and_print
from voice2face.evaluation.report import Report
from voice2face.models import FaceRetriever
from voice2face.pipeline import Voice2FacePipeline

ENTRIES = 1_200
ONE_STAGE = Variant("one stage", pretrained=True, beta=0.0)
TWO_STAGES = {"two stages without retrieval": False, "two stages with retrieval": True}


def build_index(options: argparse.Namespace) -> Path:
    """Build the index, and one of the same entries without faces; returns the former's folder."""
    index: Path = options.out / "index"
    arguments = ["--faces", options.data / "faces-*.parquet", "--out", index]
    arguments += ["--voices", options.data / "voices-*.parquet", "--licence", "of the tables"]
    arguments += ["--encoders", options.collaborative, "--entries", ENTRIES]
    arguments += ["--limit", options.limit] if options.limit is not None else []
    if not index.exists():
        train("retriever", *arguments)
    entries = FaceRetriever.load(index).entries
    nothing = torch.zeros_like(entries.faces)
    without = entries._replace(faces=nothing, bottoms=nothing.clone())
    FaceRetriever(without).save_pretrained(blank(index))
    return index


def blank(index: Path) -> Path:
    """Where the entries without faces lie."""
    return index.with_name("index-blank")


def two_stages(retrieval: bool, options: argparse.Namespace) -> tuple[Voice2FacePipeline, Path]:
    """Train both denoisers; returns the pipeline and the folder of the second's training."""
    index = build_index(options)
    index = index if retrieval else blank(index)
    folders = {}
    for stage in ("bottom", "upper"):
        folders[stage] = options.out / f"{index.name}-{stage}-{options.steps}-steps"
        arguments = ["--encoders", options.collaborative, "--out", folders[stage]]
        arguments += ["--retriever", index, "--latents", options.out / "latents"]
        train(stage, *arguments, *training_arguments(options))
    stages = folders | {"collaborative": options.collaborative, "retriever": index}
    return pipeline_from(stages), folders["upper"]


@measuring_command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure every variant; write ``stages.md`` and ``stages.json``."""
    options = parse("voice2face.evaluation.stages_ablation", __doc__, arguments)
    report, table = Report(), f"One stage, two stages, retrieval, {options.steps:,} steps"
    measure(*pipeline_of(ONE_STAGE, options), f"{table}: {ONE_STAGE.name}", options, report)
    for name, retrieval in TWO_STAGES.items():
        measure(*two_stages(retrieval, options), f"{table}: {name}", options, report)
    write_and_print(report, options.out, "stages")


if __name__ == "__main__":
    main()
