"""What the measuring is done with: networks, the judge, and real faces to compare with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from voice2face.commands.options import number_argument, variety_argument
from voice2face.data.perceptual_loss import PerceptualLoss
from voice2face.data.tables import FaceTable, load_faces
from voice2face.evaluation.judge import FaceFeatures, Judge
from voice2face.evaluation.pictures import picture_features
from voice2face.listening import Voice
from voice2face.pipeline import Voice2FacePipeline
from voice2face.settings import DEFAULT_PRESET, DEFAULT_VARIETY, PRESETS

FACE_SIZE = 192


@dataclass(frozen=True)
class Instruments:
    """Networks and real faces.

    Attributes:
        features: face-recognition features.
        judge: sex and age from a picture, trained on the training faces.
        perceptual: SqueezeNet features and the distance over them.
        training_faces: the faces that the checkpoint was trained on.
        test_faces: faces that nothing was trained on; pictures are compared with them.
        other_faces: of the validation split, to answer with in the place of portraits.
    """

    features: FaceFeatures
    judge: Judge
    perceptual: PerceptualLoss
    training_faces: FaceTable
    test_faces: FaceTable
    other_faces: FaceTable

    @classmethod
    def load(cls, faces: str, networks: Path, limit: int | None) -> Instruments:
        """Read networks and faces, and train the judge."""
        features = FaceFeatures(networks / "mobileface_v2.torchscript.pt")
        judge = Judge(features)
        training_faces = load_faces(faces, "train", FACE_SIZE, limit=limit)
        judge.fit(training_faces)
        return cls(
            features,
            judge,
            PerceptualLoss(networks / "squeezenet1_0.safetensors"),
            training_faces,
            load_faces(faces, "test", FACE_SIZE, limit=limit),
            load_faces(faces, "validation", FACE_SIZE, limit=limit),
        )

    @cached_property
    def recognised_test_faces(self) -> np.ndarray:
        """Face-recognition features of the test faces, ``(N, 256)``."""
        return self.features(self.test_faces.images).numpy()

    @cached_property
    def pictured_test_faces(self) -> np.ndarray:
        """SqueezeNet features of the test faces, as ``picture_features`` makes them."""
        return picture_features(self.test_faces.images, self.perceptual)


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured with, and where to."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of faces-*.parquet, voices-*.parquet and, where true pairs are measured, "
        "pairs-dev.parquet",
    )
    parser.add_argument(
        "--networks",
        type=Path,
        required=True,
        help="folder of mobileface_v2.torchscript.pt (face recognition) and "
        "squeezenet1_0.safetensors (ImageNet features)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--limit",
        type=number_argument(int, 2, 1_000_000),
        help="rows to read of each split, for a trial run",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)"
    )


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured."""
    parser.add_argument("--checkpoint", help="folder or name (default: the one in the package)")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """Declare how portraits are drawn."""
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=DEFAULT_PRESET,
        help="sampler, steps and guidance (default: %(default)s)",
    )
    parser.add_argument(
        "--variety",
        type=variety_argument,
        default=DEFAULT_VARIETY,
        metavar="X",
        help="of faces and light, 0 to 1 (default: %(default)s)",
    )


@dataclass(frozen=True)
class Artist:
    """A checkpoint with the settings that all portraits of a report are drawn with.

    They are measured without the watermark, whose faint pattern would count as sharpness.

    Attributes:
        pipe: the checkpoint.
        preset: sampler, steps and guidance.
        variety: of faces and light.
    """

    pipe: Voice2FacePipeline
    preset: str = DEFAULT_PRESET
    variety: float = DEFAULT_VARIETY

    def draw(self, voices: list[Voice], seeds: list[int]) -> np.ndarray:
        """One portrait a voice, ``(N, size, size, 3)`` uint8."""
        portraits = self.pipe.draw(
            voices,
            seeds,
            preset=self.preset,
            variety=self.variety,
            watermark=False,
        )
        return np.stack([np.asarray(image) for image in portraits.images])


def load_artist(options: argparse.Namespace) -> Artist:
    """The checkpoint and the settings that a command line asks for.

    Pictures keep the decoder's own size, as faces are measured at theirs, since to enlarge them and
    shrink them again sharpens them.
    """
    pipe = Voice2FacePipeline.from_pretrained(options.checkpoint, device=options.device)
    pipe.output_size = pipe.face_decoder.config.image_size
    return Artist(pipe, options.preset, options.variety)
