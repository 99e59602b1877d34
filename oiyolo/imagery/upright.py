"""From a file as served to the picture that darknet reads: upright, of one size, without EXIF.

Boxes belong to the stored pixels with any EXIF orientation ignored; ``Rotation`` turns pixels and
boxes together (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).
What is written has neither EXIF nor profile nor comment: a profile other than sRGB was applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import simplejpeg

from oiyolo import boxes as geometry
from oiyolo.imagery.colour import to_srgb
from oiyolo.imagery.decode import UnreadableImageError, open_picture
from oiyolo.imagery.duplicates import perceptual_hash
from oiyolo.imagery.placement import inner_frame
from oiyolo.imagery.resize import enough_for, resize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.imagery.placement import Fit, Frame

    Rgb = npt.NDArray[np.uint8]

__all__ = ["JPEG_QUALITY", "SUBSAMPLING", "UnreadableImageError", "UprightImage", "make_upright"]

JPEG_QUALITY: Final = 90
SUBSAMPLING: Final = "420"
"""Colour at half the resolution, as nearly all photographs have it, and as Pillow writes it."""
_BORDER_GREY: Final = 127
"""What darknet itself fills a letterbox with (src/image.c, letterbox_image: 0.5)."""
_HASHED_PX: Final = 512
"""A larger picture is reduced before it is hashed; to reduce a smaller one would cost more than it
saves."""
_NO_BOXES: Final = np.zeros((0, 4))


@dataclass(frozen=True)
class UprightImage:
    """A picture ready for darknet.

    Attributes:
        jpeg: The file to write.
        source_wh: Width and height of the upright picture before it was resized, in pixels.
        phash: Its perceptual hash, see ``imagery.duplicates``.
    """

    jpeg: bytes
    source_wh: tuple[int, int]
    phash: int


def make_upright(
    path: Path,
    rotation: int,
    size_wh: tuple[int, int],
    fit: Fit,
    masked_xyxy: Boxes = _NO_BOXES,
) -> UprightImage:
    """Decode, resize, turn, mask and encode one image.

    Args:
        path: The file as served.
        rotation: Degrees counter-clockwise that make it upright.
        size_wh: Width and height of the result in pixels, unless ``fit`` is "none".
        fit: "stretch" ignores the aspect ratio, "letterbox" keeps it on a grey border, "none"
            leaves the size alone.
        masked_xyxy: Regions of the stored picture to grey out, fractions, shape (n, 4).

    Raises:
        UnreadableImageError: The file cannot be decoded whole.
        FileNotFoundError: There is no such file.
    """
    picture = open_picture(_read(path))
    is_lying = rotation in {90, 270}
    source_wh = _swapped(picture.stored_wh, swap=is_lying)
    frame = inner_frame(source_wh, size_wh, fit)
    # Resized as it lies, because there is less to turn then.
    lying_wh = _swapped(frame.wh, swap=is_lying)
    rgb = resize(picture.pixels(enough_for(lying_wh)), lying_wh)
    profile = picture.profile
    if profile is not None:
        rgb = to_srgb(rgb, profile)
    rgb = np.rot90(rgb, rotation // 90)  # counter-clockwise
    phash = _hash_of(rgb)
    rgb = _masked(rgb, geometry.clip(geometry.rotate_ccw(masked_xyxy, rotation)))
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(_framed(rgb, frame)), JPEG_QUALITY, "RGB", SUBSAMPLING
    )
    return UprightImage(encoded, source_wh, phash)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableImageError("cannot be read from the disk") from error


def _swapped(wh: tuple[int, int], *, swap: bool) -> tuple[int, int]:
    return (wh[1], wh[0]) if swap else wh


def _hash_of(rgb: Rgb) -> int:
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    if max(width, height) > _HASHED_PX:
        small_wh = (min(width, _HASHED_PX), min(height, _HASHED_PX))
        grey = cv2.resize(grey, small_wh, interpolation=cv2.INTER_AREA)
    return perceptual_hash(np.asarray(grey, dtype=np.uint8))


def _masked(rgb: Rgb, xyxy: Boxes) -> Rgb:
    """Grey out regions, and every pixel that they touch."""
    if not len(xyxy):
        return rgb
    made = rgb.copy()
    height, width = rgb.shape[:2]
    for x1, y1, x2, y2 in xyxy.tolist():
        rows = slice(math.floor(y1 * height), math.ceil(y2 * height))
        made[rows, math.floor(x1 * width) : math.ceil(x2 * width)] = _BORDER_GREY
    return made


def _framed(rgb: Rgb, frame: Frame) -> Rgb:
    """Put a picture into its place on a grey border, if it has one."""
    if frame.wh == frame.size_wh:
        return rgb
    made = np.full((frame.size_wh[1], frame.size_wh[0], 3), _BORDER_GREY, dtype=np.uint8)
    made[frame.top : frame.top + frame.wh[1], frame.left : frame.left + frame.wh[0]] = rgb
    return made
