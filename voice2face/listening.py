"""From a loaded recording to the voice that portraits are drawn for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from voice2face.audio.loading import load_audio, memory_for, name_of
from voice2face.audio.quality import (
    CLIPPED,
    NOISY,
    SEVERAL_SPEAKERS,
    TELEPHONE,
    is_clipped,
    is_noisy,
    is_of_telephone,
    least_likeness_of,
)
from voice2face.audio.voice_activity import join_frames, speech_frames, speech_windows
from voice2face.audio.waveform import SAMPLE_RATE, Waveform
from voice2face.errors import AudioFormatError, NoSpeechError
from voice2face.evidence import Evidence
from voice2face.models import SpeakerEncoder, SpeechEncoder
from voice2face.models.attribute_heads import AGE_DECADES

MOST_WINDOWS_AT_ONCE = 32


class Speech(NamedTuple):
    """A recording, mono at 16 kHz, and which of its frames are speech."""

    waveform: Waveform
    kept: NDArray[np.bool_]


class Voice(NamedTuple):
    """A recording as the denoiser hears it: Z^s, ``(embedding_dim,)``, evidence, checksum."""

    embedding: Tensor
    evidence: Evidence
    audio_sha256: str

    def __eq__(self, other: object) -> bool:
        """Whether both were heard alike in the same samples, on whichever device."""
        return (
            isinstance(other, Voice)
            and self[1:] == other[1:]
            and self.embedding.tolist() == other.embedding.tolist()
        )

    def __ne__(self, other: object) -> bool:
        """Whether they differ; a tuple would compare anew."""
        return not self == other


def is_direction(embedding: Tensor) -> bool:
    """Whether an embedding is finite and not zero; one that is not on the CPU is trusted."""
    return embedding.device.type != "cpu" or 0 < float(embedding.float().norm()) < math.inf


@torch.no_grad()
def hear(
    speech: Speech,
    encoder: SpeechEncoder | SpeakerEncoder,
    on_windows: Callable[[int, int], None] | None = None,
) -> Voice:
    """Embed speech, averaged over its windows, and say what it tells.

    Args:
        speech: of a recording.
        encoder: of the checkpoint.
        on_windows: told how many windows were heard, and how many there are, as they are.
    """
    waveform, kept = speech
    samples = join_frames(waveform, kept)
    windows = speech_windows(samples, seconds=encoder.config.window_seconds)
    batch = torch.from_numpy(windows).to(encoder.device)
    heard, count = [], 0
    for part in batch.split(MOST_WINDOWS_AT_ONCE):
        heard.append(encoder(part))
        count += len(part)
        if on_windows is not None:
            on_windows(count, len(windows))
    embedding = F.normalize(torch.cat([part.embedding for part in heard]).mean(0), dim=0)
    speakers = torch.cat([part.speaker for part in heard]).float()
    encoding = encoder.describe(embedding[None])
    male = encoding.sex_logits[0].float().softmax(0)[1:]
    ages = encoding.age_logits[0].float().softmax(0)
    told = torch.cat([least_likeness_of(speakers)[None], male, ages])
    # a GPU is still listening
    checksum = hashlib.sha256(np.ascontiguousarray(waveform, "<f4").data).hexdigest()
    warnings = [fault for fault, has in ((CLIPPED, is_clipped), (NOISY, is_noisy)) if has(waveform)]
    if is_of_telephone(samples):
        warnings.append(TELEPHONE)
    likeness, male_probability, *age_probabilities = told.tolist()
    if likeness < encoder.least_likeness:
        warnings.append(SEVERAL_SPEAKERS)
    return Voice(
        embedding,
        Evidence(
            speech_seconds=round(len(samples) / SAMPLE_RATE, 2),
            windows=len(windows),
            male_probability=male_probability,
            age_probabilities=dict(zip(AGE_DECADES, age_probabilities, strict=True)),
            warnings=tuple(warnings),
        ),
        checksum,
    )


def speech_of(recording: Any, sample_rate: int | None = None) -> Speech:
    """Decode a recording, as ``load_audio`` takes it, and find its speech.

    What this returned stays as it is.

    Raises:
        AudioError: the recording cannot be used; names the file.
    """
    if isinstance(recording, Speech):
        if sample_rate not in (None, SAMPLE_RATE):
            raise AudioFormatError(f"speech was brought to {SAMPLE_RATE} Hz; leave sample_rate out")
        return recording
    if isinstance(recording, Voice):
        raise AudioFormatError("this voice was heard before; use pipe.draw([voice], [seed])")
    with memory_for(recording):
        waveform = load_audio(recording, sample_rate)
        try:
            return Speech(waveform, speech_frames(waveform))
        except NoSpeechError as error:
            name = name_of(recording)
            raise NoSpeechError(f"{name}: {error}" if name else str(error)) from error
