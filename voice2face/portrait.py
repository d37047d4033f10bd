"""What a call returns: portraits with their seeds, their evidence and their marks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from voice2face import __version__
from voice2face.errors import OutputError, SettingError
from voice2face.paths import expanded
from voice2face.settings import check_whole
from voice2face.whole_files import replace_file

if TYPE_CHECKING:
    from voice2face.content_credentials import Signer
    from voice2face.settings import Settings

MOST_COLUMNS = 1024
BEST_QUALITY = 95
PNG_COMPRESSION = 3  # zlib's; its usual 6 takes three times as long for 3 % fewer bytes
SOFTWARE = "voice2face"
DETAIL = "voice2face:"
SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SYNTHETIC_NOTE = (
    "Synthetic portrait made from a voice by a neural network. It shows nobody: "
    "age and sex follow the voice, everything else is invented."
)
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="{SOFTWARE}"
 Iptc4xmpExt:DigitalSourceType="{SYNTHETIC_SOURCE}"/>
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class RetrievedFace(NamedTuple):
    """An entry of the retriever's that a portrait was drawn from.

    Attributes:
        id: the entry's name.
        score: cosine of its voice's embedding to the recording's, -1 to 1.
    """

    id: str
    score: float


@dataclass(frozen=True)
class Evidence:
    """What the recording told, before anything was invented.

    Attributes:
        speech_seconds: length of the speech found, in seconds.
        windows: six-second windows that were averaged.
        male_probability: 0 … 1; how far the voice sounds like a man's.
        age_probabilities: 0 … 1 for each decade, ``"20-29"`` to ``"70+"``, summing to one.
        warnings: what is wrong with the recording, in words: clipped, noisy, several speakers.
        retrieved: the faces a method with a retriever drew from, nearest voice first.
    """

    speech_seconds: float
    windows: int
    male_probability: float
    age_probabilities: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    retrieved: tuple[RetrievedFace, ...] = ()

    @property
    def sex(self) -> str:
        """The likelier of ``"female"`` and ``"male"``."""
        return "male" if self.male_probability >= 0.5 else "female"

    @property
    def age(self) -> str:
        """The likeliest decade."""
        return max(self.age_probabilities, key=self.age_probabilities.__getitem__)


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
class Portrait:
    """One picture.

    Attributes:
        image: RGB, 256x256 with the released checkpoint.
        seed: makes the same picture again, alone or in any batch.
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
        """Write the picture with its marks: IPTC ``trainedAlgorithmicMedia`` in XMP, and a note.

        PNG also carries what ``voice2face replay`` needs to make the picture again.

        The file appears whole or not at all.

        Args:
            path: ends in ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``.
            quality: 1 … 95, of JPEG and WebP.
            signer: adds a content credential; see ``voice2face.content_credentials``.

        Returns:
            The path written.

        Raises:
            OutputError: unknown ending, missing folder, or no permission.
            CredentialError: the picture cannot be signed.
        """
        return save_marked(self.image, path, self._details(), quality=quality, signer=signer)

    def _details(self) -> dict[str, str]:
        details = {"seed": self.seed, **asdict(self.settings), **asdict(self.provenance)}
        return {
            f"{DETAIL}{name}": str(value) for name, value in details.items() if value is not None
        }

    def png(self) -> bytes:
        """The PNG that ``save`` writes, byte for byte, to be sent or stored elsewhere."""
        return encode_marked(self.image, "PNG", self._details())

    _repr_png_ = png


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
            OutputError: unknown ending, missing folder, or no permission.
            CredentialError: the pictures cannot be signed.
        """
        path = expanded(path)
        format_of(path)
        names = [path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(len(self))]
        return [
            portrait.save(name, quality=quality, signer=signer)
            for portrait, name in zip(self, names if len(self) != 1 else [path], strict=True)
        ]

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures in one, row by row.

        Args:
            columns: pictures a row, from 1; four by default.

        Raises:
            SettingError: the columns are out of range, or there are no pictures.
        """
        self._check_any()
        columns = 4 if columns is None else columns
        check_whole("columns", columns, MOST_COLUMNS)
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
            OutputError: unknown ending, missing folder, or no permission.
            CredentialError: the picture cannot be signed.
            SettingError: the columns are out of range, or there are no pictures.
        """
        return save_marked(self.grid(columns), path, {}, quality=quality, signer=signer)

    def mean_face(self) -> Image.Image:
        """The average of the pictures: what they have in common, which is what the voice told.

        Raises:
            SettingError: there are no pictures.
        """
        self._check_any()
        mean = np.mean([np.asarray(image, np.float32) for image in self.images], axis=0)
        return Image.fromarray(mean.round().astype(np.uint8))

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


def side_by_side(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in one, row by row."""
    rows = -(-len(images) // columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, rows * height))
    for k, image in enumerate(images):
        sheet.paste(image, (k % columns * width, k // columns * height))
    return sheet


def encode_marked(
    image: Image.Image, format_name: str, details: Mapping[str, str], quality: int = 95
) -> bytes:
    """Encode a picture with the marks of being synthetic; PNG carries the details as text.

    Raises:
        OutputError: the format cannot hold a picture of that size.
        SettingError: the quality is out of range.
    """
    check_whole("quality", quality, BEST_QUALITY)
    marks: dict[str, Any] = {"xmp": _XMP.encode(), "quality": quality}
    if format_name == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP)
        info.add_text("Software", SOFTWARE)
        info.add_text("Description", SYNTHETIC_NOTE)
        for name, value in details.items():
            info.add_text(name, value)
        marks = {"pnginfo": info, "compress_level": PNG_COMPRESSION}
    buffer = io.BytesIO()
    try:
        image.save(buffer, format_name, **marks)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{image.width}x{image.height} pixels cannot be saved as {format_name} ({error}); "
            "choose .png, or other columns"
        ) from error
    return buffer.getvalue()


def save_marked(
    image: Image.Image,
    path: str | os.PathLike[str],
    details: Mapping[str, str],
    *,
    quality: int = 95,
    signer: Signer | None = None,
) -> Path:
    """Write a picture with the marks of being synthetic, whole or not at all.

    Raises:
        OutputError: unknown ending, missing folder, no permission, or too large for the format.
        CredentialError: the picture cannot be signed.
        SettingError: the quality is out of range.
    """
    path = expanded(path)
    format_name = format_of(path)
    data = encode_marked(image, format_name, details, quality)
    if signer is not None:
        data = signer.sign(data, Image.MIME[format_name])
    write_atomically(path, data)
    return path


def format_of(path: Path) -> str:
    """The format that a picture of that name is saved in.

    Raises:
        OutputError: unknown ending.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"{path}: pictures are saved as {', '.join(_FORMATS)}; choose one of these endings"
        )
    return _FORMATS[path.suffix.lower()]


def check_folder_of(path: Path) -> None:
    """Refuse a file whose folder is not there, before the work that it is to hold.

    Raises:
        OutputError: says so.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is not a folder; make it first")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; choose another place"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name the file to write in it")
        replace_file(path, lambda partial: partial.write_bytes(data))
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {reason}; choose another place") from error
