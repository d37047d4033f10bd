"""Which picture quality portraits are asked for, of all that a denoiser learns from."""

from __future__ import annotations

import numpy as np

from voice2face.data.tables import FaceTable

FRONTAL_YAW = 0.07
INSIDE_SHARE = 0.001
NO_STD = 1e-6  # added to every standard deviation, to divide by

# Of sharpness, yaw, pitch, brightness, contrast and what lies outside, in standard deviations of
# good portraits: light and the turn of the head may vary more than theirs, and contrast is lower.
# Still more varied light or turned heads would lower the Fréchet distance to test faces, but
# portraits would be dark, as some photographs are, and faces in them found less often.
ASKED_SPREAD = np.array([1.0, 1.7, 0.9, 1.7, 1.6, 1.0])
ASKED_SHIFT = np.array([0.0, 0.0, 0.0, -0.13, -0.6, 0.0])


def quality_settings(faces: FaceTable) -> dict[str, list[float]]:
    """How the denoiser standardises picture quality, and which portraits to ask for.

    Good portraits are like the training faces that are frontal, lie inside their photographs, are
    among the sharpest third, and neither dark nor glaring: their mean, and how far they vary,
    changed by ``ASKED_SHIFT`` and ``ASKED_SPREAD``.
    """
    quality = faces.quality.astype(float)
    mean, std = quality.mean(0), quality.std(0) + NO_STD
    sharp = quality[:, 0] >= np.percentile(quality[:, 0], 67)
    frontal = np.abs(quality[:, 1]) < FRONTAL_YAW
    well_lit = (np.abs(quality[:, 3:5] - mean[3:5]) < std[3:5]).all(1)
    inside = quality[:, 5] < INSIDE_SHARE
    chosen = sharp & frontal & well_lit & inside
    good = quality[chosen] if chosen.any() else quality
    return {
        "quality_mean": mean.tolist(),
        "quality_std": std.tolist(),
        "good_portrait": (good.mean(0) + ASKED_SHIFT * good.std(0)).tolist(),
        "good_portrait_std": (ASKED_SPREAD * good.std(0)).tolist(),
    }
