"""Is the picture good, is it new, and does it stay the same where it should."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from voice2face.audio import SAMPLE_RATE
from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.excerpts import random_crop
from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.errors import AudioError
from voice2face.evaluation.agreement import bootstrap_share
from voice2face.evaluation.distribution import (
    frechet_distance,
    kernel_distance,
    precision_and_recall,
)
from voice2face.evaluation.instruments import FACE_SIZE, Artist, Instruments
from voice2face.evaluation.pictures import (
    face_found,
    perceptual_spread,
    picture_features,
    sharpness,
)
from voice2face.evaluation.report import Report
from voice2face.evaluation.voices import HeardVoices

GOOD = "the picture is good, test speakers"
MEMORISATION = "memorisation"
STEADY_VOICES = 32
SPREAD_SEEDS = 4


def add_quality(
    report: Report,
    group: str,
    pictures: np.ndarray,
    people: np.ndarray,
    instruments: Instruments,
) -> tuple[np.ndarray, np.ndarray]:
    """Enter how near pictures come to the test faces, whether they show a face and are sharp.

    Args:
        report: to enter it into.
        group: what the report calls the pictures.
        pictures: ``(N, size, size, 3)`` uint8.
        people: whose each of them is, N names; those of one are drawn together for intervals.
        instruments: measure.

    Returns:
        Whether a face is found in each picture, and whether eyes are hidden.
    """
    found = np.array([face_found(image) for image in pictures])
    report.add(group, "a face is found", bootstrap_share(found, people))
    hidden = hidden_eyes(pictures)
    report.add(group, "eyes are hidden", bootstrap_share(hidden, people))
    made = picture_features(pictures, instruments.perceptual)
    true = instruments.pictured_test_faces
    report.add(group, "Fréchet distance", frechet_distance(made, true))
    report.add(group, "kernel distance x1000", kernel_distance(made, true))
    recognised = instruments.features(pictures).numpy()
    scale = recognised.shape[1] ** 0.5
    distance = frechet_distance(scale * recognised, scale * instruments.recognised_test_faces)
    report.add(group, "Fréchet distance, recognition features", distance)
    add_spread(report, group, pictures, made, instruments)
    return found, hidden


def add_spread(
    report: Report,
    group: str,
    pictures: np.ndarray,
    features: np.ndarray,
    instruments: Instruments,
) -> None:
    """Enter precision and recall of the manifold, and sharpness.

    Args:
        report: takes the figures.
        group: of the figures.
        pictures: ``(N, size, size, 3)`` uint8.
        features: what ``picture_features`` makes of them.
        instruments: the test faces to compare with.
    """
    precision, recall = precision_and_recall(instruments.pictured_test_faces, features)
    report.add(group, "precision", precision)
    report.add(group, "recall", recall)
    typical = np.median([sharpness(image) for image in instruments.test_faces.images])
    ratio = float(np.median([sharpness(image) for image in pictures]) / typical)
    report.add(group, "sharpness, ratio to test faces", ratio)


def measure_memory(
    portraits: np.ndarray, instruments: Instruments, report: Report, out: Path
) -> None:
    """Look for portraits that are training faces; writes the twelve nearest pairs.

    A portrait counts as memorised where it is nearer to a training face than 90 % of the test
    faces are, by recognition features. Of the nearest tenth, the training faces hold other
    photographs of the same people, or the same photograph twice.
    """
    training = instruments.features(instruments.training_faces.images).numpy()
    made = instruments.features(portraits).numpy() @ training.T
    real = instruments.recognised_test_faces @ training.T
    limit = float(np.percentile(real.max(1), 90))
    nearest = made.max(1)
    report.add(
        MEMORISATION, "cosine to the nearest training face, portraits", float(nearest.mean())
    )
    report.add(
        MEMORISATION, "cosine to the nearest training face, test faces", float(real.max(1).mean())
    )
    report.add(MEMORISATION, "cosine that 10 % of test faces exceed", limit)
    report.add(MEMORISATION, "share of portraits that exceed it", float((nearest > limit).mean()))
    order = np.argsort(-nearest)[:12]
    shown = np.stack([cv2.resize(portraits[k], (FACE_SIZE, FACE_SIZE)) for k in order])
    originals = instruments.training_faces.images[made[order].argmax(1)]
    contact_sheet([shown, originals]).save(out / "nearest.png")


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
