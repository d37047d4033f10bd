"""Speech encoder: six seconds of a voice to its embedding Z^s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from voice2face.devices import constant_on
from voice2face.models.cbam import CBAM
from voice2face.models.network import Network

AGE_DECADES = ("20-29", "30-39", "40-49", "50-59", "60-69", "70+")


class SpeechEncoding(NamedTuple):
    """What the speech encoder says of a batch of windows.

    Attributes:
        embedding: Z^s, ``(batch, embedding_dim)``, unit length.
        sex_logits: ``(batch, 2)``, female and male.
        age_logits: ``(batch, 6)``, the decades of ``AGE_DECADES``.
        speaker: ``(batch, dim)``, unit length: what tells speakers apart best.
    """

    embedding: Tensor
    sex_logits: Tensor
    age_logits: Tensor
    speaker: Tensor


class Spectrogram(nn.Module):
    """Log-power STFT, standardised per window, so that loudness does not matter.

    Args:
        sample_rate: samples a second of the input.
        window_ms: length of the Hann window in milliseconds.
        hop_ms: distance between two frames in milliseconds.
        fft_size: points of the Fourier transform.
    """

    def __init__(self, sample_rate: int, window_ms: float, hop_ms: float, fft_size: int) -> None:
        super().__init__()
        self.window_length = round(sample_rate * window_ms / 1000)
        self.hop_length = round(sample_rate * hop_ms / 1000)
        self.fft_size = fft_size

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, fft_size // 2 + 1, frames)``."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.fft_size,
                self.hop_length,
                self.window_length,
                constant_on(waveform.device, torch.hann_window, self.window_length),
                return_complex=True,
            )
            power = spectrum.abs().square()
            floor = 1e-5 * power.mean((1, 2), keepdim=True) + 1e-10
            log_power = torch.log(power + floor)
            centred = log_power - log_power.mean((1, 2), keepdim=True)
            spread = centred.square().mean((1, 2), keepdim=True).sqrt()
            return (centred / (spread + 1e-5)).unsqueeze(1)


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


class AttributeHeads:
    """Heads for sex and age over Z^s, of speech encoders and of denoisers that are told of both.

    They shape the embedding while training and give the evidence of a portrait.
    """

    dtype: torch.dtype

    def add_heads(self, embedding_dim: int) -> None:
        """Make the heads, once ``nn.Module`` is ready."""
        self.sex_head = nn.Linear(embedding_dim, 2)
        self.age_head = nn.Linear(embedding_dim, len(AGE_DECADES))

    def describe(self, embedding: Tensor) -> SpeechEncoding:
        """Attach the heads' logits to unit-length embeddings ``(batch, embedding_dim)``."""
        scaled = (embedding * embedding.shape[-1] ** 0.5).to(self.dtype)
        return SpeechEncoding(embedding, self.sex_head(scaled), self.age_head(scaled), embedding)


class HearsWindows(AttributeHeads):
    """What speech encoders have in common: a window's length, and the heads.

    Attributes:
        least_likeness: cosine of ``SpeechEncoding.speaker`` that two windows of one person exceed.
    """

    config: Any
    least_likeness: ClassVar[float] = 0.8

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.config.sample_rate * self.config.window_seconds)


class SpeechEncoder(HearsWindows, Network):
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
