"""What stage 1 trained, and a split of the tables as it sees them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voice2face.components import load_component
from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.data.tables import UNKNOWN, FaceTable, VoiceTable
from voice2face.errors import SettingError
from voice2face.models import (
    SPEECH_ENCODERS,
    FaceDecoder,
    FaceEncoder,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.training.kept_files import fingerprint, kept_in
from voice2face.training.latents import EncodedTables, encode_tables
from voice2face.training.options import checksum_of_split, load_split
from voice2face.training.pairing import ChosenFaces, Pairing
from voice2face.training.part_folders import part_folder


@dataclass(frozen=True)
class Encoded:
    """One split, encoded.

    Attributes:
        faces: decoded faces.
        voices: decoded voices.
        pairing: which of them go together, faces that hide their eyes left out.
        tables: their latents and embeddings.
    """

    faces: FaceTable
    voices: VoiceTable
    pairing: Pairing
    tables: EncodedTables

    def check_labels(self) -> None:
        """Refuse to tell a denoiser sex and age that nobody labelled.

        Raises:
            SettingError: no face, or no voice, is labelled with both.
        """
        for kind, rows in (("face", self.faces), ("voice", self.voices)):
            if not ((rows.sex != UNKNOWN) & (rows.age != UNKNOWN)).any():
                raise SettingError(
                    f"--heard-attributes tells the denoiser sex and age, but no {kind} is labelled "
                    "with both: add columns gender and age to the tables, or leave the option out"
                )


@dataclass(frozen=True)
class Encoders:
    """What stage 1 trained, frozen."""

    face_encoder: FaceEncoder
    speech_encoder: SpeechEncoder | SpeakerEncoder
    face_decoder: FaceDecoder

    @classmethod
    def load(cls, folder: Path) -> Encoders:
        """Read stage 1's output, or a checkpoint."""
        return cls(
            load_component(FaceEncoder, part_folder(folder, "face_encoder")),
            load_component(SPEECH_ENCODERS, part_folder(folder, "speech_encoder")),
            load_component(FaceDecoder, part_folder(folder, "face_decoder")),
        )

    def encode(self, arguments: argparse.Namespace, split: str, moves: int = 0) -> Encoded:
        """Read and encode a split, or read what was encoded before; ``moves`` of training faces."""
        latents = arguments.latents or arguments.out
        latents.mkdir(parents=True, exist_ok=True)
        size = self.face_encoder.config.image_size
        faces, voices, pairing = load_split(arguments, split, size)

        def encode() -> dict[str, Tensor]:
            tables = encode_tables(
                faces,
                voices,
                self.face_encoder,
                self.speech_encoder,
                variants=4 if split == "train" else 1,
                device=torch.device(arguments.device),
                moves=moves,
            )
            return vars(tables)

        made_of = fingerprint(
            self.face_encoder, self.speech_encoder, [checksum_of_split(arguments, split)]
        )
        name = f"latents_{split}_moved_{moves}" if moves else f"latents_{split}"
        tables = EncodedTables(**kept_in(latents / f"{name}.safetensors", made_of, encode))
        chosen = ChosenFaces(pairing, ~hidden_eyes(faces.images))
        return Encoded(faces, voices, chosen, tables)
