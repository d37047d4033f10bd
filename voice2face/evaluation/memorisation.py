"""Whether portraits are training faces, learnt by heart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from voice2face.data.contact_sheets import contact_sheet
from voice2face.evaluation.instruments import FACE_SIZE, Instruments
from voice2face.evaluation.report import Report

GROUP = "memorisation"


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
    report.add(GROUP, "cosine to the nearest training face, portraits", float(nearest.mean()))
    report.add(GROUP, "cosine to the nearest training face, test faces", float(real.max(1).mean()))
    report.add(GROUP, "cosine that 10 % of test faces exceed", limit)
    report.add(GROUP, "share of portraits that exceed it", float((nearest > limit).mean()))
    order = np.argsort(-nearest)[:12]
    shown = np.stack([cv2.resize(portraits[k], (FACE_SIZE, FACE_SIZE)) for k in order])
    originals = instruments.training_faces.images[made[order].argmax(1)]
    contact_sheet([shown, originals]).save(out / "nearest.png")
