"""Making a saved portrait again, and saying what differs where that fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from voice2face import __version__
from voice2face.errors import PictureError, SettingError
from voice2face.picture_files import PictureSource, name_of_picture, open_picture, read_info
from voice2face.portrait import DETAIL, Portrait, Provenance
from voice2face.settings import Settings

if TYPE_CHECKING:
    from voice2face.pipeline import Voice2FacePipeline


class Making(NamedTuple):
    """How a portrait was made, as its PNG says.

    Attributes:
        seed: as it was saved.
        settings: as they were saved.
        provenance: as it was saved.
    """

    seed: int
    settings: Settings
    provenance: Provenance


@dataclass(frozen=True)
class SavedPortrait:
    """A portrait read from its PNG, with what is written in it.

    Attributes:
        pixels: ``(height, width, 3)`` uint8.
        seed: as it was saved.
        settings: as they were saved.
        provenance: as it was saved.
    """

    pixels: np.ndarray
    seed: int
    settings: Settings
    provenance: Provenance


@dataclass(frozen=True)
class Replay:
    """A portrait made again.

    Attributes:
        portrait: the new one.
        differences: what is not as it was, in words; empty where every pixel is the same.
    """

    portrait: Portrait
    differences: tuple[str, ...]


def read_portrait(picture: PictureSource) -> SavedPortrait:
    """Read a PNG that ``Portrait.save`` wrote, or ``Portrait.png`` gave.

    Args:
        picture: its path, its bytes, or a file object.

    Raises:
        PictureError: it is missing, or does not say how it was made, as only PNGs do.
    """
    image = open_picture(picture)
    return SavedPortrait(np.asarray(image), *making_of(picture, image.info))


def read_making(picture: PictureSource) -> Making:
    """Read how a portrait was made, and none of its pixels.

    Raises:
        PictureError: as of ``read_portrait``.
    """
    return making_of(picture, read_info(picture))


def making_of(picture: PictureSource, info: Mapping[Any, Any]) -> Making:
    """How a portrait was made, by what is written in its file.

    Raises:
        PictureError: it does not say.
    """
    written = {
        str(name).removeprefix(DETAIL): str(value)
        for name, value in info.items()
        if str(name).startswith(DETAIL)
    }
    try:
        if not all(value.isprintable() for value in written.values()):
            raise ValueError("what is written in it is no plain text")
        return Making(
            int(written["seed"]),
            Settings.from_text(written),
            Provenance(
                written["audio_sha256"],
                written.get("checkpoint_sha256"),
                written.get("device"),
                written.get("dtype"),
                written["version"],
            ),
        )
    except (KeyError, ValueError) as error:
        raise PictureError(
            f"{name_of_picture(picture)} does not say how it was made ({error}); it is no PNG that "
            "Portrait.save wrote, or another program saved it again"
        ) from error


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
    """
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
