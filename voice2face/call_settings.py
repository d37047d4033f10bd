"""What calls of a pipeline may set, as type checkers and editors see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypedDict

import torch

from voice2face.step_callback import StepCallback


class DrawSettings(TypedDict, total=False):
    """How portraits are drawn; see ``Voice2FacePipeline.__call__``."""

    preset: str
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_every: int | None
    sampler: str | None
    eta: float
    variety: float
    watermark: bool


def check_draw_settings(call: str, given: Iterable[str]) -> None:
    """Refuse what no call takes beside its own arguments, as Python does where it sees it.

    Raises:
        TypeError: says which argument, and those that there are.
    """
    known = DrawSettings.__annotations__
    for name in given:
        if name not in known:
            raise TypeError(
                f"{call}() got an unexpected keyword argument {name!r}; how portraits are drawn "
                f"is said by {', '.join(known)}"
            )


class CallSettings(DrawSettings, total=False):
    """What a call may set besides the recording and the kind of its result."""

    num_images: int
    seed: int | None
    generator: torch.Generator | None
    callback_on_step_end: StepCallback | None
    on_redraw_step: Callable[[], None] | None


class MapSettings(DrawSettings, total=False):
    """What ``map`` may set besides the recordings and what becomes of errors."""

    batch_size: int
    seed: int | Iterable[int] | None
    progress: bool
