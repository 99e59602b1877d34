"""Turn an image file upright for other programs, at its full size, without loss where possible.

Some programs apply the EXIF orientation and others ignore it, so the result has none. A file is
either a JPEG or a PNG, because that is what all of them read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from PIL import Image

from oiyolo.imagery import jpeg
from oiyolo.imagery.decode import open_image
from oiyolo.imagery.exif import UPRIGHT, read_orientation, without_orientation
from oiyolo.imagery.upright import decode_upright, encode_jpeg

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Change = Literal["", "orientation", "rotated", "converted"]
"""What was changed: nothing, only the EXIF orientation, or all pixels."""

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_QUALITY: Final = 95
_SUBSAMPLING: Final = "444"
_FAST_COMPRESSION: Final = 1
_JPEG_HEAD_BYTES: Final = 1 << 17
"""Enough for the EXIF data, which come first and have at most 64 KiB, and for XMP data after it."""
_SIDEWAYS: Final = frozenset({90, 270})


@dataclass(frozen=True, slots=True)
class UprightFile:
    """An image file that is upright in every program.

    Attributes:
        content: Content of the file.
        suffix: ".jpg" or ".png".
        size_wh: Width and height in pixels.
        change: What was changed in the original file.
    """

    content: bytes
    suffix: str
    size_wh: tuple[int, int]
    change: Change


def make_upright_file(content: bytes, rotation: int) -> UprightFile:
    """Return an image file upright.

    A JPEG or PNG that needs no rotation keeps its bytes, but for an EXIF orientation, which is set
    to 1. A JPEG that is rotated, or is CMYK, is encoded again with quality 95; any other file
    becomes a PNG.

    Args:
        content: Content of the file.
        rotation: Degrees counter-clockwise that make its stored pixels upright.

    Raises:
        UnreadableImageError: The file is not an image, or its pixels, if they have to be decoded,
            are damaged.
    """
    image = open_image(content)
    width, height = image.stored_wh
    size_wh = (height, width) if rotation in _SIDEWAYS else (width, height)
    is_jpeg = content.startswith(jpeg.START)
    is_common = (is_jpeg and not image.is_cmyk) or content.startswith(_PNG_START)
    suffix = ".jpg" if is_jpeg else ".png"
    if rotation == 0 and is_common:
        if not _may_have_orientation(content) or read_orientation(content) == UPRIGHT:
            return UprightFile(content, suffix, size_wh, "")
        upright = without_orientation(content) if is_jpeg else content
        if read_orientation(upright) == UPRIGHT:
            return UprightFile(upright, suffix, size_wh, "orientation")
    rgb = decode_upright(content, rotation=rotation)
    encoded = encode_jpeg(rgb, _QUALITY, _SUBSAMPLING) if is_jpeg else _encode_png(rgb)
    return UprightFile(encoded, suffix, size_wh, "rotated" if rotation else "converted")


def _may_have_orientation(content: bytes) -> bool:
    """Return whether a file has EXIF or XMP data, in which Pillow looks for an orientation."""
    names, end = (b"eXIf", b"XML:com"), len(content)
    if content.startswith(jpeg.START):
        names, end = (b"Exif\0\0", b"http://ns.adobe.com/xap"), _JPEG_HEAD_BYTES
    return any(content.find(name, 0, end) >= 0 for name in names)


def _encode_png(rgb: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=_FAST_COMPRESSION)
    return buffer.getvalue()
