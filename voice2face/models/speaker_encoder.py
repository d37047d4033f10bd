"""Speech encoder over a speaker-verification network: six seconds of a voice to Z^s.

GE2E (Wan et al. 2018, arXiv 1710.10467) learns from thousands of speakers to tell who speaks. What
it listens to tells sex and age of strangers in other rooms and languages better than what a
spectrogram CNN learns from the labels of a few hours of speech.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.models.attribute_heads import SpeechEncoding
from voice2face.models.network import DIMENSION, Network, Ranges, register_to_config
from voice2face.models.spectrograms import MelSpectrogram
from voice2face.models.windowed_speech_encoder import SPEECH_RANGES, WindowedSpeechEncoder


class SpeakerEncoder(WindowedSpeechEncoder, Network):
    """GE2E's recurrent network, then one linear layer to Z^s.

    The network hears slices of 1.6 s that overlap by half; its answers are averaged, standardised
    over the training voices, and projected to the space that faces share. It may take any
    published weights of this shape and stay frozen while the projection is trained.

    Args:
        sample_rate: samples a second of the input.
        window_seconds: length of the speech that one embedding is made from.
        mels: bands of the spectrogram.
        slice_frames: frames of 10 ms that the network hears at once.
        hidden_size: width of the network.
        layers: its depth.
        speaker_dim: numbers that it says of a slice.
        embedding_dim: size of Z^s.
        dropout: share of those numbers dropped while training.
    """

    ranges: ClassVar[Ranges] = {
        **SPEECH_RANGES,
        "mels": (1, 512),
        "slice_frames": (1, 3_000),
        "hidden_size": DIMENSION,
        "layers": (1, 16),
        "speaker_dim": DIMENSION,
    }
    least_likeness = 0.6
    speaker_mean: Tensor
    speaker_std: Tensor

    @register_to_config
    def __init__(
        self,
        sample_rate: int = 16_000,
        window_seconds: float = 6.0,
        mels: int = 40,
        slice_frames: int = 160,
        hidden_size: int = 256,
        layers: int = 3,
        speaker_dim: int = 256,
        embedding_dim: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.spectrogram = MelSpectrogram(sample_rate, mels)
        self.recurrent = nn.LSTM(mels, hidden_size, layers, batch_first=True)
        self.to_speaker = nn.Linear(hidden_size, speaker_dim)
        self.register_buffer("speaker_mean", torch.zeros(speaker_dim))
        self.register_buffer("speaker_std", torch.ones(speaker_dim))
        self.to_embedding = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(speaker_dim, embedding_dim)
        )
        self.add_heads(embedding_dim)

    def speaker_features(self, waveform: Tensor) -> Tensor:
        """What the speaker network says of ``(batch, samples)``: ``(batch, speaker_dim)``."""
        spectrogram = self.spectrogram(waveform)
        length = self.config.slice_frames
        missing = length - spectrogram.shape[1]
        if missing > 0:
            spectrogram = F.pad(spectrogram, (0, 0, 0, missing))
        slices = spectrogram.unfold(1, length, length // 2).mT
        batch, count = slices.shape[:2]
        _, (hidden, _) = self.recurrent(slices.flatten(0, 1).to(self.dtype))
        return self.to_speaker(hidden[-1]).unflatten(0, (batch, count)).mean(1)

    def forward(self, waveform: Tensor) -> SpeechEncoding:
        """Encode windows of speech.

        Args:
            waveform: ``(batch, window_samples)``, mono in [-1, 1] at ``sample_rate``. Shorter or
                longer windows work too, since slices are averaged.

        Returns:
            The embedding, the two heads' logits, and what tells speakers apart.
        """
        return self.project(self.speaker_features(waveform))

    def project(self, features: Tensor) -> SpeechEncoding:
        """Z^s and the heads' logits for what ``speaker_features`` returned."""
        standardised = (features - self.speaker_mean) / self.speaker_std
        encoding = self.describe(F.normalize(self.to_embedding(standardised).float(), dim=-1))
        # the published network was trained to compare what a rectifier leaves
        return encoding._replace(speaker=F.normalize(F.relu(features.float()), dim=-1))
