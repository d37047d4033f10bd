"""What stage 2 trains on: every face as a latent, every voice as embeddings, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.models import FaceEncoder, SpeakerEncoder, SpeechEncoder
from voice2face.pixels import to_model_range
from voice2face.training.augmentation import augment_voice, random_crop
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.tables import QUALITY_COLUMNS, FaceTable, VoiceTable

YAW = QUALITY_COLUMNS.index("yaw")


@dataclass(frozen=True)
class EncodedTables:
    """Latents and embeddings of one split.

    Attributes:
        latents: ``(faces, 2, C, H, W)``, each face as it is and mirrored.
        quality: ``(faces, 2, 6)``, picture quality of both.
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
    seed: int = 0,
) -> EncodedTables:
    """Run the frozen encoders over two tables."""
    face_encoder.eval().to(device)
    speech_encoder.eval().to(device)
    both: list[list[Tensor]] = []
    for mirrored in (False, True):
        parts = []
        for start in tqdm(range(0, len(faces), 64), desc="face latents", unit="batch"):
            images = faces.images[start : start + 64]
            images = images[:, :, ::-1].copy() if mirrored else images
            with mixed_precision(device):
                parts.append(face_encoder(to_model_range(images).to(device)).float().cpu())
        both.append(parts)
    latents = torch.stack([torch.cat(parts) for parts in both], 1)
    quality = torch.from_numpy(faces.quality)[:, None].repeat(1, 2, 1)
    quality[:, 1, YAW] *= -1

    rng = np.random.default_rng(seed)
    samples = speech_encoder.window_samples
    embeddings = []
    for variant in range(variants):
        parts = []
        for start in tqdm(range(0, len(voices), 32), desc="speech embeddings", unit="batch"):
            windows = [random_crop(w, samples, rng) for w in voices.waveforms[start : start + 32]]
            if variant > 0:
                windows = [augment_voice(window, rng) for window in windows]
            batch = torch.from_numpy(np.stack(windows)).to(device)
            with mixed_precision(device):
                parts.append(speech_encoder(batch).embedding.float().cpu())
        embeddings.append(torch.cat(parts))
    return EncodedTables(latents, quality, torch.stack(embeddings, 1))
