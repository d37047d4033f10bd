"""Which face goes with which voice: true pairs, or pairs bridged by sex and age decade."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

import numpy as np

from voice2face.training.tables import UNKNOWN, FaceTable, VoiceTable

PROBED = 256


class Pairing(Protocol):
    """Draws (face, voice) rows and says which faces and voices of a batch belong together."""

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        ...

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """``(len(faces), len(voices))`` boolean: may this voice belong to that face?"""
        ...


class AttributeBridge:
    """Pairs of strangers that share sex and age decade.

    Such a pair teaches what a voice tells about sex and age, and leaves everything else to
    chance. Speakers of unknown age are drawn now and then for a face of their sex.

    Args:
        faces: the faces' table.
        voices: the voices' table.
        balance: 0 draws (sex, age) groups as often as they occur among the faces, 1 draws all
            groups equally often, values between interpolate the exponent.
        unknown_age_share: share of the voices drawn from speakers of unknown age.
    """

    def __init__(
        self,
        faces: FaceTable,
        voices: VoiceTable,
        *,
        balance: float = 0.5,
        unknown_age_share: float = 0.1,
    ) -> None:
        self.face_labels = np.stack([faces.sex, faces.age], 1)
        self.voice_labels = np.stack([voices.sex, voices.age], 1)
        clips: dict[tuple[int, int], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, (label, speaker) in enumerate(zip(self.voice_labels, voices.speaker, strict=True)):
            clips[int(label[0]), int(label[1])][speaker].append(row)
        self.clips = {group: list(of_group.values()) for group, of_group in clips.items()}
        known = {group for group in self.clips if UNKNOWN not in group}
        rows: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, (sex, age) in enumerate(self.face_labels):
            if (int(sex), int(age)) in known:
                rows[int(sex), int(age)].append(row)
        if not rows:
            raise ValueError("no face shares sex and age decade with any voice")
        self.groups = sorted(rows)
        self.faces_of_group = [np.array(rows[group]) for group in self.groups]
        weights = np.array([len(rows[group]) for group in self.groups], float) ** (1.0 - balance)
        self.group_weights = weights / weights.sum()
        self.unknown_age_share = unknown_age_share

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        drawn = rng.choice(len(self.groups), count, p=self.group_weights)
        faces = np.array([rng.choice(self.faces_of_group[group]) for group in drawn])
        voices = np.array([self._voice(rng, self.groups[group]) for group in drawn])
        return faces, voices

    def _voice(self, rng: np.random.Generator, group: tuple[int, int]) -> int:
        ageless = (group[0], UNKNOWN)
        if ageless in self.clips and rng.random() < self.unknown_age_share:
            group = ageless
        speakers = self.clips[group]
        clips = speakers[rng.integers(len(speakers))]
        return clips[rng.integers(len(clips))]

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """A voice may belong to a face of its sex, and of its age decade where that is known."""
        face, voice = self.face_labels[faces][:, None], self.voice_labels[voices][None]
        same_age = (face[..., 1] == voice[..., 1]) | (voice[..., 1] == UNKNOWN)
        return (face[..., 0] == voice[..., 0]) & same_age


class TruePairs:
    """Faces and voices of the same people, by the person that each row names.

    Args:
        face_people: the person of each face row.
        voice_people: the person of each voice row.
    """

    def __init__(self, face_people: list[str], voice_people: list[str]) -> None:
        number = {person: k for k, person in enumerate(sorted({*face_people, *voice_people}))}
        self.face_people = np.array([number[person] for person in face_people])
        self.voice_people = np.array([number[person] for person in voice_people])
        shared = sorted({*self.face_people.tolist()} & {*self.voice_people.tolist()})
        if not shared:
            raise ValueError("no person has both a face and a voice in this table")
        self.faces_of = [np.flatnonzero(self.face_people == person) for person in shared]
        self.voices_of = [np.flatnonzero(self.voice_people == person) for person in shared]

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        people = rng.integers(len(self.faces_of), size=count)
        faces = np.array([rng.choice(self.faces_of[person]) for person in people])
        voices = np.array([rng.choice(self.voices_of[person]) for person in people])
        return faces, voices

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """A voice belongs to the faces of the same person."""
        return self.face_people[faces][:, None] == self.voice_people[voices][None]


class ChosenFaces:
    """Pairs of another pairing, of some of its faces alone.

    Args:
        pairing: draws them, again where a face was not chosen.
        chosen: ``(faces,)`` boolean.
    """

    def __init__(self, pairing: Pairing, chosen: np.ndarray) -> None:
        self.pairing, self.chosen = pairing, chosen
        if not chosen[pairing.sample(np.random.default_rng(0), PROBED)[0]].any():
            raise ValueError("next to no face that a voice may belong to was chosen")

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        faces, voices = self.pairing.sample(rng, count)
        while not (kept := self.chosen[faces]).all():
            faces[~kept], voices[~kept] = self.pairing.sample(rng, int((~kept).sum()))
        return faces, voices

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """As the other pairing says."""
        return self.pairing.matches(faces, voices)
