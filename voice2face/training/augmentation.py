"""Augmentation of voices: what rooms, microphones, telephones and codecs do to them."""

from __future__ import annotations

import io

import numpy as np
import soundfile as sf
import soxr
import torch

from voice2face.training.tables import SAMPLE_RATE


def random_crop(waveform: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A float32 excerpt of exactly ``samples``; short recordings are repeated."""
    if len(waveform) < samples:
        waveform = np.tile(waveform, -(-samples // len(waveform)))
    start = int(rng.integers(len(waveform) - samples + 1))
    return waveform[start : start + samples].astype(np.float32) / 32768.0


def random_speed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play up to 7 % faster or slower, pitch and formants included; length is kept."""
    factor = rng.uniform(0.93, 1.07)
    played = soxr.resample(waveform, factor * SAMPLE_RATE, SAMPLE_RATE)
    return np.resize(played, len(waveform)).astype(np.float32)


def change_pitch(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the pitch by a factor while the formants stay where they are; length is kept.

    The recording is played faster or slower, which moves both, and the spectral envelope (the
    cepstrum below 2 ms) of every frame is moved back.
    """
    played = torch.from_numpy(soxr.resample(waveform, factor * SAMPLE_RATE, SAMPLE_RATE))
    size = 1024
    window = torch.hann_window(size)
    spectrum = torch.stft(played, size, size // 4, window=window, return_complex=True)
    cepstrum = torch.fft.irfft(spectrum.abs().clamp(min=1e-5).log(), dim=0)
    cepstrum[32:-31] = 0.0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    last = size // 2
    position = (torch.arange(last + 1) * factor).clamp(max=last)
    below = position.long().clamp(max=last - 1)
    wanted = torch.lerp(envelope[below], envelope[below + 1], (position - below)[:, None])
    spectrum = spectrum * (wanted - envelope).clamp(-3.0, 3.0).exp()
    changed = torch.istft(spectrum, size, size // 4, window=window, length=len(played))
    return np.resize(changed.numpy(), len(waveform)).astype(np.float32)


def random_pitch(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise or lower the pitch by a fifth or so, at most by half.

    How high people speak changes with the moment; the vocal tract behind the formants does not.
    """
    return change_pitch(waveform, float(np.exp(np.clip(0.2 * rng.standard_normal(), -0.4, 0.4))))


def random_band(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Limit the band and colour the spectrum, as microphones, telephones and editors do.

    A slope of up to 3 dB an octave, bumps and dips of about 4 dB an octave apart, sometimes a
    missing band.
    """
    spectrum = np.fft.rfft(waveform)
    frequency = np.fft.rfftfreq(len(waveform), 1.0 / SAMPLE_RATE)
    low = rng.uniform(20.0, 300.0) if rng.random() < 0.5 else 0.0
    high = rng.uniform(3_000.0, 8_000.0) if rng.random() < 0.5 else 8_000.0
    octaves = np.log2(np.maximum(frequency, 50.0) / 1_000.0)
    bumps_db = np.interp(octaves, np.arange(-4, 4), 4.0 * rng.standard_normal(8))
    gain = 10.0 ** ((rng.uniform(-3.0, 3.0) * octaves + bumps_db) / 20.0)
    gain *= 1.0 / (1.0 + (low / np.maximum(frequency, 1.0)) ** 8)
    gain *= 1.0 / (1.0 + (frequency / high) ** 16) if high < 8_000.0 else 1.0
    if rng.random() < 0.3:
        missing = rng.uniform(100.0, 5_000.0)
        gain[(frequency > missing) & (frequency < 1.25 * missing)] = 0.0
    return np.fft.irfft(spectrum * gain, len(waveform)).astype(np.float32)


def random_room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a synthetic room: exponentially decaying noise after the direct sound."""
    decay_seconds = rng.uniform(0.05, 0.6)
    length = int(decay_seconds * SAMPLE_RATE)
    response = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    response *= rng.uniform(0.05, 0.6) / np.sqrt(np.square(response).sum())
    response[0] = 1.0
    size = 1 << (len(waveform) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)
    return wet[: len(waveform)].astype(np.float32)


def random_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white to brown noise, from as loud as the speech to 40 dB below."""
    colour = rng.uniform(0.0, 1.0)
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** colour
    noise = np.fft.irfft(spectrum, len(waveform))
    decibels = rng.uniform(0.0, 40.0)
    scale = np.sqrt(np.square(waveform).mean() / (np.square(noise).mean() + 1e-12))
    return (waveform + noise * scale * 10.0 ** (-decibels / 20.0)).astype(np.float32)


def random_codec(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pass through a lossy codec: Vorbis or MP3 at a random quality, or 8-bit mu-law."""
    format_name = ("OGG", "MP3", "MULAW")[rng.integers(3)]
    if format_name == "MULAW":
        clipped = np.clip(waveform, -1.0, 1.0)
        companded = np.sign(clipped) * np.log1p(255.0 * np.abs(clipped)) / np.log(256.0)
        companded = np.round(companded * 127.0) / 127.0
        return (np.sign(companded) * (256.0 ** np.abs(companded) - 1.0) / 255.0).astype(np.float32)
    buffer = io.BytesIO()
    sf.write(
        buffer,
        np.clip(waveform, -1.0, 1.0),
        SAMPLE_RATE,
        format=format_name,
        compression_level=float(rng.uniform(0.3, 0.95)),
    )
    buffer.seek(0)
    decoded, _ = sf.read(buffer, dtype="float32")
    return np.resize(decoded, len(waveform)) if len(decoded) else waveform


def random_background(
    waveform: np.ndarray, background: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Add other sound of the same length, other people's speech say, 8 to 30 dB below."""
    decibels = rng.uniform(8.0, 30.0)
    scale = np.sqrt(np.square(waveform).mean() / (np.square(background).mean() + 1e-12))
    return (waveform + background * scale * 10.0 ** (-decibels / 20.0)).astype(np.float32)


def augment_voice(
    waveform: np.ndarray, rng: np.random.Generator, background: np.ndarray | None = None
) -> np.ndarray:
    """Apply a random chain of speed, band, background, room, noise, codec and gain.

    Args:
        waveform: float32 samples; as many come back.
        rng: what everything is drawn from.
        background: sound that may be mixed in, as long as the waveform.
    """
    if rng.random() < 0.5:
        waveform = random_pitch(waveform, rng)
    if rng.random() < 0.5:
        waveform = random_speed(waveform, rng)
    if background is not None and rng.random() < 0.25:
        waveform = random_background(waveform, background, rng)
    for probability, change in (
        (0.6, random_band),
        (0.3, random_room),
        (0.5, random_noise),
        (0.15, random_codec),
    ):
        if rng.random() < probability:
            waveform = change(waveform, rng)
    gain = 10.0 ** (rng.uniform(-20.0, 3.0) / 20.0)
    return np.clip(waveform * gain, -1.0, 1.0).astype(np.float32)
