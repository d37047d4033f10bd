"""Files of pictures: marked as synthetic where they are written, limited where they are read."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from voice2face.argument_checks import check_whole
from voice2face.errors import OutputError, PictureError, SettingError
from voice2face.paths import expanded
from voice2face.whole_files import write_atomically

if TYPE_CHECKING:
    from voice2face.content_credentials import Signer

LARGEST_PICTURE_BYTES = 64 << 20
BEST_QUALITY = 95
PNG_COMPRESSION = 3  # zlib's; its usual 6 takes three times as long for 3 % fewer bytes
UNEVEN_PIXELS = 1  # by which the sides of what counts as a square may differ
SOFTWARE = "voice2face"
SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SYNTHETIC_NOTE = (
    "Synthetic portrait made from a voice by a neural network. It shows nobody: "
    "age and sex follow the voice, everything else is invented."
)
PictureSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="{SOFTWARE}"
 Iptc4xmpExt:DigitalSourceType="{SYNTHETIC_SOURCE}"/>
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def side_by_side(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in one, row by row."""
    rows = -(-len(images) // columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, rows * height))
    for k, image in enumerate(images):
        sheet.paste(image, (k % columns * width, k // columns * height))
    return sheet


def encode_marked(
    image: Image.Image,
    format_name: str,
    details: Mapping[str, str],
    *,
    quality: int = 95,
    signer: Signer | None = None,
) -> bytes:
    """Encode a picture with the marks of being synthetic; PNG carries the details as text.

    Raises:
        OutputError: the format cannot hold a picture of that size.
        CredentialError: the picture cannot be signed.
        SettingError: the quality is out of range.
    """
    quality = check_whole("quality", quality, BEST_QUALITY)
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
    data = buffer.getvalue()
    return data if signer is None else signer.sign(data, Image.MIME[format_name])


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
        OutputError: no path, unknown ending, missing folder, no permission, or too large for the
            format.
        CredentialError: the picture cannot be signed.
        SettingError: the quality is out of range.
    """
    path = place_of_picture(path)
    data = encode_marked(image, format_of(path), details, quality=quality, signer=signer)
    write_atomically(path, data)
    return path


def place_of_picture(path: str | os.PathLike[str]) -> Path:
    """Where a picture goes, of a name that it can have.

    Raises:
        OutputError: it is no path, or of unknown ending.
    """
    if not isinstance(path, str | os.PathLike):
        raise OutputError(
            f"pictures are saved at paths, not to a {type(path).__name__}; a portrait's encode() "
            "gives its bytes"
        )
    place = expanded(path)
    format_of(place)
    return place


def numbered(path: Path, count: int) -> list[Path]:
    """Where several pictures go: ``face-1.png``, ``face-2.png`` …; one to the path itself."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(count)]


def format_of(path: Path) -> str:
    """The format that a picture of that name is saved in.

    Raises:
        OutputError: unknown ending.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(
            f"{path}: pictures are saved as {', '.join(FORMATS)}; choose one of these endings"
        )
    return FORMATS[path.suffix.lower()]


def format_called(name: str) -> str:
    """Pillow's name of a format that is called as its files end, ``"jpg"`` say.

    Raises:
        SettingError: there is none.
    """
    ending = f".{name}".lower()
    if ending not in FORMATS:
        known = ", ".join(ending.removeprefix(".") for ending in FORMATS)
        raise SettingError(f"format is one of {known}, not {name!r}")
    return FORMATS[ending]


def open_picture(picture: PictureSource) -> Image.Image:
    """Read a picture as RGB, with what is written in it.

    Args:
        picture: its path, its bytes, or a file object.

    Raises:
        PictureError: it is missing, too large, or no picture that Pillow reads.
    """
    with readable_picture(picture) as image:
        return image.convert("RGB")


def read_info(picture: PictureSource) -> dict[Any, Any]:
    """Read what is written in a picture before its pixels, and none of these.

    Raises:
        PictureError: as of ``open_picture``.
    """
    with readable_picture(picture) as image:
        return dict(image.info)


@contextmanager
def readable_picture(picture: PictureSource) -> Iterator[Image.Image]:
    """Give a picture to read from.

    Raises:
        PictureError: it is missing, too large, or no picture that Pillow reads.
    """
    name = name_of_picture(picture)
    try:
        with opened(picture) as file, Image.open(file) as image:
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} cannot be read as a picture: it is none, or of a format that Pillow lacks"
        ) from error
    except Exception as error:  # Pillow's formats raise whatever they like
        reason = getattr(error, "strerror", None) or error  # without the path once more
        raise PictureError(f"{name} cannot be read as a picture: {reason}") from error


def resized(image: Image.Image, side: int) -> Image.Image:
    """A square RGB picture of another one, which may not have been read from its file yet.

    Raises:
        PictureError: it is no square, or cannot be read to its end.
    """
    picture = upright_rgb(image)
    if abs(picture.width - picture.height) > UNEVEN_PIXELS:
        raise PictureError(
            f"{name_of_image(image)} has {picture.width} x {picture.height} pixels, and faces are "
            "aligned in squares; voice2face.face_alignment.aligned makes one, with the face where "
            "portraits have theirs"
        )
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB, turned as its EXIF says, which may not have been read from its file yet.

    Raises:
        PictureError: it cannot be read to its end.
    """
    try:
        return upright(image).convert("RGB")
    except Exception as error:  # Pillow's formats raise whatever they like
        raise PictureError(
            f"{name_of_image(image)} cannot be read as a picture: {error}"
        ) from error


def name_of_image(image: Image.Image) -> str:
    """What a complaint calls a picture of Pillow's."""
    return getattr(image, "filename", None) or "the given picture"


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says, as cameras that were held on their side write it."""
    try:
        image.getexif()
    except Exception:  # of damaged EXIF, which says nothing
        return image
    return ImageOps.exif_transpose(image)


@contextmanager
def opened(picture: PictureSource) -> Iterator[IO[bytes]]:
    """Give the file that a path names, to be read as far as is wanted; of all else, a copy.

    Raises:
        PictureError: it is too large.
        OSError: it cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        with expanded(picture).open("rb") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode):
                check_size(picture, facts.st_size)
                yield file
            else:
                yield copied(picture, file.read(LARGEST_PICTURE_BYTES + 1))
    elif isinstance(picture, bytes | bytearray | memoryview):
        yield copied(picture, bytes(picture[: LARGEST_PICTURE_BYTES + 1]))
    else:
        yield copied(picture, picture.read(LARGEST_PICTURE_BYTES + 1))


def copied(picture: PictureSource, data: bytes) -> IO[bytes]:
    """A picture in memory.

    Raises:
        PictureError: it is too large.
    """
    check_size(picture, len(data))
    return io.BytesIO(data)


def check_size(picture: PictureSource, count: int) -> None:
    """Refuse a picture of more bytes than any portrait has.

    Raises:
        PictureError: says so.
    """
    if count > LARGEST_PICTURE_BYTES:
        raise PictureError(
            f"{name_of_picture(picture)} is over {LARGEST_PICTURE_BYTES >> 20} MiB: no portrait"
        )


def name_of_picture(picture: PictureSource) -> str:
    """What a complaint calls a picture."""
    if isinstance(picture, str | os.PathLike):
        return str(expanded(picture))
    return "the given picture"
