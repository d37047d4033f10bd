"""How well faces survive encoding and decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from voice2face.data.contact_sheets import contact_sheet
from voice2face.data.fine_detail import detail_ratio
from voice2face.evaluation.distribution import frechet_distance
from voice2face.evaluation.instruments import Instruments
from voice2face.evaluation.pictures import picture_features
from voice2face.evaluation.report import Report
from voice2face.pipeline import Voice2FacePipeline
from voice2face.pixels import to_model_range, to_uint8

GROUP = "face autoencoder, test faces"
FACES = 512


@torch.inference_mode()
def measure_autoencoder(
    pipe: Voice2FacePipeline, instruments: Instruments, report: Report, out: Path, portraits: int
) -> None:
    """Encode and decode test faces; writes a sheet of originals and reconstructions.

    As many faces of the validation split as there are portraits are encoded and decoded, too: their
    Fréchet distance to the test faces is what is left to portraits that are drawn perfectly.

    Args:
        pipe: the checkpoint.
        instruments: measure.
        report: takes the figures.
        out: folder for the sheet.
        portraits: how many there are.
    """
    originals = resized(instruments.test_faces.images[:FACES], pipe.face_decoder.config.image_size)
    target = to_model_range(originals)
    decoded = reconstructed(pipe, instruments.test_faces.images[:FACES])
    distances = [
        float(instruments.perceptual(one, other))
        for one, other in zip(decoded.split(64), target.split(64), strict=True)
    ]
    pictures = to_uint8(decoded)
    made, true = instruments.features(pictures), instruments.features(originals)
    report.add(GROUP, "mean absolute error (range -1 to 1)", float((decoded - target).abs().mean()))
    report.add(GROUP, "perceptual distance", float(np.mean(distances)))
    name = "cosine of recognition features, original and reconstruction"
    report.add(GROUP, name, float((made * true).sum(1).mean()))
    name = "the same, reconstruction and another original"
    report.add(GROUP, name, float((made * true.roll(1, 0)).sum(1).mean()))
    report.add(GROUP, "fine detail, ratio to the originals", detail_ratio(decoded, target))
    others = instruments.other_faces.images[:portraits]
    for name, images in (
        ("of other faces", others),
        ("of their reconstructions", to_uint8(reconstructed(pipe, others))),
    ):
        features = picture_features(images, instruments.perceptual)
        distance = frechet_distance(features, instruments.pictured_test_faces)
        report.add(GROUP, f"Fréchet distance {name}", distance)
    rows = [images[k : k + 12] for k in (0, 12, 24) for images in (originals, pictures)]
    contact_sheet(rows).save(out / "reconstructions.png")


def reconstructed(pipe: Voice2FacePipeline, images: np.ndarray) -> Tensor:
    """Pictures encoded and decoded, ``(N, 3, size, size)`` in [-1, 1]."""
    decoded = (pipe.face_decoder(part.to(pipe.dtype)) for part in encoded(pipe, images).split(16))
    return torch.cat([part.float().cpu() for part in decoded])


def encoded(pipe: Voice2FacePipeline, images: np.ndarray) -> Tensor:
    """Z^f of pictures ``(N, H, W, 3)``, on the pipeline's device."""
    seen = to_model_range(resized(images, pipe.face_encoder.config.image_size))
    parts = (part.to(pipe.device, pipe.dtype) for part in seen.split(16))
    return torch.cat([pipe.face_encoder(part) for part in parts])


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """``(N, H, W, 3)`` pictures at ``size`` pixels, as the encoder learnt from them."""
    how = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), how)) for i in images])
