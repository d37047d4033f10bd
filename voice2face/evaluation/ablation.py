"""``python -m voice2face.evaluation.ablation``: what each part of SCLDM contributes.

Small denoisers are trained for the same number of steps on the same latents, each with one part
changed, as in the paper's ablation: without collaborative pre-training (the speech encoder keeps
its random first weights), without the face prior, without both, and with other weights beta. A
second table shows how far the prior still moves with the number N of faces it averages.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from voice2face.components import load_component
from voice2face.evaluation.agreement import bootstrap_share, within_one_decade
from voice2face.evaluation.distribution import frechet_distance
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.pictures import picture_features
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import hear
from voice2face.models import SPEECH_ENCODERS, Denoiser, FaceDecoder, FaceEncoder, FacePrior
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training import diffusion
from voice2face.training.latents import EncodedTables
from voice2face.training.tables import UNKNOWN, load_faces, load_voices

PORTRAITS_A_VOICE = 2
PRIOR_SIZES = (100, 500, 1_000, 5_000, 10_000)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: as it is printed.
        pretrained: whether the speech encoder went through collaborative pre-training.
        beta: weight of the face prior.
    """

    name: str
    pretrained: bool
    beta: float


VARIANTS = (
    Variant("base", False, 0.0),
    Variant("+ pre-training (beta 0)", True, 0.0),
    Variant("+ prior", False, 0.01),
    Variant("both (beta 0.01)", True, 0.01),
    Variant("both, beta 0.05", True, 0.05),
    Variant("both, beta 0.1", True, 0.1),
)


def untrained_encoders(collaborative: Path, to: Path) -> Path:
    """Copy the components of stage 1, the speech encoder with random weights."""
    shutil.copytree(collaborative, to, ignore=shutil.ignore_patterns("*state*"), dirs_exist_ok=True)
    torch.manual_seed(0)
    trained = load_component(SPEECH_ENCODERS, collaborative / "speech_encoder")
    type(trained).from_config(trained.config).save_pretrained(to / "speech_encoder")
    return to


def latents_folder(variant: Variant, options: argparse.Namespace) -> Path:
    """Where the tables lie, as the variant's encoders encode them."""
    return Path(options.out / ("latents" if variant.pretrained else "latents-untrained"))


def train_variant(variant: Variant, options: argparse.Namespace) -> tuple[Path, Path]:
    """Train one denoiser; returns the folders of its encoders and of its own components."""
    encoders = options.collaborative
    if not variant.pretrained:
        encoders = untrained_encoders(options.collaborative, options.out / "untrained-encoders")
    kind = "pretrained" if variant.pretrained else "untrained"
    out = options.out / f"{kind}-beta-{variant.beta:g}"
    parser = argparse.ArgumentParser()
    diffusion.add_arguments(parser)
    arguments = ["--encoders", encoders, "--out", out, "--beta", variant.beta, "--resume"]
    arguments += ["--faces", options.data / "faces-*.parquet"]
    arguments += ["--voices", options.data / "voices-*.parquet"]
    arguments += ["--latents", latents_folder(variant, options), "--device", options.device]
    arguments += ["--prediction-type", "v_prediction", "--block-channels", *options.block_channels]
    arguments += ["--max-steps", options.steps, "--time-budget", 1e9, "--evaluate-every", 1e9]
    if options.limit is not None:
        arguments += ["--limit", options.limit]
    diffusion.main(parser.parse_args([str(argument) for argument in arguments]))
    return encoders, out


def measure_variant(
    variant: Variant, encoders: Path, trained: Path, options: argparse.Namespace, report: Report
) -> None:
    """Draw portraits of the validation speakers and enter the figures."""
    pipe = Voice2FacePipeline(
        speech_encoder=load_component(SPEECH_ENCODERS, encoders / "speech_encoder"),
        face_encoder=load_component(FaceEncoder, encoders / "face_encoder"),
        face_decoder=load_component(FaceDecoder, encoders / "face_decoder"),
        face_prior=load_component(FacePrior, trained / "face_prior"),
        denoiser=load_component(Denoiser, trained / "denoiser"),
        scheduler=load_component(DDIMScheduler, trained / "scheduler"),
        output_size=192,
        name="ablation",
    ).to(options.device)
    voices = str(options.data / "voices-*.parquet")
    heard = hear(pipe, load_voices(voices, "validation", limit=options.limit))
    rows = np.tile(heard.first_clips, PORTRAITS_A_VOICE)
    artist = Artist(pipe, options.sampling_steps, options.guidance)
    pictures = artist.draw([heard.voices[row] for row in rows], list(range(len(rows))))
    instruments: Instruments = options.instruments
    verdict = instruments.judge(pictures)
    known = heard.age[rows] != UNKNOWN
    near = within_one_decade(verdict.age, heard.age[rows])
    speakers = heard.speakers[rows]
    group = f"ablation, {options.steps} steps: {variant.name}"
    held_out = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    report.add(group, "held-out loss", float(held_out["held_out_loss"]))
    told = held_out["held_out_loss_without_voice"] - held_out["held_out_loss"]
    report.add(group, "what the voice takes off the loss, x1000", 1000 * float(told))
    report.add(group, "sex", bootstrap_share(verdict.sex == heard.sex[rows], speakers))
    report.add(group, "age within 10 years", bootstrap_share(near[known], speakers[known]))
    made = picture_features(pictures, instruments.perceptual)
    real = picture_features(instruments.test_faces.images, instruments.perceptual)
    report.add(group, "Fréchet distance", frechet_distance(made, real))


def measure_prior(tables: EncodedTables, sex: np.ndarray, report: Report) -> None:
    """How far the prior of Eq. 3 moves from one number of faces to the next."""
    sizes = [count for count in PRIOR_SIZES if count <= len(tables.latents)]
    means = [diffusion.balanced_prior(tables, sex, count, 1.0)() for count in sizes]
    for number in range(1, len(sizes)):
        moved = float((means[number] - means[number - 1]).abs().sum())
        name = f"from N = {sizes[number - 1]:,} to {sizes[number]:,}"
        report.add("the prior, L1 it moves", name, moved)


def main() -> None:
    """Train and measure every variant; write ``ablation.md`` and ``ablation.json``."""
    parser = argparse.ArgumentParser(prog="python -m voice2face.evaluation.ablation")
    parser.description = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("--collaborative", type=Path, required=True, help="output of stage 1")
    parser.add_argument("--data", type=Path, required=True, help="folder of faces and voices")
    parser.add_argument("--networks", type=Path, required=True, help="the measuring networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and tables")
    parser.add_argument("--steps", type=int, default=1_000, help="training steps of each variant")
    parser.add_argument("--block-channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--sampling-steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--limit", type=int, help="rows to read of each split, for a trial run")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    faces = str(options.data / "faces-*.parquet")
    options.instruments = Instruments.load(faces, options.networks, options.limit)
    report = Report()
    for variant in VARIANTS:
        encoders, trained = train_variant(variant, options)
        measure_variant(variant, encoders, trained, options, report)
    sex = load_faces(faces, "train", 8, limit=options.limit).sex
    encoded = load_file(latents_folder(VARIANTS[1], options) / "latents_train.safetensors")
    measure_prior(EncodedTables(**encoded), sex, report)
    (options.out / "ablation.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    (options.out / "ablation.md").write_text(report.markdown())
    print(report.markdown())


if __name__ == "__main__":
    main()
