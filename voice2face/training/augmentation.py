"""Augmentation of voices: what rooms, microphones, telephones and codecs do to them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile as sf
import soxr

from voice2face.audio import SAMPLE_RATE

THREADS = 4


def random_speed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play up to 7 % faster or slower, pitch and formants included; length is kept."""
    factor = rng.uniform(0.93, 1.07)
    played = soxr.resample(waveform, factor * SAMPLE_RATE, SAMPLE_RATE)
    return np.resize(played, len(waveform)).astype(np.float32)


def random_band(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Limit the band and tilt the spectrum, as microphones and telephones do."""
    spectrum = np.fft.rfft(waveform)
    frequency = np.fft.rfftfreq(len(waveform), 1.0 / SAMPLE_RATE)
    low = rng.uniform(20.0, 300.0) if rng.random() < 0.5 else 0.0
    high = rng.uniform(3_000.0, 8_000.0) if rng.random() < 0.5 else 8_000.0
    tilt_db_per_octave = rng.uniform(-3.0, 3.0)
    octaves = np.log2(np.maximum(frequency, 50.0) / 1_000.0)
    gain = 10.0 ** (tilt_db_per_octave * octaves / 20.0)
    gain *= 1.0 / (1.0 + (low / np.maximum(frequency, 1.0)) ** 8)
    gain *= 1.0 / (1.0 + (frequency / high) ** 16) if high < 8_000.0 else 1.0
    return np.fft.irfft(spectrum * gain, len(waveform)).astype(np.float32)


def random_room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a synthetic room: exponentially decaying noise after the direct sound."""
    decay_seconds = rng.uniform(0.05, 0.4)
    length = int(decay_seconds * SAMPLE_RATE)
    response = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    response *= rng.uniform(0.05, 0.6) / np.sqrt(np.square(response).sum())
    response[0] = 1.0
    size = 1 << (len(waveform) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)
    return wet[: len(waveform)].astype(np.float32)


def random_noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white to brown noise at 5 to 40 dB below the speech."""
    colour = rng.uniform(0.0, 1.0)
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** colour
    noise = np.fft.irfft(spectrum, len(waveform))
    decibels = rng.uniform(5.0, 40.0)
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


def augment_voices(waveforms: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """``augment_voice`` of each, several at once, each with randomness of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(augment_voice, waveforms, rng.spawn(len(waveforms))))


def augment_voice(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a random chain of speed, band limit, room, noise, codec and gain; length is kept."""
    for probability, change in (
        (0.5, random_speed),
        (0.5, random_band),
        (0.25, random_room),
        (0.5, random_noise),
        (0.15, random_codec),
    ):
        if rng.random() < probability:
            waveform = change(waveform, rng)
    gain = 10.0 ** (rng.uniform(-20.0, 3.0) / 20.0)
    return np.clip(waveform * gain, -1.0, 1.0).astype(np.float32)
