"""Whether portraits stay the same where they should."""

from __future__ import annotations

import numpy as np

from voice2face.audio import SAMPLE_RATE
from voice2face.data.excerpts import random_crop
from voice2face.errors import AudioError
from voice2face.evaluation.agreement import bootstrap_share
from voice2face.evaluation.instruments import Artist, Instruments
from voice2face.evaluation.pictures import perceptual_spread
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import HeardVoices

STEADY_VOICES = 32
SPREAD_SEEDS = 4


def measure_steadiness(
    artist: Artist, instruments: Instruments, heard: HeardVoices, report: Report
) -> None:
    """How portraits change with the seed, with the clip, and with what is done to the recording.

    Likeness is the cosine of recognition features, at the same seed unless the seed is changed.
    Each voice has seeds of its own, but for what is compared between voices. The speakers are the
    first of whom there is more than one recording; those whose changed recording is too short to
    use count as missing in the number of cases.
    """
    group = "it is steady"
    clips = {
        row: np.flatnonzero(heard.speakers == heard.speakers[row]) for row in heard.first_clips
    }
    rows = np.array([row for row, of_speaker in clips.items() if len(of_speaker) > 1])
    rows = rows[:STEADY_VOICES]
    if not len(rows):
        return
    voices = [heard.voices[row] for row in rows]
    seeds = np.arange(len(voices) * SPREAD_SEEDS).reshape(SPREAD_SEEDS, len(voices))
    by_seed = [artist.draw(voices, row.tolist()) for row in seeds]
    features = [instruments.features(images).numpy() for images in by_seed]
    between_seeds = [
        (features[a] * features[b]).sum(1).mean() for a in range(SPREAD_SEEDS) for b in range(a)
    ]
    report.add(group, "likeness, other seed", float(np.mean(between_seeds)))
    spread = [
        perceptual_spread(np.stack([images[k] for images in by_seed]), instruments.perceptual)
        for k in range(len(voices))
    ]
    report.add(group, "LPIPS-style distance, one voice, other seed", float(np.mean(spread)))
    shared = artist.draw(voices, [0] * len(voices))
    other = perceptual_spread(shared, instruments.perceptual)
    report.add(group, "LPIPS-style distance, other voice, one seed", other)

    usual = instruments.judge(by_seed[0])
    rng = np.random.default_rng(0)
    for name, change in CHANGES.items():
        kept, changed = [], []
        for k, row in enumerate(rows):
            first, *others = (
                heard.waveforms[clip].astype(np.float32) / 32768.0 for clip in clips[row]
            )
            speech = change(first, np.concatenate(others), rng)
            try:
                changed.append(artist.pipe.listen(speech, SAMPLE_RATE))
                kept.append(k)
            except AudioError:
                continue
        if not kept:
            continue
        drawn = artist.draw(changed, seeds[0, kept].tolist())
        alike = (instruments.features(drawn).numpy() * features[0][kept]).sum(1).mean()
        report.add(group, f"likeness, {name}", float(alike))
        same = instruments.judge(drawn).sex == usual.sex[kept]
        report.add(group, f"same sex, {name}", bootstrap_share(same, heard.speakers[rows[kept]]))


def _excerpt(seconds: float, speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    samples = round(seconds * SAMPLE_RATE)
    return random_crop((speech * 32767).astype(np.int16), samples, rng)


def _noisy(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(len(speech)).astype(np.float32)
    return speech + noise * np.sqrt(np.square(speech).mean()) * 10 ** (-10 / 20)


def _telephone(speech: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(speech)
    frequency = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    return np.fft.irfft(spectrum, len(speech)).astype(np.float32)


CHANGES = {
    "all clips of the speaker": lambda first, others, _: np.concatenate([first, others]),
    "other clips, 1.5 s": lambda _, others, rng: _excerpt(1.5, others, rng),
    "other clips, 3 s": lambda _, others, rng: _excerpt(3.0, others, rng),
    "other clips, 6 s": lambda _, others, rng: _excerpt(6.0, others, rng),
    "other clips, repeated to 30 s": lambda _, others, rng: _excerpt(30.0, others, rng),
    "noise 10 dB below the speech": lambda first, _, rng: _noisy(first, rng),
    "telephone band": lambda first, _, __: _telephone(first),
}
