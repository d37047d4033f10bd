"""How a portrait was made, as its PNG says: written into it, and read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import numpy as np

from voice2face import __version__
from voice2face.errors import PictureError
from voice2face.picture_files import PictureSource, name_of_picture, open_picture, read_info
from voice2face.settings import Settings

DETAIL = "voice2face:"  # how the names of what is written begin
LATER_SETTINGS = ("sampler", "guidance_every", "variety")  # that older pictures do not name


@dataclass(frozen=True)
class Provenance:
    """What a picture was made from, so that it can be made again.

    Attributes:
        audio_sha256: of the recording's samples, mono float32 at 16 kHz, little-endian.
        checkpoint_sha256: of the checkpoint's ``model_index.json``, which names all its files'
            checksums; ``None`` for one that was never saved.
        device: kind of device that drew, ``"cpu"`` or ``"cuda"`` say; ``None`` where it is not
            known, as in pictures of versions before 0.17.
        dtype: of the networks, ``"float32"`` say; likewise.
        version: of voice2face.
    """

    audio_sha256: str
    checkpoint_sha256: str | None
    device: str | None = None
    dtype: str | None = None
    version: str = __version__


@dataclass(frozen=True)
class Making:
    """How a portrait was made.

    Attributes:
        seed: of its noise.
        settings: how it was drawn.
        provenance: what it was made from.
    """

    seed: int
    settings: Settings
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """The seed, and each setting and part of the provenance, by its name."""
        return {"seed": self.seed, **asdict(self.settings), **asdict(self.provenance)}

    def as_text(self) -> dict[str, str]:
        """What is written in a PNG: all that is known, by names that begin with ``DETAIL``."""
        return {
            f"{DETAIL}{name}": str(value)
            for name, value in self.as_dict().items()
            if value is not None
        }


@dataclass(frozen=True)
class SavedPortrait(Making):
    """A portrait read from its PNG, with how it was made.

    Attributes:
        seed: as it was saved.
        settings: as they were saved.
        provenance: as it was saved.
        pixels: ``(height, width, 3)`` uint8.
    """

    pixels: np.ndarray


def read_portrait(picture: PictureSource) -> SavedPortrait:
    """Read a PNG that ``Portrait.save`` wrote, or ``Portrait.png`` gave.

    Args:
        picture: its path, its bytes, or a file object.

    Raises:
        PictureError: it is missing, or does not say how it was made, as only PNGs do.
    """
    image = open_picture(picture)
    made = making_of(picture, image.info)
    return SavedPortrait(made.seed, made.settings, made.provenance, np.asarray(image))


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
            settings_of(written),
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


def settings_of(written: Mapping[str, str]) -> Settings:
    """The settings of which ``str`` was written.

    Args:
        written: texts by the settings' names; others are left aside. Those in ``LATER_SETTINGS``
            may be missing.

    Raises:
        KeyError: a setting is missing.
        ValueError: a text is no number where one is expected.
    """
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings).items():
        if name in written or name not in LATER_SETTINGS:
            text = written[name]
            values[name] = text == "True" if kind is bool else kind(text)
    return Settings(**values)
