"""What is heard in the test speakers' voices, and whether their portraits show it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from voice2face.audio import SAMPLE_RATE
from voice2face.data.tables import SEXES, UNKNOWN, VoiceTable
from voice2face.errors import AudioError
from voice2face.evaluation.agreement import bootstrap_share, share_of_known, within_one_decade
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.judge import Verdict
from voice2face.evaluation.real_faces import random_faces
from voice2face.evaluation.report import Report
from voice2face.evaluation.sheets import captioned_sheet
from voice2face.listening import Voice
from voice2face.models.attribute_heads import AGE_DECADES
from voice2face.pipeline import Voice2FacePipeline

logger = logging.getLogger("voice2face.evaluation")

HEARD = "the voice is heard, test speakers"
ENCODER, PORTRAITS = f"{HEARD}: speech encoder", f"{HEARD}: portraits"
CLIPS_AVERAGED = f"{ENCODER}, clips averaged"
REAL_FACES = f"{HEARD}: real faces of the sex and age heard"
SHOWN = 64
COMMON_AGE = "30-39"
ALWAYS_COMMON = f"age within 10 years, if always {COMMON_AGE}"


@dataclass(frozen=True)
class HeardVoices:
    """Recordings as the checkpoint hears them, with what is known of their speakers.

    Attributes:
        waveforms: int16 arrays.
        voices: embeddings and evidence.
        sex: ``(N,)``, index into ``SEXES``.
        age: ``(N,)``, index into ``AGE_DECADES``, or ``UNKNOWN``.
        speakers: ``(N,)`` names.
        corpora: ``(N,)`` names of where the recordings come from; empty where unknown.
    """

    waveforms: list[np.ndarray]
    voices: list[Voice]
    sex: np.ndarray
    age: np.ndarray
    speakers: np.ndarray
    corpora: np.ndarray

    @property
    def first_clips(self) -> np.ndarray:
        """Row of the first recording of each speaker, in the table's order."""
        return np.sort(np.unique(self.speakers, return_index=True)[1])

    def label(self, row: int) -> str:
        """Sex and age decade of a speaker as text, the age where it is known."""
        sex, age = self.sex[row], self.age[row]
        said = "sex unknown" if sex == UNKNOWN else SEXES[sex]
        return said + (f" {AGE_DECADES[age]}" if age != UNKNOWN else "")


def hear(pipe: Voice2FacePipeline, table: VoiceTable) -> HeardVoices:
    """Listen to a table; recordings that are too short to use are left out."""
    voices, rows = [], []
    for row, waveform in enumerate(tqdm(table.waveforms, desc="listening", unit="clip")):
        try:
            voices.append(pipe.listen(waveform, SAMPLE_RATE))
            rows.append(row)
        except AudioError as error:
            logger.info("%s: %s", table.ids[row], error)
    return HeardVoices(
        [table.waveforms[row] for row in rows],
        voices,
        table.sex[rows],
        table.age[rows],
        np.array([table.speaker[row] for row in rows]),
        np.array([table.corpus[row] for row in rows]),
    )


