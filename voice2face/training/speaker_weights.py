"""Published GE2E weights, from the wheel they are distributed in.

Resemblyzer 0.1.4 (Apache-2.0) carries them: ``pip download --no-deps resemblyzer==0.1.4``.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from voice2face.errors import SettingError

MEMBER = "resemblyzer/pretrained.pt"
MEMBER_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
PARTS = {"lstm.": "recurrent.", "linear.": "to_speaker."}


def read_published(wheel: Path) -> dict[str, Tensor]:
    """The weights of the speaker network by ``SpeakerEncoder``'s names.

    Raises:
        SettingError: there is no such wheel, or it holds other weights than version 0.1.4.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SettingError(f"{wheel} is no wheel of Resemblyzer 0.1.4: {error}") from error
    if hashlib.sha256(content).hexdigest() != MEMBER_SHA256:
        raise SettingError(f"{wheel}: {MEMBER} is not that of Resemblyzer 0.1.4")
    published = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {
        new + name.removeprefix(old): tensor
        for name, tensor in published["model_state"].items()
        for old, new in PARTS.items()
        if name.startswith(old)
    }
