"""From a loaded recording to the voice that portraits are drawn for."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from voice2face.audio import (
    SAMPLE_RATE,
    find_speech,
    load_audio,
    memory_for,
    name_of,
    speech_windows,
)
from voice2face.errors import AudioError, NoSpeechError
from voice2face.models import SpeakerEncoder, SpeechEncoder
from voice2face.models.speech_encoder import AGE_DECADES
from voice2face.portrait import Evidence
from voice2face.recording_quality import (
    CLIPPED,
    NOISY,
    SEVERAL_SPEAKERS,
    is_clipped,
    is_noisy,
    sounds_like_several,
)

MOST_WINDOWS_AT_ONCE = 32


class Speech(NamedTuple):
    """The speech found in a recording, mono at 16 kHz, with checksum and faults of the whole."""

    samples: NDArray[np.float32]
    audio_sha256: str
    warnings: tuple[str, ...]


class Voice(NamedTuple):
    """A recording as the denoiser hears it: Z^s, ``(embedding_dim,)``, evidence, checksum."""

    embedding: Tensor
    evidence: Evidence
    audio_sha256: str


@torch.no_grad()
def hear(speech: Speech, encoder: SpeechEncoder | SpeakerEncoder) -> Voice:
    """Embed speech, averaged over its windows, and say what it tells."""
    windows = speech_windows(speech.samples, seconds=encoder.config.window_seconds)
    batch = torch.from_numpy(windows).to(encoder.device)
    heard = [encoder(part) for part in batch.split(MOST_WINDOWS_AT_ONCE)]
    embedding = F.normalize(torch.cat([part.embedding for part in heard]).mean(0), dim=0)
    speakers = torch.cat([part.speaker for part in heard]).float()
    several = sounds_like_several(speakers, encoder.least_likeness)
    encoding = encoder.describe(embedding[None])
    age = encoding.age_logits[0].float().softmax(0).tolist()
    return Voice(
        embedding,
        Evidence(
            speech_seconds=round(len(speech.samples) / SAMPLE_RATE, 2),
            windows=len(windows),
            male_probability=float(encoding.sex_logits[0].float().softmax(0)[1]),
            age_probabilities=dict(zip(AGE_DECADES, age, strict=True)),
            warnings=speech.warnings + ((SEVERAL_SPEAKERS,) if several else ()),
        ),
        speech.audio_sha256,
    )


def find_in(waveform: NDArray[np.float32]) -> Speech:
    """The speech in a loaded recording.

    Raises:
        NoSpeechError: there is too little.
    """
    checksum = hashlib.sha256(np.ascontiguousarray(waveform, "<f4")).hexdigest()
    faults = {CLIPPED: is_clipped, NOISY: is_noisy}
    speech = find_speech(waveform)
    return Speech(speech, checksum, tuple(text for text, has in faults.items() if has(waveform)))


def speech_of(recording: Any, sample_rate: int | None = None) -> Speech:
    """Decode a recording, as ``load_audio`` takes it, and find its speech.

    Raises:
        AudioError: the recording cannot be used; names the file.
    """
    try:
        with memory_for(recording):
            return find_in(load_audio(recording, sample_rate))
    except NoSpeechError as error:
        name = name_of(recording)
        raise NoSpeechError(f"{name}: {error}" if name else str(error)) from error


def read_speech(recording: Any) -> Speech | AudioError:
    """The speech of a recording, or why there is none."""
    try:
        return speech_of(recording)
    except AudioError as error:
        return error
