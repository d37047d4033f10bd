"""What a call returns: portraits with their seeds, their evidence and their marks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image

from voice2face.argument_checks import check_whole
from voice2face.errors import SettingError
from voice2face.evidence import Evidence
from voice2face.picture_files import (
    encode_marked,
    format_called,
    numbered,
    place_of_picture,
    save_marked,
    side_by_side,
)
from voice2face.saved_portraits import Making, Provenance

if TYPE_CHECKING:
    from voice2face.content_credentials import Signer
    from voice2face.settings import Settings

MOST_COLUMNS = 1024


@dataclass(frozen=True)
class Portrait:
    """One picture.

    Attributes:
        image: RGB, 256x256 with the released checkpoint.
        seed: makes the same picture again, alone or in a batch, up to a level of 255 in single
            pixels.
        evidence: what the recording told.
        settings: how the picture was drawn.
        provenance: what the picture was made from.
    """

    image: Image.Image
    seed: int
    evidence: Evidence
    settings: Settings
    provenance: Provenance

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int = 95,
        signer: Signer | None = None,
    ) -> Path:
        """Write what ``encode`` returns; the file appears whole or not at all.

        Args:
            path: ends in ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``.
            quality: 1 … 95, of JPEG and WebP.
            signer: adds a content credential; see ``voice2face.content_credentials``.

        Returns:
            The path written.

        Raises:
            OutputError: no path, unknown ending, missing folder, or no permission.
            CredentialError: the picture cannot be signed.
        """
        return save_marked(self.image, path, self._details(), quality=quality, signer=signer)

    def encode(
        self, format: str = "png", *, quality: int = 95, signer: Signer | None = None
    ) -> bytes:
        """The bytes of the file that ``save`` writes, to be sent or stored elsewhere.

        The picture is marked as synthetic: IPTC ``trainedAlgorithmicMedia`` in XMP. PNG also
        carries a note that says so in words, and what ``voice2face replay`` needs to make the
        picture again.

        Args:
            format: ``"png"``, ``"jpg"``, ``"jpeg"`` or ``"webp"``.
            quality: 1 … 95, of JPEG and WebP.
            signer: adds a content credential; see ``voice2face.content_credentials``.

        Raises:
            SettingError: there is no such format, or the quality is out of range.
            CredentialError: the picture cannot be signed.
        """
        return encode_marked(
            self.image, format_called(format), self._details(), quality=quality, signer=signer
        )

    def png(self) -> bytes:
        """``encode("png")`` in short."""
        return self.encode()

    _repr_png_ = png

    def _details(self) -> dict[str, str]:
        return Making(self.seed, self.settings, self.provenance).as_text()


@dataclass(frozen=True)
class Portraits(Sequence[Portrait]):
    """The pictures of one call, in the order of their seeds."""

    items: tuple[Portrait, ...]

    @property
    def images(self) -> list[Image.Image]:
        """The pictures alone."""
        return [portrait.image for portrait in self.items]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [portrait.seed for portrait in self.items]

    @property
    def evidence(self) -> Evidence:
        """What the recording told: of the first picture, which a call's others share.

        Raises:
            SettingError: there are no pictures.
        """
        self._check_any()
        return self.items[0].evidence

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int = 95,
        signer: Signer | None = None,
    ) -> list[Path]:
        """Write every picture: ``face.png``, or ``face-1.png``, ``face-2.png`` … for several.

        Args:
            path: as of ``Portrait.save``.
            quality: as there.
            signer: as there.

        Raises:
            OutputError: no path, unknown ending, missing folder, or no permission.
            CredentialError: the pictures cannot be signed.
        """
        path = place_of_picture(path)
        return [
            portrait.save(name, quality=quality, signer=signer)
            for portrait, name in zip(self, numbered(path, len(self)), strict=True)
        ]

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures in one, row by row.

        Args:
            columns: pictures a row, from 1; four by default.

        Raises:
            SettingError: the columns are out of range, or there are no pictures.
        """
        self._check_any()
        columns = check_whole("columns", 4 if columns is None else columns, MOST_COLUMNS)
        return side_by_side(self.images, min(columns, len(self.items)))

    def save_grid(
        self,
        path: str | os.PathLike[str],
        columns: int | None = None,
        *,
        quality: int = 95,
        signer: Signer | None = None,
    ) -> Path:
        """Write all pictures in one, with the marks of being synthetic.

        Args:
            path: as of ``Portrait.save``.
            columns: as of ``grid``.
            quality: as of ``Portrait.save``.
            signer: as there.

        Raises:
            OutputError: no path, unknown ending, missing folder, or no permission.
            CredentialError: the picture cannot be signed.
            SettingError: the columns are out of range, or there are no pictures.
        """
        return save_marked(self.grid(columns), path, {}, quality=quality, signer=signer)

    def mean_face(self) -> Image.Image:
        """The average of the pictures, which ``save_mean_face`` writes.

        Besides sex and age, it shows what the training faces have in common.

        Raises:
            SettingError: there are no pictures.
        """
        self._check_any()
        mean = np.mean([np.asarray(image, np.float32) for image in self.images], axis=0)
        return Image.fromarray(mean.round().astype(np.uint8))

    def save_mean_face(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int = 95,
        signer: Signer | None = None,
    ) -> Path:
        """Write the average of the pictures, with the marks of being synthetic.

        Args:
            path: as of ``Portrait.save``.
            quality: as there.
            signer: as there.

        Raises:
            OutputError: no path, unknown ending, missing folder, or no permission.
            CredentialError: the picture cannot be signed.
            SettingError: there are no pictures.
        """
        return save_marked(self.mean_face(), path, {}, quality=quality, signer=signer)

    def _check_any(self) -> None:
        if not self.items:
            raise SettingError("there are no portraits here; the slice that was taken is empty")

    def _repr_png_(self) -> bytes:
        return encode_marked(self.grid(), "PNG", {})

    @overload
    def __getitem__(self, index: int) -> Portrait: ...
    @overload
    def __getitem__(self, index: slice) -> Portraits: ...
    def __getitem__(self, index: int | slice) -> Portrait | Portraits:
        if isinstance(index, slice):
            return Portraits(self.items[index])
        return self.items[index]

    def __iter__(self) -> Iterator[Portrait]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
