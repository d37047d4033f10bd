"""What a denoiser passes through as it draws, kept in files: what distillation learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from voice2face.errors import SettingError
from voice2face.methods.guided_sampling import Autoguidance, DenoisingLoop, sample_guided
from voice2face.models import Denoiser, FacePrior
from voice2face.settings import Settings
from voice2face.training.kept_files import kept_in
from voice2face.training.mixed_precision import mixed_precision

# of the portraits that are drawn for each split, far from each other and from those of portraits
# that the evaluation measures
FIRST_SEEDS = {"train": 10**9, "validation": 2 * 10**9}
SEEDS_OF_A_RUN = 10**7


def first_seed(split: str, run: int) -> int:
    """Of the portraits of a split that a run draws.

    Args:
        split: ``"train"`` or ``"validation"``.
        run: the run's own seed; those from 0 to 49 draw from different noise.
    """
    return FIRST_SEEDS[split] + SEEDS_OF_A_RUN * (run % 50)


class Trajectories(NamedTuple):
    """One row a portrait.

    Attributes:
        speech: Z^s, ``(N, speech_dim)``.
        quality: picture quality asked for, ``(N, 6)``.
        beside: what the denoiser saw beside the latent, ``(N, beside_channels, H, W)``, float16.
        latents: Z^t from pure noise to Z^f, ``(N, steps + 1, C, H, W)``, float16.
    """

    speech: Tensor
    quality: Tensor
    beside: Tensor
    latents: Tensor


@torch.no_grad()
def draw_trajectories(
    denoiser: Denoiser,
    prior: FacePrior | None,
    schedule: DDIMScheduler,
    speech: Tensor,
    seeds: Sequence[int],
    settings: Settings,
    steps: int,
    autoguidance: Autoguidance | None = None,
    beside: Tensor | None = None,
) -> Trajectories:
    """Draw one portrait for each voice and keep what it passed through.

    Of UniPC, which looks at a Z^t before it corrects it, that is the Z^t looked at.

    Args:
        denoiser: draws.
        prior: shifts what it is shown, where there is one.
        schedule: noise levels.
        speech: ``(N, speech_dim)``.
        seeds: one a row.
        settings: of the denoiser's own steps.
        steps: how many parts of the way to keep the ends of; divides the denoiser's steps.
        autoguidance: see ``sample_guided``.
        beside: likewise.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    quality = denoiser.good_portraits(generators, settings.variety)
    shift = 0.0 if prior is None else prior().detach()
    shown: list[Tensor] = []

    def watch(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shown.append(inputs[0][: len(seeds)].float() - shift)

    watching = denoiser.register_forward_pre_hook(watch)
    try:
        with mixed_precision(denoiser.device):
            final = sample_guided(
                DenoisingLoop(denoiser),
                schedule,
                speech,
                quality,
                generators,
                settings,
                prior=prior,
                beside=beside,
                autoguidance=autoguidance,
            )
    finally:
        watching.remove()
    passed = shown[:: settings.num_inference_steps // steps]
    return Trajectories(
        speech.cpu(),
        quality.cpu(),
        (final[:, :0] if beside is None else beside).half().cpu(),
        torch.stack([*passed, final], 1).half().cpu(),
    )


def kept_trajectories(
    folder: Path, shards: int, draw_shard: Callable[[int], Trajectories], made_of: str
) -> Trajectories:
    """Read what a folder keeps, and draw what it lacks.

    Args:
        folder: of the shards.
        shards: how many there are to be.
        draw_shard: makes one by its number.
        made_of: ``fingerprint`` of what draws, and how.

    Raises:
        SettingError: what is kept was drawn by something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.safetensors" for number in range(shards)]
    return _joined(
        (file, kept_in(file, made_of, lambda: draw_shard(number)._asdict()))  # noqa: B023
        for number, file in enumerate(tqdm(files, desc="trajectories", unit="shard"))
    )


def read_trajectories(files: Iterable[Path]) -> Trajectories:
    """What ``kept_trajectories`` kept in some files.

    Raises:
        SettingError: a file holds something else.
    """
    return _joined((file, load_file(file)) for file in files)


def _joined(read: Iterable[tuple[Path, dict[str, Tensor]]]) -> Trajectories:
    parts = []
    for file, columns in read:
        if set(columns) != set(Trajectories._fields):
            raise SettingError(f"{file} is of another version, or holds no trajectories: draw anew")
        parts.append(Trajectories(**columns))
    return Trajectories(*(torch.cat(column) for column in zip(*parts, strict=True)))