def measure_voices(
    artist: Artist, instruments: Instruments, heard: HeardVoices, report: Report, out: Path
) -> np.ndarray:
    """Judge voices and portraits; writes captioned sheets and returns the portraits.

    Portrait k has seed k.
    """
    said = said_of(heard.voices)
    add_agreement(report, ENCODER, said, heard.sex, heard.age, heard.speakers)
    for corpus in np.unique(heard.corpora[heard.corpora != ""]):
        rows = heard.corpora == corpus
        share = share_of_known(
            said.sex[rows] == heard.sex[rows], heard.sex[rows], heard.speakers[rows]
        )
        report.add("speech encoder by corpus, test speakers", f"sex, {corpus}", share)
    firsts = heard.first_clips
    people = heard.speakers[firsts]
    add_agreement(
        report,
        CLIPS_AVERAGED,
        hear_speakers(artist.pipe, heard, people),
        heard.sex[firsts],
        heard.age[firsts],
        people,
    )
    seeds = list(range(len(heard.voices)))
    portraits = np.concatenate(
        [
            artist.draw(heard.voices[k : k + 32], seeds[k : k + 32])
            for k in tqdm(range(0, len(seeds), 32), desc="portraits", unit="batch")
        ]
    )
    verdict = instruments.judge(portraits)
    add_agreement(report, PORTRAITS, verdict, heard.sex, heard.age, heard.speakers)
    add_agreement(
        report,
        REAL_FACES,
        instruments.judge(random_faces(instruments.other_faces, *said)),
        heard.sex,
        heard.age,
        heard.speakers,
    )
    add_by_label(report, "portraits by sex and age of the speaker", verdict, heard)
    sheets = {
        "portraits.png": [(row, f"seed {row}") for row in firsts],
        "failures.png": [
            (row, f"seen: {SEXES[verdict.sex[row]]}")
            for row in np.flatnonzero((verdict.sex != heard.sex) & (heard.sex != UNKNOWN))
        ],
    }
    for file, shown in sheets.items():
        chosen = [row for row, _ in shown[:SHOWN]]
        captions = [f"{heard.label(row)}\n{remark}" for row, remark in shown[:SHOWN]]
        captioned_sheet(portraits[chosen], captions, columns=8, size=128).save(out / file)
    return portraits


def said_of(voices: list[Voice]) -> Verdict:
    """Sex and age decade that the speech encoder hears in each recording."""
    return Verdict(
        np.array([SEXES.index(voice.evidence.sex) for voice in voices]),
        np.array([AGE_DECADES.index(voice.evidence.age) for voice in voices]),
    )


@torch.inference_mode()
def hear_speakers(pipe: Voice2FacePipeline, heard: HeardVoices, people: np.ndarray) -> Verdict:
    """Sex and age decade of each speaker, from the mean embedding of the speaker's clips."""
    embeddings = torch.stack([voice.embedding for voice in heard.voices])
    means = [embeddings[torch.from_numpy(heard.speakers == who)].mean(0) for who in people]
    encoding = pipe.speech_encoder.describe(
        torch.nn.functional.normalize(torch.stack(means), dim=1)
    )
    return Verdict(
        encoding.sex_logits.argmax(1).cpu().numpy(), encoding.age_logits.argmax(1).cpu().numpy()
    )


def add_agreement(
    report: Report,
    group: str,
    said: Verdict,
    sex: np.ndarray,
    age: np.ndarray,
    speakers: np.ndarray,
) -> None:
    """Enter how often sex and age decade were right; unknown ones do not count."""
    near = within_one_decade(said.age, age)
    right = said.sex == sex
    report.add(group, "sex", share_of_known(right, sex, speakers))
    known = sex != UNKNOWN
    each = [right[known & (speakers == who)].mean() for who in np.unique(speakers[known])]
    report.add(group, "sex, mean over speakers", float(np.mean(each)) if each else None)
    report.add(group, "age within 10 years", share_of_known(near, age, speakers))
    known = age != UNKNOWN
    decades = [near[age == decade].mean() for decade in np.unique(age[known])]
    mean = float(np.mean(decades)) if decades else None
    report.add(group, "age within 10 years, mean over decades", mean)
    add_common_answer(report, group, age, speakers)


def add_common_answer(report: Report, group: str, age: np.ndarray, owners: np.ndarray) -> None:
    """Enter how often the commonest answer, given to every voice, has the age right."""
    always = within_one_decade(np.full_like(age, AGE_DECADES.index(COMMON_AGE)), age)
    report.add(group, ALWAYS_COMMON, share_of_known(always, age, owners))


def add_by_label(report: Report, group: str, verdict: Verdict, heard: HeardVoices) -> None:
    """Enter the portraits' agreement for each sex and each decade of the speakers."""
    for value, name in enumerate(SEXES):
        rows = heard.sex == value
        if rows.any():
            right = verdict.sex[rows] == value
            report.add(group, f"sex, {name} speakers", bootstrap_share(right, heard.speakers[rows]))
    near = within_one_decade(verdict.age, heard.age)
    for decade, name in enumerate(AGE_DECADES):
        rows = heard.age == decade
        if rows.any():
            share = bootstrap_share(near[rows], heard.speakers[rows])
            report.add(group, f"age within 10 years, speakers of {name}", share)
