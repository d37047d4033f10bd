"""voice2face: a portrait of a plausible speaker, made from a voice recording.

>>> from voice2face import Voice2FacePipeline
>>> pipe = Voice2FacePipeline.from_pretrained()
>>> pipe("talk.wav").save("face.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voice2face.audio import load_audio
    from voice2face.errors import Voice2FaceError
    from voice2face.evidence import Evidence
    from voice2face.listening import Voice
    from voice2face.pipeline import Voice2FacePipeline
    from voice2face.portrait import Portrait, Portraits
    from voice2face.settings import Settings

__version__ = "0.36.0"

_HOMES = {
    "Voice2FacePipeline": "voice2face.pipeline",
    "Portrait": "voice2face.portrait",
    "Portraits": "voice2face.portrait",
    "Evidence": "voice2face.evidence",
    "Settings": "voice2face.settings",
    "Voice": "voice2face.listening",
    "load_audio": "voice2face.audio",
    "Voice2FaceError": "voice2face.errors",
}

__all__ = [
    "Evidence",
    "Portrait",
    "Portraits",
    "Settings",
    "Voice",
    "Voice2FaceError",
    "Voice2FacePipeline",
    "__version__",
    "load_audio",
]


def __getattr__(name: str) -> Any:
    """Import a public name or a module when it is first used.

    So importing the package costs almost nothing.
    """
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    missing = AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("_"):
        raise missing
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise missing from None


def __dir__() -> list[str]:
    return sorted(__all__)
