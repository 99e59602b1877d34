"""Read the orientation that a camera stored with a photograph, and apply it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import ExifTags, Image

from oiyolo.imagery.decode import FORMATS

if TYPE_CHECKING:
    import numpy.typing as npt

    Rgb = npt.NDArray[np.uint8]

UPRIGHT: Final = 1
"""The orientation of an image that is stored upright."""
_QUARTER_TURNS_CCW: Final = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
_MIRRORED: Final = frozenset({2, 4, 5, 7})
"""Orientations that are mirrored from left to right after they are turned (TIFF 6.0, section 8;
Exif 2.32, tag 0x0112)."""


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


def orient(rgb: Rgb, orientation: int) -> Rgb:
    """Return the upright image of stored pixels of shape (height, width, 3)."""
    turned = np.rot90(rgb, _QUARTER_TURNS_CCW.get(orientation, 0))
    return np.ascontiguousarray(np.fliplr(turned) if orientation in _MIRRORED else turned)
