"""What the worker does for a visitor: listen, draw, and tell of every step."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from voice2face.app.jobs import GoOn, Tell
from voice2face.app.limits import Limits
from voice2face.audio import SAMPLE_RATE, load_audio
from voice2face.picture_files import encode_marked
from voice2face.pipeline import Voice2FacePipeline

PORTRAITS = 4
PREVIEWS = 8  # of each portrait while it is drawn; one costs as much as two steps
PREVIEW_SIDE = 192  # pixels
PREVIEW_QUALITY = 55


@dataclass(frozen=True)
class Order:
    """What a visitor asks for, checked.

    Attributes:
        seeds: one for each portrait.
        steps: of the sampler.
        guidance: how strongly the voice is followed.
        variety: of faces and light.
    """

    seeds: tuple[int, ...]
    steps: int
    guidance: float
    variety: float


class Upload(io.BytesIO):
    """The recording as it was sent; error messages call it by its name."""

    name = "the recording"

    def __repr__(self) -> str:
        return self.name


def draw_portraits(
    pipe: Voice2FacePipeline,
    recording: bytes,
    order: Order,
    limits: Limits,
    tell: Tell,
    go_on: GoOn,
) -> None:
    """Make portraits and tell of the way there.

    The events are ``heard`` (what the voice told), ``step`` (with previews now and then) and
    ``drawn`` (every portrait as the PNG that ``Portrait.save`` writes). Of portraits that are drawn
    again nothing is told, but each of their steps asks ``go_on``, which raises where to end.

    Raises:
        AudioError: the recording cannot be used.
        SettingError: a number is out of range.
        DeviceError: the device ran out of memory.
    """
    waveform = load_audio(Upload(recording), max_seconds=limits.recording_seconds)
    voice = pipe.listen(waveform, SAMPLE_RATE)
    tell("heard", voice.evidence.as_dict())
    steps = order.steps * pipe.method.stages
    steps_a_preview = -(-steps // PREVIEWS)

    def show(
        pipe: Voice2FacePipeline, index: int, _timestep: int, state: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        progress: dict[str, object] = {"step": index + 1, "steps": steps}
        if index % steps_a_preview == 0:
            progress["pictures"] = previews(pipe, state["latents"])
        tell("step", progress)
        return state

    portraits = pipe.draw(
        [voice] * len(order.seeds),
        order.seeds,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance,
        variety=order.variety,
        callback_on_step_end=show,
        on_redraw_step=go_on,
    )
    drawn = [
        {"seed": str(portrait.seed), "png": data_url("image/png", portrait.png())}
        for portrait in portraits
    ]
    tell("drawn", {"portraits": drawn})


def previews(pipe: Voice2FacePipeline, latents: Tensor) -> list[str]:
    """Small marked pictures of unfinished latents."""
    size = (PREVIEW_SIDE, PREVIEW_SIDE)
    pictures = [Image.fromarray(picture).resize(size) for picture in pipe.decode(latents)]
    return [
        data_url("image/webp", encode_marked(picture, "WEBP", {}, quality=PREVIEW_QUALITY))
        for picture in pictures
    ]


def data_url(media_type: str, data: bytes) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
