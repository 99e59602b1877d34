"""Read the orientation that a camera stored with a photograph, and apply or remove it."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import ExifTags, Image

from oiyolo import boxes as geometry
from oiyolo.imagery.decode import FORMATS

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes

    Rgb = npt.NDArray[np.uint8]

UPRIGHT: Final = 1
"""The orientation of an image that is stored upright."""
_QUARTER_TURNS_CCW: Final = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
_MIRRORED: Final = frozenset({2, 4, 5, 7})
"""Orientations that are mirrored from left to right after they are turned (TIFF 6.0, section 8;
Exif 2.32, tag 0x0112)."""
_EXIF_START: Final = b"Exif\0\0"
_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_ENTRY_BYTES: Final = 12


def read_orientation(content: bytes) -> int:
    """Return the EXIF orientation of an image file, from 1 to 8; 1 if it has none that is valid.

    Pillow itself turns a TIFF upright, so that of a TIFF is always 1.

    Args:
        content: Content of the file.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format == "TIFF":
                return UPRIGHT
            value = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # noqa: BLE001  (whatever Pillow raises for damaged metadata)
        return UPRIGHT
    return value if value in {UPRIGHT, *_MIRRORED, *_QUARTER_TURNS_CCW} else UPRIGHT


def without_orientation(content: bytes) -> bytes:
    """Return a JPEG whose EXIF orientation is 1: the same file but for one byte.

    Returns:
        The file unchanged if its orientation is 1 or missing, or is stored in another way.
    """
    start = content.find(_EXIF_START, 0, content.find(b"\xff\xda")) + len(_EXIF_START)
    order = _BYTE_ORDERS.get(content[start : start + 4])
    if start < len(_EXIF_START) or order is None:
        return content
    try:
        (offset,) = struct.unpack_from(f"{order}I", content, start + 4)
        (count,) = struct.unpack_from(f"{order}H", content, start + offset)
        for at in range(
            start + offset + 2, start + offset + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES
        ):
            if struct.unpack_from(f"{order}H", content, at) == (ExifTags.Base.Orientation,):
                value = struct.pack(f"{order}H", UPRIGHT)
                return content[: at + 8] + value + content[at + 8 + len(value) :]
    except struct.error:  # damaged, so no reader finds an orientation
        pass
    return content


def upright_rotation(orientation: int) -> int:
    """Return the degrees counter-clockwise that turn a stored image upright; 0, 90, 180 or 270.

    An image that is also mirrored remains so.
    """
    return 90 * _QUARTER_TURNS_CCW.get(orientation, 0)


def to_stored_boxes(upright_xyxy: Boxes, orientation: int) -> Boxes:
    """Convert boxes from the upright image, mirrored back if need be, to the stored image.

    Args:
        upright_xyxy: Boxes as fractions of the image that ``orient`` returns, shape (n, 4).
        orientation: EXIF orientation.
    """
    x1, y1, x2, y2 = upright_xyxy.T
    mirrored = np.stack((1 - x2, y1, 1 - x1, y2), axis=1)
    turned = mirrored if orientation in _MIRRORED else upright_xyxy
    return geometry.rotate_ccw(turned, -upright_rotation(orientation) % 360)


def orient(rgb: Rgb, orientation: int) -> Rgb:
    """Return the upright image of stored pixels of shape (height, width, 3)."""
    turned = np.rot90(rgb, _QUARTER_TURNS_CCW.get(orientation, 0))
    return np.ascontiguousarray(np.fliplr(turned) if orientation in _MIRRORED else turned)
