"""Held-out figures of the speech encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from voice2face.data.tables import UNKNOWN, VoiceTable
from voice2face.models import SpeakerEncoder, SpeechEncoder
from voice2face.training.clip_embeddings import embed_clips


def speech_scores(
    encoder: SpeechEncoder | SpeakerEncoder, voices: VoiceTable, device: torch.device
) -> dict[str, float]:
    """Accuracy of the sex and age heads on held-out recordings.

    Returns:
        ``sex``: share of right answers; ``sex_by_speaker``: the same with each speaker's clips
        averaged; ``sex_disturbed``: over augmented recordings; ``age_within_10_years``: share
        whose decade is right or next to right, over recordings of known age; ``age_balanced``:
        the same, averaged over the true decades, so that always answering the commonest decade
        scores low.
    """
    nan = float("nan")
    known_age = voices.age != UNKNOWN
    embeddings = embed_clips(encoder, voices.waveforms, device, disturbed=False)
    disturbed = embed_clips(encoder, voices.waveforms, device, disturbed=True)
    _, first, speaker = np.unique(voices.speaker, return_index=True, return_inverse=True)
    owner = torch.from_numpy(speaker).to(device)
    sums = torch.zeros(len(first), embeddings.shape[1], device=device)
    sums.index_add_(0, owner, embeddings.float())

    def right_sex(of: torch.Tensor, sex: np.ndarray) -> float:
        said = encoder.describe(of).sex_logits.argmax(1).cpu().numpy()
        return float((said == sex)[sex != UNKNOWN].mean()) if (sex != UNKNOWN).any() else nan

    age = encoder.describe(embeddings).age_logits.argmax(1).cpu().numpy()
    near = np.abs(age - voices.age) <= 1
    decades = [near[voices.age == decade].mean() for decade in np.unique(voices.age[known_age])]
    return {
        "sex": right_sex(embeddings, voices.sex),
        "sex_by_speaker": right_sex(F.normalize(sums, dim=1), voices.sex[first]),
        "sex_disturbed": right_sex(disturbed, voices.sex),
        "age_within_10_years": float(near[known_age].mean()) if known_age.any() else nan,
        "age_balanced": float(np.mean(decades)) if decades else nan,
    }
