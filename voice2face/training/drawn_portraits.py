"""A checkpoint's own portraits, for networks that learn from them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.methods.fine_portraitist import FinePortraitist
from voice2face.methods.method import Method
from voice2face.models import FaceCheck
from voice2face.pipeline import Voice2FacePipeline
from voice2face.training.kept_files import fingerprint, kept_tensor
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.trajectories import first_seed

DRAWN_AT_ONCE = 64
AFTER_TRAJECTORIES = 5 * 10**8


def drawn_portraits(
    pipe: Voice2FacePipeline, speech: Tensor, split: str = "train", run: int = 0
) -> Tensor:
    """Z^f of one portrait for each voice, unchecked and with full variety.

    In all else they are drawn as by default.

    Args:
        pipe: draws.
        speech: ``(N, speech_dim)``.
        split: whose seeds to draw with, other than those of trajectories.
        run: see ``first_seed``.
    """
    after = first_seed(split, run) + AFTER_TRAJECTORIES
    method, settings = pipe.method, pipe.settings()
    parts = []
    for first in tqdm(range(0, len(speech), DRAWN_AT_ONCE), desc="portraits", unit="batch"):
        voices = speech[first : first + DRAWN_AT_ONCE].to(pipe.device)
        seeds = range(after + first, after + first + len(voices))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        quality = method.quality(generators, settings)
        with mixed_precision(pipe.device):
            sample = method.draw(voices, quality, generators, pipe.scheduler, settings)
        parts.append(sample.latents.float().cpu())
    return torch.cat(parts).clone()


def retrieved_from(method: Method) -> tuple[Tensor, ...]:
    """The entries that a method retrieves from, which are no network; nothing where there are none.

    Each tensor is one of Z^s, faces and bottom faces of them all, see ``Entries``.
    """
    return method.retriever.entries[:3] if isinstance(method, FinePortraitist) else ()


def kept_portraits(file: Path, pipe: Voice2FacePipeline, speech: Tensor, run: int) -> Tensor:
    """As ``drawn_portraits``, read from a file where they were drawn before.

    Args:
        file: where they are kept.
        pipe: draws.
        speech: ``(N, speech_dim)``.
        run: see ``first_seed``.

    Raises:
        SettingError: what is kept was drawn of other voices, or by other networks.
    """
    drawing = [part for part in pipe.method.networks() if not isinstance(part, FaceCheck)]
    made_of = fingerprint(*drawing, *retrieved_from(pipe.method), speech, [run])
    return kept_tensor(file, made_of, lambda: drawn_portraits(pipe, speech, run=run))
