"""``python -m voice2face.training STAGE``: from data to package, a stage at a time."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from safetensors import SafetensorError

from voice2face.errors import Voice2FaceError

INTERRUPTED = 130  # as a shell says it of what Ctrl-C ended

# what each stage does, and its module where that is called otherwise
STAGES = {
    "collaborative": "stage 1: speech encoder, face encoder and face decoder",
    "speaker": "stage 1 with a published speaker network as speech encoder",
    "decoder": "a sharper face decoder for stage 1's latents",
    "retriever": "the retrieval index of Fine-portraitist",
    "diffusion": "stage 2 of SCLDM: the latent denoiser, the encoders frozen",
    "distillation": "an update with which a denoiser draws in a few steps",
    "face-check": "a network that says in which latents a face is drawn well",
    "bottom": "stage 2 of Fine-portraitist: the bottom face for a voice",
    "upper": "stage 2 of Fine-portraitist: the whole face around a bottom face",
    "release": "the stages' results into one checkpoint folder and the manifest",
}
MODULES = {"face-check": "face_check", "bottom": "portraitist", "upper": "portraitist"}


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the stage and its arguments, then train."""
    description = (__doc__ or "").replace("``", "")
    parser = argparse.ArgumentParser(prog="python -m voice2face.training", description=description)
    stages = parser.add_subparsers(dest="stage", required=True)
    words = sys.argv[1:] if command_line is None else command_line
    for name, summary in STAGES.items():
        of_stage = stages.add_parser(name, help=summary, description=summary)
        if name in words[:1]:  # the others' modules need not be imported
            stage = import_module(f"voice2face.training.{MODULES.get(name, name)}")
            stage.add_arguments(of_stage)
    arguments = parser.parse_args(words)
    hears = hasattr(arguments, "voices")
    if hears and not arguments.pairs and not (arguments.faces and arguments.voices):
        parser.error("give --faces with --voices, or --pairs")
    if hears and arguments.pairs and (arguments.faces or arguments.voices):
        parser.error("give --pairs alone, or --faces with --voices")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if hasattr(arguments, "device"):
            from voice2face.devices import choose_device

            arguments.device = choose_device(arguments.device)
        if hasattr(arguments, "perceptual_weights"):
            from voice2face.data.perceptual_loss import PerceptualLoss

            PerceptualLoss(arguments.perceptual_weights)  # refused before the work, not after it
        if hasattr(arguments, "resume"):
            from voice2face.training.options import begun_with
            from voice2face.training.resuming import (
                STATE,
                refuse_other_options,
                refuse_other_stage,
            )

            refuse_other_stage(arguments.out / STATE, arguments.stage)
            arguments.begun_with = begun_with(arguments)
            if arguments.resume:
                refuse_other_options(arguments.out / STATE, arguments.begun_with)
        stage.main(arguments)
    except Voice2FaceError as error:
        raise SystemExit(f"{parser.prog} {arguments.stage}: {error}") from None
    except (OSError, SafetensorError) as error:  # of a disk that is full, say
        raise SystemExit(
            f"{parser.prog} {arguments.stage}: {error}; what was saved before is still there"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
