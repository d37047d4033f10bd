"""Whom portraits leave out: how well each of FairFace's groups is covered by them.

The labels are those of the test photographs, and are read here alone. No portrait, no voice and no
other face is given one.
"""

from __future__ import annotations

import numpy as np
import torch

from voice2face.data.tables import read_rows
from voice2face.evaluation.agreement import share_of_known
from voice2face.evaluation.autoencoder import encoded
from voice2face.evaluation.distribution import covered_by
from voice2face.evaluation.instruments import Instruments
from voice2face.evaluation.pictures import face_found, picture_features
from voice2face.evaluation.report import Report
from voice2face.pipeline import Voice2FacePipeline

TITLE = "test faces by FairFace's group"


def groups_of(faces: str, split: str, limit: int | None) -> dict[str, str]:
    """FairFace's group of each labelled face of a split, by the face's id."""
    rows = read_rows(faces, split, limit)
    return {str(row["id"]): row["group"] for row in rows if row.get("group")}


@torch.inference_mode()
def measure_groups(
    portraits: np.ndarray,
    pipe: Voice2FacePipeline,
    instruments: Instruments,
    groups: dict[str, str],
    report: Report,
) -> None:
    """Enter how often portraits come near the test faces of each group, and how the judge does.

    Also how often the face check would refuse them, as it refuses portraits.

    Args:
        portraits: ``(N, size, size, 3)`` uint8.
        pipe: the checkpoint, whose face check is looked at.
        instruments: measure.
        groups: as of ``groups_of``; where there are none, nothing is entered.
        report: takes the figures.
    """
    faces = instruments.test_faces
    near = covered_by(
        instruments.pictured_test_faces, picture_features(portraits, instruments.perceptual)
    )
    right = instruments.judge(faces.images).sex == faces.sex
    found = np.array([face_found(image) for image in faces.images])
    everyone = np.zeros(len(faces), int)
    columns = {
        "portraits come near": (near, everyone),
        "the judge sees the sex": (right, faces.sex),
        "a face is found": (found, everyone),
    }
    check = pipe.method.face_check
    if check is not None:
        confidences = np.array(check.confidences(encoded(pipe, faces.images)))
        refused = confidences < check.config.least_confidence
        columns["the face check refuses"] = (refused, everyone)
    labels = np.array([groups.get(name, "") for name in faces.ids])
    for group in sorted(set(groups.values())):
        rows = labels == group
        if rows.any():
            for column, (holds, label) in columns.items():
                share = share_of_known(holds[rows], label[rows], np.array(faces.ids)[rows])
                report.add(f"{TITLE}: {column}", group, share)
