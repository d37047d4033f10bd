"""Speech encoder: six seconds of a voice to its embedding Z^s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.models.attribute_heads import SpeechEncoding
from voice2face.models.cbam import CBAM
from voice2face.models.network import CHANNELS, LONGEST_LIST, Network, Ranges, register_to_config
from voice2face.models.spectrograms import Spectrogram
from voice2face.models.windowed_speech_encoder import SPEECH_RANGES, WindowedSpeechEncoder


class SpeechBlock(nn.Sequential):
    """One level of the speech encoder: a strided convolution, then CBAM where there is room.

    The first levels are large and their features local, so attention starts behind them.
    """

    def __init__(self, channels_in: int, channels: int, attention: bool) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        if attention:
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                CBAM(channels),
            ]
        super().__init__(*layers)


class SpeechEncoder(WindowedSpeechEncoder, Network):
    """The Speech2Face CNN over an STFT spectrogram, with CBAM, as SCLDM describes it.

    Time is averaged away after the last level while frequency keeps its place; a linear layer
    makes the embedding.

    Args:
        sample_rate: samples a second of the input.
        window_seconds: length of the speech that one embedding is made from.
        fft_size: points of the Fourier transform.
        window_ms: length of the analysis window in milliseconds.
        hop_ms: distance between two analysis frames in milliseconds.
        block_channels: width of each level; every level halves frequency and time.
        attention_from_level: first level with a second convolution and CBAM.
        embedding_dim: size of Z^s.
        dropout: share of the pooled features dropped while training.
    """

    ranges: ClassVar[Ranges] = {
        **SPEECH_RANGES,
        "fft_size": (64, 4096),
        "window_ms": (2.0, 250.0),
        "hop_ms": (1.0, 250.0),
        "block_channels": CHANNELS,
        "attention_from_level": (0, LONGEST_LIST),
    }

    @register_to_config
    def __init__(
        self,
        sample_rate: int = 16_000,
        window_seconds: float = 6.0,
        fft_size: int = 512,
        window_ms: float = 32.0,
        hop_ms: float = 16.0,
        block_channels: Sequence[int] = (24, 64, 128, 192, 256),
        attention_from_level: int = 2,
        embedding_dim: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(sample_rate, window_ms, hop_ms, fft_size)
        widths = [1, *block_channels]
        self.blocks = nn.Sequential(
            *(
                SpeechBlock(widths[level], channels, attention=level >= attention_from_level)
                for level, channels in enumerate(block_channels)
            )
        )
        rows = fft_size // 2 + 1
        for _ in block_channels:
            rows = (rows + 1) // 2
        self.to_embedding = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * rows * block_channels[-1], embedding_dim)
        )
        self.add_heads(embedding_dim)

    def forward(self, waveform: Tensor) -> SpeechEncoding:
        """Encode windows of speech.

        Args:
            waveform: ``(batch, window_samples)``, mono in [-1, 1] at ``sample_rate``. Shorter or
                longer windows work too, since time is averaged.

        Returns:
            The embedding, the two heads' logits, and the embedding again as the speaker's.
        """
        features = self.blocks(self.spectrogram(waveform).to(self.dtype))
        mean = features.mean(3)
        deviation = features.var(3, correction=0).add(1e-4).sqrt()
        pooled = torch.cat([mean, deviation], 1).flatten(1)
        return self.describe(F.normalize(self.to_embedding(pooled).float(), dim=-1))
