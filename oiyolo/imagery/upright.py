"""Convert an image file to the JPEG that darknet reads: upright, of a fixed size, without metadata.

Boxes refer to the stored pixels, ignoring any EXIF orientation; ``Rotation`` rotates pixels and
boxes together (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).
The result is sRGB and has neither EXIF data nor a profile nor a comment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import simplejpeg

from oiyolo import boxes as geometry
from oiyolo.core import files
from oiyolo.imagery.colour import to_srgb
from oiyolo.imagery.decode import open_image
from oiyolo.imagery.duplicates import perceptual_hash
from oiyolo.imagery.exif import orient, read_orientation
from oiyolo.imagery.placement import place_image
from oiyolo.imagery.resize import min_decode_size, resize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.imagery.placement import Fit, Frame

    Rgb = npt.NDArray[np.uint8]

JPEG_QUALITY: Final = 90
_SUBSAMPLING: Final = "420"
"""Chroma at half the resolution, as in nearly all photographs, and as Pillow writes by default."""
_BORDER_GREY: Final = 127
"""The grey with which darknet itself fills a letterbox (src/image.c, letterbox_image: 0.5)."""
_HASHED_PX: Final = 512
"""Longest side of an image that is hashed without being reduced first. Reducing a smaller image
would take more time than it saves."""
_NO_BOXES: Final = np.zeros((0, 4))


@dataclass(frozen=True)
class UprightImage:
    """An image ready for darknet.

    Attributes:
        jpeg: Content of the JPEG file.
        source_wh: Width and height of the upright image before it was resized, in pixels.
        phash: Perceptual hash (see ``imagery.duplicates``).
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
    """Decode, resize, rotate, mask and encode one image.

    Args:
        path: Path of the original file.
        rotation: Degrees counter-clockwise that make it upright.
        size_wh: Width and height of the result in pixels; ignored if ``fit`` is "none".
        fit: "stretch" ignores the aspect ratio, "letterbox" preserves it and adds a grey border,
            "none" keeps the size.
        masked_xyxy: Regions of the stored image to fill with grey, as fractions, shape (n, 4).

    Raises:
        UnreadableImageError: The content cannot be decoded completely.
        OSError: The file cannot be read, or is not a regular file: this says nothing about the
            content.
    """
    source = open_image(files.read_bytes(path))
    is_sideways = rotation in {90, 270}
    source_wh = _swap_if(source.stored_wh, swap=is_sideways)
    frame = place_image(source_wh, size_wh, fit)
    # Resized before it is rotated, because that leaves fewer pixels to rotate.
    stored_frame_wh = _swap_if(frame.wh, swap=is_sideways)
    rgb = resize(source.decode(min_decode_size(stored_frame_wh)), stored_frame_wh)
    profile = source.icc_profile
    if profile is not None:
        rgb = to_srgb(rgb, profile)
    rgb = np.rot90(rgb, rotation // 90)  # counter-clockwise
    phash = _compute_phash(rgb)
    rgb = _mask_regions(rgb, geometry.clip(geometry.rotate_ccw(masked_xyxy, rotation)))
    return UprightImage(encode_jpeg(_add_border(rgb, frame)), source_wh, phash)


def encode_jpeg(rgb: Rgb, quality: int = JPEG_QUALITY, subsampling: str = _SUBSAMPLING) -> bytes:
    """Return pixels of shape (height, width, 3) as a JPEG without metadata."""
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", subsampling)
    return jpeg


def decode_upright(content: bytes, *, rotation: int | None = None, use_exif: bool = True) -> Rgb:
    """Decode a photograph at its full size to the pixels that a person sees.

    Args:
        content: Content of an image file.
        rotation: Degrees counter-clockwise that make it upright, in which case its EXIF orientation
            is ignored; ``None`` if they are not known.
        use_exif: Whether to apply the EXIF orientation.

    Returns:
        sRGB pixels, shape (height, width, 3).

    Raises:
        UnreadableImageError: The content cannot be decoded completely.
    """
    source = open_image(content)
    rgb = source.decode(source.stored_wh)
    if (profile := source.icc_profile) is not None:
        rgb = to_srgb(rgb, profile)
    if rotation is not None:
        return np.ascontiguousarray(np.rot90(rgb, rotation // 90))
    return orient(rgb, read_orientation(content)) if use_exif else rgb


def _swap_if(wh: tuple[int, int], *, swap: bool) -> tuple[int, int]:
    return (wh[1], wh[0]) if swap else wh


def _compute_phash(rgb: Rgb) -> int:
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    if max(width, height) > _HASHED_PX:
        small_wh = (min(width, _HASHED_PX), min(height, _HASHED_PX))
        grey = cv2.resize(grey, small_wh, interpolation=cv2.INTER_AREA)
    return perceptual_hash(np.asarray(grey, dtype=np.uint8))


def _mask_regions(rgb: Rgb, xyxy: Boxes) -> Rgb:
    """Return an image with some regions, and every pixel they touch, filled with grey."""
    if not len(xyxy):
        return rgb
    result = rgb.copy()
    height, width = rgb.shape[:2]
    for x1, y1, x2, y2 in xyxy.tolist():
        rows = slice(math.floor(y1 * height), math.ceil(y2 * height))
        result[rows, math.floor(x1 * width) : math.ceil(x2 * width)] = _BORDER_GREY
    return result


def _add_border(rgb: Rgb, frame: Frame) -> Rgb:
    """Return an image on a grey background, if its frame has a border."""
    if frame.wh == frame.size_wh:
        return rgb
    result = np.full((frame.size_wh[1], frame.size_wh[0], 3), _BORDER_GREY, dtype=np.uint8)
    result[frame.top : frame.top + frame.wh[1], frame.left : frame.left + frame.wh[0]] = rgb
    return result
