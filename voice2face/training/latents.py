"""What stage 2 trains on: every face as a latent, every voice as embeddings, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from voice2face.data.excerpts import random_crop
from voice2face.data.quality_columns import QUALITY_COLUMNS
from voice2face.data.tables import FaceTable, VoiceTable
from voice2face.models import FaceEncoder, SpeakerEncoder, SpeechEncoder
from voice2face.pixels import to_model_range
from voice2face.training.augmentation import augment_voices
from voice2face.training.mixed_precision import mixed_precision

YAW = QUALITY_COLUMNS.index("yaw")
FARTHEST_MOVE = 3

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EncodedTables:
    """Latents and embeddings of one split.

    Attributes:
        latents: ``(faces, views, C, H, W)``, each face as it is and mirrored, and, where that is
            asked for, again as often moved.
        quality: ``(faces, views, 6)``, picture quality of each.
        embeddings: ``(voices, variants, dim)``, the first variant without augmentation.
    """

    latents: Tensor
    quality: Tensor
    embeddings: Tensor


@torch.no_grad()
def encode_tables(
    faces: FaceTable,
    voices: VoiceTable,
    face_encoder: FaceEncoder,
    speech_encoder: SpeechEncoder | SpeakerEncoder,
    *,
    variants: int,
    device: torch.device,
    moves: int = 0,
) -> EncodedTables:
    """Run the frozen encoders over two tables.

    Args:
        faces: to encode.
        voices: to encode.
        face_encoder: Z^f of pictures.
        speech_encoder: Z^s of windows.
        variants: excerpts of each voice; all but the first are augmented.
        device: to encode on.
        moves: how often each face is encoded again, moved by a few pixels.
    """
    face_encoder.eval().to(device)
    speech_encoder.eval().to(device)
    encode = with_mirror(face_encoder)
    generator = torch.Generator().manual_seed(0)
    latents = torch.cat(
        [
            encode_faces(faces.images, encode, device),
            *(
                encode_faces(faces.images, lambda seen: encode(moved(seen, generator)), device)
                for _ in range(moves)
            ),
        ],
        1,
    )
    quality = torch.from_numpy(faces.quality)[:, None].repeat(1, latents.shape[1], 1)
    quality[:, 1::2, YAW] *= -1
    samples = [speech_encoder.window_samples] * variants
    embeddings = encode_voices(
        voices, lambda windows: speech_encoder(windows).embedding, samples, device
    )
    return EncodedTables(latents, quality, embeddings)


def with_mirror(encode: Encode) -> Encode:
    """Encode pictures ``(B, 3, H, W)`` as they are and mirrored, ``(B, 2, ...)``."""
    return lambda pictures: torch.stack([encode(pictures), encode(pictures.flip(3))], 1)


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures ``(B, 3, H, W)``, each moved by up to ``FARTHEST_MOVE`` pixels, edges reflected."""
    height, width = pictures.shape[2:]
    wider = nn.functional.pad(pictures, 4 * [FARTHEST_MOVE], mode="reflect")
    corners = torch.randint(2 * FARTHEST_MOVE + 1, (len(pictures), 2), generator=generator)
    return torch.stack(
        [
            picture[:, top : top + height, left : left + width]
            for picture, (top, left) in zip(wider, corners.tolist(), strict=True)
        ]
    )


def encode_faces(images: np.ndarray, encode: Encode, device: torch.device) -> Tensor:
    """What is made of faces, a batch at a time and in mixed precision, ``(N, ...)`` float32.

    Args:
        images: ``(N, H, W, 3)`` uint8.
        encode: of pictures ``(B, 3, H, W)`` in [-1, 1].
        device: of what encodes.
    """
    parts = []
    for start in tqdm(range(0, len(images), 64), desc="faces", unit="batch"):
        pictures = to_model_range(images[start : start + 64]).to(device)
        with mixed_precision(device):
            parts.append(encode(pictures).float().cpu())
    return torch.cat(parts)


def encode_voices(
    voices: VoiceTable, encode: Encode, samples: Sequence[int], device: torch.device
) -> Tensor:
    """What is made of excerpts of recordings, ``(voices, variants, ...)`` float32.

    Args:
        voices: the recordings.
        encode: of windows ``(B, samples)``.
        samples: length of each variant's excerpts; the first are as they are, the others augmented.
        device: of what encodes.
    """
    rng = np.random.default_rng(0)
    variants = []
    for variant, length in enumerate(samples):
        parts = []
        for start in tqdm(range(0, len(voices), 32), desc=f"voices, {variant + 1}", unit="batch"):
            clips = voices.waveforms[start : start + 32]
            windows = [random_crop(clip, length, rng) for clip in clips]
            if variant > 0:
                windows = augment_voices(windows, rng)
            with mixed_precision(device):
                heard = encode(torch.from_numpy(np.stack(windows)).to(device))
            parts.append(heard.float().cpu())
        variants.append(torch.cat(parts))
    return torch.stack(variants, 1)
