"""Which face goes with which voice: true pairs, or pairs bridged by sex and age decade."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from voice2face.data.tables import UNKNOWN, FaceTable, VoiceTable
from voice2face.errors import SettingError

PROBED = 256
BALANCE = 0.5  # 0 draws groups as often as they occur among the faces, 1 all equally often
UNKNOWN_AGE_SHARE = 0.1  # of the voices, drawn from speakers of unknown age


class Pairing(Protocol):
    """Draws (face, voice) rows and says which faces and voices of a batch belong together."""

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        ...

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """``(len(faces), len(voices))`` boolean: may this voice belong to that face?"""
        ...


class RaggedLists:
    """Lists of different lengths, none of them empty, from many of which is drawn at once.

    Args:
        lists: of whole numbers.
    """

    def __init__(self, lists: Sequence[Sequence[int] | np.ndarray]) -> None:
        self.values = np.concatenate([np.asarray(one) for one in lists])
        self.sizes = np.array([len(one) for one in lists])
        self.starts = np.cumsum(self.sizes) - self.sizes

    def draw(self, rng: np.random.Generator, which: np.ndarray) -> np.ndarray:
        """One value of each list that ``which`` ``(count,)`` numbers, each as likely."""
        return np.asarray(self.values[self.starts[which] + rng.integers(self.sizes[which])])


class AttributeBridge:
    """Pairs of strangers that share sex and age decade.

    Such a pair teaches what a voice tells about sex and age, and leaves everything else to
    chance. Speakers of unknown age are drawn now and then for a face of their sex.

    Args:
        faces: the faces' table.
        voices: the voices' table.

    Raises:
        SettingError: no face shares sex and age decade with a voice.
    """

    def __init__(self, faces: FaceTable, voices: VoiceTable) -> None:
        self.face_labels = np.stack([faces.sex, faces.age], 1)
        self.voice_labels = np.stack([voices.sex, voices.age], 1)
        clips: dict[tuple[int, int], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, (label, speaker) in enumerate(zip(self.voice_labels, voices.speaker, strict=True)):
            clips[int(label[0]), int(label[1])][speaker].append(row)
        rows: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, (sex, age) in enumerate(self.face_labels):
            if UNKNOWN not in (sex, age) and (int(sex), int(age)) in clips:
                rows[int(sex), int(age)].append(row)
        if not rows:
            unknown = filter(None, (faces.unknown_labels, voices.unknown_labels))
            raise SettingError(
                "; ".join(["no face shares sex and age decade with any voice", *unknown])
            )
        self.groups = sorted(rows)
        self.faces_of_group = RaggedLists([rows[group] for group in self.groups])
        weights = self.faces_of_group.sizes ** (1.0 - BALANCE)
        self.group_weights = weights / weights.sum()

        heard = sorted(clips)
        speakers = [clips_of for group in heard for clips_of in clips[group].values()]
        self.clips_of_speaker = RaggedLists(speakers)
        ends = np.cumsum([len(clips[group]) for group in heard])
        self.speakers_of_group = RaggedLists(np.split(np.arange(len(speakers)), ends[:-1]))
        number = {group: k for k, group in enumerate(heard)}
        self.same_age = np.array([number[group] for group in self.groups])
        self.ageless = np.array([number.get((sex, UNKNOWN), -1) for sex, _ in self.groups])

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        drawn = rng.choice(len(self.groups), count, p=self.group_weights)
        faces = self.faces_of_group.draw(rng, drawn)
        without_age = rng.random(count) < UNKNOWN_AGE_SHARE
        ageless = self.ageless[drawn]
        heard = np.where(without_age & (ageless >= 0), ageless, self.same_age[drawn])
        speakers = self.speakers_of_group.draw(rng, heard)
        return faces, self.clips_of_speaker.draw(rng, speakers)

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

    Raises:
        SettingError: nobody has both a face and a voice.
    """

    def __init__(self, face_people: list[str], voice_people: list[str]) -> None:
        number = {person: k for k, person in enumerate(sorted({*face_people, *voice_people}))}
        self.face_people = np.array([number[person] for person in face_people])
        self.voice_people = np.array([number[person] for person in voice_people])
        shared = sorted({*self.face_people.tolist()} & {*self.voice_people.tolist()})
        if not shared:
            raise SettingError("no person has both a face and a voice in this table")
        self.people = len(shared)
        self.faces_of = RaggedLists(
            [np.flatnonzero(self.face_people == person) for person in shared]
        )
        self.voices_of = RaggedLists(
            [np.flatnonzero(self.voice_people == person) for person in shared]
        )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        people = rng.integers(self.people, size=count)
        return self.faces_of.draw(rng, people), self.voices_of.draw(rng, people)

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """A voice belongs to the faces of the same person."""
        return self.face_people[faces][:, None] == self.voice_people[voices][None]


class ChosenFaces:
    """Pairs of another pairing, of some of its faces alone.

    Args:
        pairing: draws them, again where a face was not chosen.
        chosen: ``(faces,)`` boolean.

    Raises:
        SettingError: next to no face that is drawn was chosen.
    """

    def __init__(self, pairing: Pairing, chosen: np.ndarray) -> None:
        self.pairing, self.chosen = pairing, chosen
        if not chosen[pairing.sample(np.random.default_rng(0), PROBED)[0]].any():
            raise SettingError("next to no face that a voice may belong to was chosen")

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``count`` pairs: face rows and voice rows, each ``(count,)``."""
        faces, voices = self.pairing.sample(rng, count)
        while not (kept := self.chosen[faces]).all():
            faces[~kept], voices[~kept] = self.pairing.sample(rng, int((~kept).sum()))
        return faces, voices

    def matches(self, faces: np.ndarray, voices: np.ndarray) -> np.ndarray:
        """As the other pairing says."""
        return self.pairing.matches(faces, voices)
