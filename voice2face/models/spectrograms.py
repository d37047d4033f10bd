"""Spectrograms: log-power over linear frequencies, and power over a mel scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voice2face.devices import constant_on

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
LOUDNESS_DBFS = -22.0


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
                constant_on(waveform.device, hann_window, self.window_length),
                return_complex=True,
            )
            power = spectrum.abs().square()
            floor = 1e-5 * power.mean((1, 2), keepdim=True) + 1e-10
            log_power = torch.log(power + floor)
            centred = log_power - log_power.mean((1, 2), keepdim=True)
            spread = centred.square().mean((1, 2), keepdim=True).sqrt()
            return (centred / (spread + 1e-5)).unsqueeze(1)


class MelSpectrogram(nn.Module):
    """Mel power spectrogram of speech brought to one loudness.

    Args:
        sample_rate: samples a second of the input.
        mels: bands.
    """

    def __init__(self, sample_rate: int, mels: int) -> None:
        super().__init__()
        self.sample_rate, self.mels = sample_rate, mels
        self.fft_size = round(sample_rate * WINDOW_SECONDS)
        self.hop_length = round(sample_rate * HOP_SECONDS)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, frames, mels)``."""
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            loudness = waveform.square().mean(1, keepdim=True).sqrt().clamp(min=1e-5)
            spectrum = torch.stft(
                waveform * (10.0 ** (LOUDNESS_DBFS / 20.0) / loudness),
                self.fft_size,
                self.hop_length,
                window=constant_on(waveform.device, hann_window, self.fft_size),
                pad_mode="constant",
                return_complex=True,
            )
            filters = constant_on(
                waveform.device, mel_filters, self.sample_rate, self.fft_size, self.mels
            )
            return (filters @ spectrum.abs().square()).mT


def hann_window(length: int) -> Tensor:
    """The periodic window of Hann, ``(length,)`` float32."""
    return torch.hann_window(length, dtype=torch.float32)


def mel_filters(sample_rate: int, fft_size: int, mels: int) -> Tensor:
    """Triangular filters of equal area, ``(mels, fft_size // 2 + 1)``, from 0 Hz to half the rate.

    On Slaney's mel scale, which is linear below 1 kHz and logarithmic above.
    """
    linear_until, per_mel, single = 1_000.0, 200.0 / 3.0, torch.float32
    log_step = 27.0 / torch.tensor(6.4, dtype=single).log()
    linear_mels = linear_until / per_mel
    highest = (
        linear_mels + log_step * torch.tensor(sample_rate / 2 / linear_until, dtype=single).log()
    )
    points = torch.linspace(0.0, float(highest), mels + 2, dtype=torch.float64)
    edges = torch.where(
        points < linear_mels,
        points * per_mel,
        linear_until * ((points - linear_mels) / log_step).exp(),
    )
    frequencies = torch.linspace(0.0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    rising = (frequencies - edges[:-2, None]) / edges.diff()[:-1, None]
    falling = (edges[2:, None] - frequencies) / edges.diff()[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp(min=0.0) * area[:, None]).float()
