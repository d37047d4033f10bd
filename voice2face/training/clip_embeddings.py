"""Z^s of recordings, as the figures, the retrieval index and portraits to learn from need it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from voice2face.models import SpeakerEncoder, SpeechEncoder
from voice2face.training.augmentation import augment_voice

AT_ONCE = 32


def embed_clips(
    encoder: SpeechEncoder | SpeakerEncoder,
    waveforms: list[np.ndarray],
    device: torch.device,
    *,
    disturbed: bool,
) -> Tensor:
    """Z^s of the first window of int16 recordings, ``(N, embedding_dim)``.

    A recording shorter than a window is repeated to fill it.

    Disturbed ones pass through one fixed draw of the training's augmentation.
    """
    embeddings = []
    for first in range(0, len(waveforms), AT_ONCE):
        windows = []
        for number, waveform in enumerate(waveforms[first : first + AT_ONCE], first):
            window = np.resize(waveform, encoder.window_samples).astype(np.float32) / 32768.0
            if disturbed:
                window = augment_voice(window, np.random.default_rng(number))
            windows.append(window)
        embeddings.append(encoder(torch.from_numpy(np.stack(windows)).to(device)).embedding)
    return torch.cat(embeddings)
