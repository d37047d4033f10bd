"""How the speech encoder's heads are scored on held-out recordings."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.conftest import tiny_components
from voice2face.data.tables import UNKNOWN, VoiceTable
from voice2face.models.attribute_heads import AGE_DECADES, SpeechEncoding
from voice2face.training.clip_embeddings import AT_ONCE, embed_clips
from voice2face.training.speech_scores import speech_scores

FEMALE, MALE = 0, 1


class Says:
    """An encoder that says prepared logits of the recording whose number it hears."""

    window_samples = 4

    def __init__(self, sex: list[float], age: list[int], sex_disturbed: list[float]) -> None:
        male = torch.tensor([sex, sex_disturbed])
        ages = torch.nn.functional.one_hot(torch.tensor(age), len(AGE_DECADES)).expand(2, -1, -1)
        self.logits = torch.cat([torch.stack([-male, male], 2), ages.float()], 2)

    def __call__(self, waveforms: torch.Tensor) -> SimpleNamespace:
        said = (waveforms[:, 0] * 32768).round().long()
        return SimpleNamespace(embedding=self.logits[said // 100, said % 100])

    def describe(self, embedding: torch.Tensor) -> SpeechEncoding:
        return SpeechEncoding(embedding, embedding[:, :2], embedding[:, 2:], embedding)


@pytest.fixture(autouse=True)
def disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "voice2face.training.clip_embeddings.augment_voice",
        lambda samples, _: samples + np.float32(100 / 32768),
    )


def scores(
    true_sex: list[int],
    true_age: list[int],
    speaker: str,
    *,
    male: list[float] | None = None,
    age: list[int] | None = None,
    male_disturbed: list[float] | None = None,
) -> dict[str, float]:
    count = len(true_sex)
    male = male or [1.0] * count
    encoder = Says(male, age or [0] * count, male_disturbed or male)
    voices = VoiceTable(
        waveforms=[np.full(4, number, np.int16) for number in range(count)],
        sex=np.array(true_sex),
        age=np.array(true_age),
        speaker=list(speaker),
        ids=[str(number) for number in range(count)],
        corpus=[""] * count,
        licence=[""] * count,
    )
    return speech_scores(encoder, voices, torch.device("cpu"))


def test_always_answering_the_commonest_decade_scores_low_when_balanced() -> None:
    found = scores([MALE] * 10, [1] * 6 + [3, 4, 5, 5], "abcdefghij", age=[1] * 10)
    assert found["age_within_10_years"] == pytest.approx(0.6)
    assert found["age_balanced"] == pytest.approx(0.25)


def test_a_decade_next_to_the_right_one_is_right() -> None:
    found = scores([MALE] * 4, [2, 2, 2, 5], "abcd", age=[1, 3, 4, 4])
    assert found["age_within_10_years"] == pytest.approx(0.75)
    assert found["age_balanced"] == pytest.approx((2 / 3 + 1.0) / 2)


def test_a_speaker_is_heard_in_all_clips_together() -> None:
    found = scores(
        [FEMALE, MALE, FEMALE, FEMALE, MALE],
        [0] * 5,
        "zazzm",
        male=[-3.0, 1.0, 1.0, 1.0, -0.5],
    )
    assert found["sex"] == pytest.approx(2 / 5)
    assert found["sex_by_speaker"] == pytest.approx(2 / 3)


def test_disturbed_recordings_are_scored_apart() -> None:
    found = scores(
        [FEMALE, MALE, FEMALE, MALE],
        [0] * 4,
        "abcd",
        male=[-1.0, 1.0, -1.0, 1.0],
        male_disturbed=[-1.0, -1.0, 1.0, -1.0],
    )
    assert (found["sex"], found["sex_by_speaker"], found["sex_disturbed"]) == (1.0, 1.0, 0.25)


def test_recordings_of_unknown_sex_or_age_do_not_count() -> None:
    true_sex, true_age, male, age = [FEMALE, MALE], [0, 4], [1.0, 1.0], [3, 4]
    known = scores(true_sex, true_age, "ab", male=male, age=age)
    more = scores(
        [UNKNOWN, *true_sex, UNKNOWN],
        [UNKNOWN, *true_age, UNKNOWN],
        "0abz",
        male=[-1.0, *male, 1.0],
        age=[0, *age, 0],
    )
    assert known == more
    assert set(known.values()) == {0.5}


@pytest.mark.filterwarnings("error")
def test_what_is_known_of_no_recording_has_no_score() -> None:
    found = scores([UNKNOWN] * 2, [UNKNOWN] * 2, "ab")
    assert len(found) == 5
    assert all(math.isnan(score) for score in found.values())


def test_a_recording_is_heard_alike_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, draws = tiny_components()["speech_encoder"].eval(), []
    monkeypatch.setattr(
        "voice2face.training.clip_embeddings.augment_voice",
        lambda samples, rng: draws.append(rng.random()) or samples,
    )
    rng, count = np.random.default_rng(0), AT_ONCE + 8
    clips = [rng.integers(-9000, 9000, 500 * (9 + k), dtype=np.int16) for k in range(count)]
    hear = partial(embed_clips, encoder, device=torch.device("cpu"))
    with torch.inference_mode():
        together = hear(clips, disturbed=False)
        alone = torch.cat([hear([clip], disturbed=False) for clip in clips])
        hear(clips, disturbed=True)
    assert together.shape == (count, 16)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert draws == [np.random.default_rng(number).random() for number in range(count)]
