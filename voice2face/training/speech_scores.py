"""Held-out figures of the speech encoder."""

from __future__ import annotations

import numpy as np
import torch

from voice2face.models.speech_encoder import SpeechEncoder
from voice2face.training.tables import UNKNOWN, VoiceTable


def embed_clip(encoder: SpeechEncoder, waveform: np.ndarray, device: torch.device) -> torch.Tensor:
    """Z^s of one int16 recording, unit length, ``(embedding_dim,)``: first window, repeated."""
    samples = np.resize(waveform, encoder.window_samples).astype(np.float32) / 32768.0
    return encoder(torch.from_numpy(samples)[None].to(device)).embedding[0]


def speech_scores(
    encoder: SpeechEncoder, voices: VoiceTable, device: torch.device
) -> dict[str, float]:
    """Accuracy of the sex and age heads on held-out recordings.

    Returns:
        ``sex``: share of right answers; ``age_within_10_years``: share whose decade is right or
        next to right, over recordings of known age; ``age_balanced``: the same, averaged over
        the true decades, so that always answering the commonest decade scores low.
    """
    embeddings = torch.stack([embed_clip(encoder, w, device) for w in voices.waveforms])
    encoding = encoder.describe(embeddings)
    sex = encoding.sex_logits.argmax(1).cpu().numpy()
    age = encoding.age_logits.argmax(1).cpu().numpy()
    known_sex, known_age = voices.sex != UNKNOWN, voices.age != UNKNOWN
    near = np.abs(age - voices.age) <= 1
    decades = [near[voices.age == decade].mean() for decade in np.unique(voices.age[known_age])]
    return {
        "sex": float((sex == voices.sex)[known_sex].mean()) if known_sex.any() else float("nan"),
        "age_within_10_years": float(near[known_age].mean()) if known_age.any() else float("nan"),
        "age_balanced": float(np.mean(decades)) if decades else float("nan"),
    }
