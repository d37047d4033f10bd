"""What a call tells of each step while it draws, and what may come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from voice2face.argument_checks import check_callable
from voice2face.errors import SettingError
from voice2face.methods.guided_sampling import LatentCallback

if TYPE_CHECKING:
    from voice2face.pipeline import Voice2FacePipeline

StepCallback = Callable[
    ["Voice2FacePipeline", int, int, dict[str, Tensor]], Mapping[str, Tensor] | None
]


def latent_callback(pipe: Voice2FacePipeline, on_step_end: StepCallback) -> LatentCallback:
    """What a method calls after each step, of what is called with a pipeline.

    Args:
        pipe: the pipeline that draws.
        on_step_end: called with it, step, timestep and ``{"latents": Z^t}``; its answer is checked,
            and without one, or without latents in it, those that it was given go on.

    Raises:
        SettingError: it is no function. What is returned raises it where the answer is no
            dictionary, or holds other things than latents of the shape that was given.
    """
    check_callable("callback_on_step_end", on_step_end)

    def call(step: int, timestep: int, latents: Tensor) -> Tensor:
        answer = on_step_end(pipe, step, timestep, {"latents": latents})
        if answer is not None and not isinstance(answer, Mapping):
            raise SettingError(
                "callback_on_step_end returns the dictionary that it was given, with other "
                f"latents if it likes, or None, not a {type(answer).__name__}"
            )
        changed = (answer or {}).get("latents", latents)
        if not isinstance(changed, Tensor) or changed.shape != latents.shape:
            raise SettingError(
                "callback_on_step_end returns latents of the shape that it was given, "
                f"{tuple(latents.shape)}"
            )
        return changed

    return call
