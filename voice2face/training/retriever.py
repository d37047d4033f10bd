"""The retrieval index of Fine-portraitist: one entry for each voice, with a face that goes with it.

With true pairs the face is the speaker's own. With faces and voices of strangers it is one of the
same sex and age decade, or of any age where the voice's is unknown, and each face is used once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from voice2face.components import load_component
from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.data.tables import FaceTable, VoiceTable
from voice2face.errors import SettingError
from voice2face.models import SPEECH_ENCODERS, FaceEncoder, SpeakerEncoder, SpeechEncoder
from voice2face.models.bottom_face import bottom_face
from voice2face.models.face_entries import EIGHT_BITS, Entries
from voice2face.models.face_retriever import FaceRetriever
from voice2face.training.clip_embeddings import embed_clips
from voice2face.training.latents import encode_faces
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.options import (
    add_data_options,
    count_argument,
    load_split,
    seed_argument,
)
from voice2face.training.pairing import ChosenFaces, Pairing
from voice2face.training.part_folders import part_folder

MOST_DRAWS = 50


def draw_pairs(pairing: Pairing, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``count`` pairs in which no face and no voice is there twice."""
    rng = np.random.default_rng(seed)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _ in range(MOST_DRAWS):
        for face, voice in zip(
            *(rows.tolist() for rows in pairing.sample(rng, count)), strict=True
        ):
            if len(pairs) < count and face not in pairs and voice not in taken:
                pairs[face] = voice
                taken.add(voice)
        if len(pairs) == count:
            break
    return np.array(list(pairs), int), np.array(list(pairs.values()), int)


def licence_note(licence: str, of_voice: str) -> str:
    """What is kept with an entry: the command's note, and the voice's own where it has one."""
    return f"{licence}; voice: {of_voice}" if of_voice else licence


@torch.inference_mode()
def encode_entries(
    faces: FaceTable,
    voices: VoiceTable,
    rows: tuple[np.ndarray, np.ndarray],
    face_encoder: FaceEncoder,
    speech_encoder: SpeechEncoder | SpeakerEncoder,
    licence: str,
    device: torch.device,
) -> Entries:
    """Encode pairs of face and voice rows; an entry is called ``FACE+VOICE`` by their ids."""
    face_rows, voice_rows = rows
    if any("+" in name for name in voices.ids):
        raise SettingError(
            "an entry is called FACE+VOICE, so no voice's id may hold a +: rename those that do"
        )
    face_encoder.eval().to(device)
    speech_encoder.eval().to(device)
    images = faces.images[face_rows]
    heard = [voices.waveforms[row] for row in voice_rows]
    speech = embed_clips(speech_encoder, heard, device, disturbed=False).float().cpu()
    pairs = list(zip(face_rows, voice_rows, strict=True))
    return Entries(
        speech,
        encode_faces(images, face_encoder, device).to(EIGHT_BITS),
        encode_faces(images, lambda pictures: face_encoder(bottom_face(pictures)), device).to(
            EIGHT_BITS
        ),
        tuple(f"{faces.ids[face]}+{voices.ids[voice]}" for face, voice in pairs),
        tuple(licence_note(licence, voices.licence[voice]) for voice in voice_rows),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    parser.add_argument(
        "--encoders", type=Path, required=True, help="output folder of stage 1, or a checkpoint"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the index to")
    parser.add_argument(
        "--entries",
        type=count_argument,
        default=2_000,
        help="entries at most (default: %(default)s)",
    )
    parser.add_argument(
        "--licence",
        required=True,
        help="what faces and voices may be used for; kept with each entry, and with it the voice's "
        "own licence where the table names one",
    )
    parser.add_argument(
        "--seed",
        type=seed_argument,
        default=0,
        help="of the pairs that are drawn (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")


def main(arguments: argparse.Namespace) -> None:
    """Build the index as the command line asks."""
    face_encoder = load_component(FaceEncoder, part_folder(arguments.encoders, "face_encoder"))
    speech_encoder = load_component(
        SPEECH_ENCODERS, part_folder(arguments.encoders, "speech_encoder")
    )
    faces, voices, pairing = load_split(arguments, "train", face_encoder.config.image_size)
    pairing = ChosenFaces(pairing, ~hidden_eyes(faces.images))
    rows = draw_pairs(pairing, arguments.entries, arguments.seed)
    device = torch.device(arguments.device)
    entries = encode_entries(
        faces, voices, rows, face_encoder, speech_encoder, arguments.licence, device
    )
    FaceRetriever(entries).save_pretrained(arguments.out)
    parts = {"face_encoder": face_encoder, "speech_encoder": speech_encoder}
    note_learnt_with(arguments.out, parts)
