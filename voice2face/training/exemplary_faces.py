"""Which faces portraits are to look like, of all that a denoiser was taught by."""

from __future__ import annotations

import numpy as np
from tqdm.auto import tqdm

from voice2face.data.face_detection import face_detected
from voice2face.data.tables import FaceTable
from voice2face.models import Denoiser

LIKE_PORTRAITS = 0.3


def exemplary_faces(faces: FaceTable, denoiser: Denoiser) -> np.ndarray:
    """Choose faces whose pictures are as portraits are asked to be.

    Args:
        faces: to choose among.
        denoiser: says what is asked for.

    Returns:
        ``(faces,)`` boolean, true for the share ``LIKE_PORTRAITS`` whose quality is most like what
        is asked for, where a face is detected in them.
    """
    asked, spread = denoiser.config.good_portrait, denoiser.config.good_portrait_std
    off = np.square((faces.quality - np.array(asked)) / (np.array(spread) + 1e-6)).sum(1)
    chosen = off <= np.quantile(off, LIKE_PORTRAITS)
    for row in tqdm(np.flatnonzero(chosen), desc="exemplary faces", unit="face"):
        chosen[row] = face_detected(faces.images[row], "alt2")
    return np.asarray(chosen)
