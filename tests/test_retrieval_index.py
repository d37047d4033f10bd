"""Which faces and voices become entries of a retrieval index."""

from __future__ import annotations

import numpy as np
import pytest

from voice2face.data.tables import UNKNOWN, FaceTable, VoiceTable
from voice2face.training.pairing import AttributeBridge, ChosenFaces, Pairing, TruePairs
from voice2face.training.retriever import draw_pairs

FACES, VOICES = 60, 50


def strangers() -> AttributeBridge:
    rng = np.random.default_rng(0)
    ids = [str(row) for row in range(FACES)]
    sex, age = rng.integers(0, 2, FACES), rng.integers(0, 4, FACES)
    faces = FaceTable(np.zeros((FACES, 1, 1, 3)), sex, age, np.zeros((FACES, 6)), ids)
    speakers = [str(row // 2) for row in range(VOICES)]
    names = [speakers, ids[:VOICES], [""] * VOICES, [""] * VOICES]
    sex, age = rng.integers(0, 2, VOICES), rng.integers(0, 4, VOICES)
    age[::7] = UNKNOWN
    return AttributeBridge(faces, VoiceTable([np.zeros(1)] * VOICES, sex, age, *names))


def people() -> TruePairs:
    return TruePairs([str(row % 20) for row in range(FACES)], [str(row % 25) for row in range(50)])


def chosen() -> ChosenFaces:
    return ChosenFaces(strangers(), np.arange(FACES) % 3 > 0)


@pytest.mark.parametrize("pairing", [strangers(), people(), chosen()])
@pytest.mark.parametrize("count", [1, 12, 25])
def test_each_face_and_each_voice_is_used_once_and_goes_with_the_other(
    pairing: Pairing, count: int
) -> None:
    faces, voices = draw_pairs(pairing, count, seed=3)
    assert len(faces) == len(voices) == count
    assert len(set(faces.tolist())) == len(set(voices.tolist())) == count
    assert pairing.matches(faces, voices).diagonal().all()
    if isinstance(pairing, ChosenFaces):
        assert pairing.chosen[faces].all()


def test_more_entries_than_there_are_pairs_end_in_all_that_fit() -> None:
    pairing = TruePairs(list("aaabbbc"), list("aaabbbd"))
    faces, voices = draw_pairs(pairing, 100, seed=0)
    of_faces, of_voices = pairing.face_people[faces], pairing.voice_people[voices]
    assert sorted(of_faces.tolist()) == sorted(of_voices.tolist()) == [0, 0, 0, 1, 1, 1]
    assert len(set(faces.tolist())) == len(set(voices.tolist())) == 6


def test_the_same_seed_draws_the_same_pairs() -> None:
    pairing = strangers()
    first, again, other = (draw_pairs(pairing, 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
