from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voice2face import Voice2FacePipeline, load_audio
from voice2face.audio.quality import (
    CLIPPED,
    NOISY,
    SEVERAL_SPEAKERS,
    TELEPHONE,
    is_clipped,
    is_noisy,
    is_of_telephone,
)
from voice2face.audio.voice_activity import frames_of, join_frames, speech_frames


def test_good_recordings_are_not_warned_of(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    for path in (female_speech, male_speech):
        assert pipeline.listen(path).evidence.warnings == ()


def test_clipping_is_noticed(female_speech: Path) -> None:
    speech = load_audio(female_speech)
    peak = np.abs(speech).max()
    assert not is_clipped(speech)
    assert not is_clipped(0.1 * speech)
    assert is_clipped(np.clip(speech, -0.3 * peak, 0.3 * peak))


@pytest.mark.parametrize(("decibels", "noisy"), [(40.0, False), (10.0, True), (0.0, True)])
def test_noise_is_noticed(male_speech: Path, decibels: float, noisy: bool) -> None:
    speech = load_audio(male_speech)
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    scale = np.sqrt(np.square(speech).mean()) * 10 ** (-decibels / 20)
    assert is_noisy(speech + scale * noise) is noisy


def test_an_offset_of_the_microphone_is_no_noise(male_speech: Path) -> None:
    assert not is_noisy(load_audio(male_speech) + np.float32(0.02))


@pytest.mark.parametrize("offset", [0.1, 0.3, 1.0])
def test_a_large_offset_changes_no_voice(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path, offset: float
) -> None:
    for path in (female_speech, male_speech):
        speech = load_audio(path)
        voice = pipeline.listen(speech, 16_000)
        shifted = pipeline.listen(speech + np.float32(offset), 16_000)
        assert float(shifted.embedding @ voice.embedding) > 0.98


def test_of_small_offsets_speech_is_left_as_it_is(female_speech: Path, male_speech: Path) -> None:
    for path in (female_speech, male_speech):
        speech = load_audio(path)
        for offset in np.float32([0.0, 0.01, -0.02]):
            shifted = speech + offset
            kept = speech_frames(shifted)
            np.testing.assert_array_equal(
                join_frames(shifted, kept), frames_of(shifted)[kept].reshape(-1)
            )


def band(speech: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Speech at 16 kHz without what lies below and above, with slopes as filters have."""
    hertz = np.maximum(np.fft.rfftfreq(len(speech), 1 / 16_000), 1e-3)
    gain = 1 / np.sqrt((1 + (lowest / hertz) ** 20) * (1 + (hertz / highest) ** 40))
    return np.fft.irfft(np.fft.rfft(speech) * gain, len(speech)).astype(np.float32)


def test_the_band_of_a_telephone_is_noticed(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    for path in (female_speech, male_speech):
        telephone = band(load_audio(path), 300.0, 3400.0)
        assert pipeline.listen(telephone, 16_000).evidence.warnings == (TELEPHONE,)
        assert pipeline.listen(telephone[::2], 8_000).evidence.warnings == (TELEPHONE,)


def test_speech_that_lacks_high_tones_or_deep_ones_alone_is_none_of_a_telephone(
    female_speech: Path, male_speech: Path
) -> None:
    for path in (female_speech, male_speech):
        speech = load_audio(path)
        assert not is_of_telephone(speech)
        assert not is_of_telephone(band(speech, 1.0, 3600.0))
        assert not is_of_telephone(band(speech, 300.0, 9000.0))
        assert not is_of_telephone(speech[:100])


def test_a_recording_tells_all_that_is_wrong_with_it(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    woman, man = (np.resize(load_audio(path), 96_000) for path in (female_speech, male_speech))
    both = np.concatenate([woman, man])
    assert pipeline.listen(both, 16_000).evidence.warnings == (SEVERAL_SPEAKERS,)
    noise = 0.3 * np.random.default_rng(0).standard_normal(len(woman)).astype(np.float32)
    loud = np.clip(woman + noise, -0.3, 0.3).astype(np.float32)
    assert pipeline.listen(loud, 16_000).evidence.warnings == (CLIPPED, NOISY)
