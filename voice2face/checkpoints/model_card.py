"""A checkpoint's model card, ``README.md``."""

from __future__ import annotations

from pathlib import Path

from voice2face.checkpoints.files import check_place
from voice2face.errors import ArchitectureError

CARD = "README.md"
LARGEST_CARD_BYTES = 4 << 20


def read_card(folder: Path) -> str | None:
    """The model card of a checkpoint, if there is one.

    Raises:
        ArchitectureError: it is a link that leads out of the folder, or too large.
    """
    path = check_place(folder, CARD)
    if not path.is_file():
        return None
    if path.stat().st_size > LARGEST_CARD_BYTES:
        raise ArchitectureError(f"{path} is over {LARGEST_CARD_BYTES >> 20} MiB: no model card")
    return path.read_text(encoding="utf-8", errors="replace")
