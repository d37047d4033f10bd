"""Making a saved portrait again, and saying what differs where that fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voice2face import __version__
from voice2face.errors import PictureError, SettingError
from voice2face.portrait import Portrait
from voice2face.saved_portraits import SavedPortrait, read_portrait

if TYPE_CHECKING:
    from voice2face.pipeline import Voice2FacePipeline

__all__ = ["Replay", "read_portrait", "replay"]


@dataclass(frozen=True)
class Replay:
    """A portrait made again.

    Attributes:
        portrait: the new one.
        differences: what is not as it was, in words; empty where every pixel is the same.
    """

    portrait: Portrait
    differences: tuple[str, ...]


def replay(saved: SavedPortrait, audio: Any, pipe: Voice2FacePipeline) -> Replay:
    """Make a portrait again from its recording.

    On the same kind of machine, with the same versions, every pixel is the same.

    Args:
        saved: what ``read_portrait`` read.
        audio: the recording, as ``Voice2FacePipeline`` takes it.
        pipe: the checkpoint.

    Raises:
        AudioError: the recording cannot be used.
        PictureError: the picture names settings that this checkpoint cannot draw with.
        SettingError: the portrait was not read.
    """
    if not isinstance(saved, SavedPortrait):
        raise SettingError(
            f"replay takes no {type(saved).__name__} but what read_portrait read: "
            "replay(read_portrait(picture), audio, pipe)"
        )
    settings = saved.settings
    voice = pipe.listen(audio)
    try:
        portrait = pipe.draw([voice], [saved.seed], **settings.as_arguments())[0]
    except SettingError as error:
        raise PictureError(
            f"{pipe.name} of voice2face {__version__} cannot draw as {settings.checkpoint} of "
            f"{saved.provenance.version} did: {error}"
        ) from error
    then, now = saved.provenance, portrait.provenance
    differences = []
    if then.audio_sha256 != now.audio_sha256:
        differences.append("the recording is another one, or was decoded differently")
    if then.checkpoint_sha256 != now.checkpoint_sha256:
        differences.append(
            f"the checkpoint was {settings.checkpoint} ({short(then.checkpoint_sha256)}), "
            f"now it is {portrait.settings.checkpoint} ({short(now.checkpoint_sha256)})"
        )
    if then.device is not None and (then.device, then.dtype) != (now.device, now.dtype):
        differences.append(
            f"it was drawn on {then.device} in {then.dtype}, now on {now.device} in {now.dtype}"
        )
    if then.version != now.version:
        differences.append(f"voice2face was {then.version}, now it is {now.version}")
    pixels = np.asarray(portrait.image)
    if pixels.shape != saved.pixels.shape:
        differences.append(f"the picture was {size(saved.pixels)} pixels, now it is {size(pixels)}")
    elif not np.array_equal(pixels, saved.pixels):
        largest = np.abs(pixels.astype(int) - saved.pixels).max()
        differences.append(f"pixels differ by up to {largest} of 255 levels")
    else:
        differences = []
    return Replay(portrait, tuple(differences))


def size(pixels: np.ndarray) -> str:
    """Width and height in words."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def short(checksum: str | None) -> str:
    """The beginning of a checksum."""
    return checksum[:12] if checksum else "never saved"
