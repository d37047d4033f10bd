"""Whether pictures are good: a face is found, eyes are shown, and they come near to real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from voice2face.data.fine_detail import detail_ratio
from voice2face.data.hidden_eyes import hidden_eyes
from voice2face.evaluation.agreement import bootstrap_share
from voice2face.evaluation.autoencoder import resized
from voice2face.evaluation.distribution import (
    frechet_distance,
    kernel_distance,
    precision_and_recall,
)
from voice2face.evaluation.instruments import Instruments
from voice2face.evaluation.pictures import face_found, picture_features, sharpness
from voice2face.evaluation.report import Report

GOOD = "the picture is good, test speakers"


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
    """Enter precision and recall of the manifold, sharpness and detail.

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
    faces = resized(instruments.test_faces.images, pictures.shape[1])
    detail = detail_ratio(channels_first(pictures), channels_first(faces))
    report.add(group, "fine detail, ratio to test faces", detail)


def channels_first(pictures: np.ndarray) -> Tensor:
    """``(N, 3, H, W)`` uint8 of ``(N, H, W, 3)``."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
