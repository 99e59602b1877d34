"""Fit images to a network's input exactly as darknet does, and convert its boxes back.

Everything here follows darknet's own arithmetic, which is the same in pjreddie's darknet and
AlexeyAB's (src/image.c: letterbox_image and resize_image; src/yolo_layer.c: correct_yolo_boxes;
src/region_layer.c: correct_region_boxes). ``boxes.letterbox_frame``, with which images are
prepared, rounds to the nearest pixel. Darknet rounds down, which can make a difference of a row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.inference.facts import InputFit

    Indices = npt.NDArray[np.intp]
    Rgb = npt.NDArray[np.uint8]
    Planes = npt.NDArray[np.float32]
    """Red, green and blue from 0 to 1, shape (3, height, width)."""

_GREY: Final = 0.5
_LEVELS: Final = 255
_ROWS_AT_ONCE: Final = 32


def placed_wh(
    image_wh: tuple[int, int], size_wh: tuple[int, int], fit: InputFit
) -> tuple[int, int]:
    """Return the width and height in pixels to which an image is resized for the input.

    Args:
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the input in pixels.
        fit: How the image is fitted to the input.
    """
    if fit == "stretch":
        return size_wh
    (image_w, image_h), (width, height) = image_wh, size_wh
    # The quotients are compared as C floats and the sides are divided as integers, as in darknet.
    # It would resize a very narrow image to nothing, where one pixel is left here.
    if np.float32(width) / np.float32(image_w) < np.float32(height) / np.float32(image_h):
        return width, max(1, image_h * width // image_w)
    return max(1, image_w * height // image_h), height


def unit_wh(
    image_wh: tuple[int, int], size_wh: tuple[int, int], fit: InputFit
) -> tuple[float, float]:
    """Return the width and height of the whole input, borders included, in pixels of the image.

    Args:
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the input in pixels.
        fit: How the image is fitted to the input.
    """
    placed = placed_wh(image_wh, size_wh, fit)
    return image_wh[0] * size_wh[0] / placed[0], image_wh[1] * size_wh[1] / placed[1]


def to_image(
    cxcywh: npt.NDArray[np.floating],
    image_wh: tuple[int, int],
    size_wh: tuple[int, int],
    fit: InputFit,
) -> Boxes:
    """Convert boxes of the input to corners in pixels of the image, clipped to the image.

    Args:
        cxcywh: Centres and sizes as fractions of the input, shape (n, 4).
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the input in pixels.
        fit: How the image was fitted to the input.

    Returns:
        Left, top, right, bottom, shape (n, 4).
    """
    unit = np.array(unit_wh(image_wh, size_wh, fit))
    # Half of an odd border is half a pixel here, although the image is placed at a whole pixel.
    # Darknet does so too, and its boxes are what a network's figures were measured with.
    start = (unit - image_wh) / 2
    centre = cxcywh[:, :2] * unit - start
    half = cxcywh[:, 2:] * (unit / 2)
    xyxy = np.concatenate((centre - half, centre + half), axis=1)
    return np.asarray(np.clip(xyxy, 0.0, np.array([*image_wh, *image_wh], np.float64)))


def fit_image(rgb: Rgb, size_wh: tuple[int, int], fit: InputFit, out: Planes) -> None:
    """Write an image as a network's input: resized by darknet's rules, with grey borders.

    Args:
        rgb: The image, shape (height, width, 3).
        size_wh: Width and height of the input in pixels.
        fit: How the image is fitted to the input.
        out: Array that receives the input, shape (3, height, width), values from 0 to 1.
    """
    image_wh = rgb.shape[1], rgb.shape[0]
    width, height = placed_wh(image_wh, size_wh, fit)
    left, top = (size_wh[0] - width) // 2, (size_wh[1] - height) // 2
    out[:, :top] = out[:, top + height :] = _GREY
    out[:, :, :left] = out[:, :, left + width :] = _GREY
    planes = out[:, top : top + height, left : left + width]
    if image_wh == (width, height):
        for channel, plane in enumerate(planes):
            np.multiply(rgb[..., channel], np.float32(1 / _LEVELS), out=plane)
    else:
        _resize(rgb, planes)


class _Axis(NamedTuple):
    """The two source pixels of every target pixel on one axis, and their weights."""

    low: Indices
    high: Indices
    low_weight: Planes
    high_weight: Planes

    def of(self, block: slice) -> _Axis:
        low, high, low_weight, high_weight = self
        return _Axis(low[block], high[block], low_weight[block], high_weight[block])


@lru_cache(maxsize=64)
def _columns(source_px: int, target_px: int) -> _Axis:
    low, high, low_weight, high_weight = _axis(source_px, target_px)
    low[-1] = source_px - 1  # whatever rounding makes of it
    return _Axis(low, high, low_weight, high_weight)


@lru_cache(maxsize=64)
def _rows(source_px: int, target_px: int) -> _Axis:
    low, high, low_weight, high_weight = _axis(source_px, target_px)
    # Darknet omits the second term from its last row. Where rounding puts that row just above the
    # image's last, the weight of the first term is almost 0, and the row is black.
    high_weight[-1] = 0
    return _Axis(low, high, low_weight / np.float32(_LEVELS), high_weight / np.float32(_LEVELS))


def _axis(source_px: int, target_px: int) -> _Axis:
    scale = np.float32(source_px - 1) / np.float32(max(1, target_px - 1))
    position = np.arange(target_px, dtype=np.float32) * scale
    low = np.minimum(position.astype(np.intp), source_px - 1)
    fraction = position - low.astype(np.float32)
    return _Axis(low, np.minimum(low + 1, source_px - 1), 1 - fraction, fraction)


def _resize(rgb: Rgb, planes: Planes) -> None:
    """Write an image resized by resize_image (src/image.c) and divided by 255.

    It is as fast as anything that agrees with darknet's loops in every supported version of OpenCV.
    Milliseconds of one busy core, from 1024x768 to 416x312 and from 4000x3000:

    =======================================  ====  =====
    **this**                                  3.1    4.3
    plain numpy, indexed by both axes        11     19
    ``cv2.remap``, if OpenCV is at least 5    2.9   32
    onnxruntime's Resize, align_corners       3.8   39
    two matrix products                      23
    =======================================  ====  =====

    All agree to 1e-4, but before OpenCV 5 ``cv2.remap`` rounds the weights to 1/32. Blocks of rows
    fit into the cache, and into memory that the process has; whole images would need new pages
    from the system each time, which takes up to 8 ms more.
    """
    _, height, width = planes.shape
    columns, rows = _columns(rgb.shape[1], width), _rows(rgb.shape[0], height)
    for start in range(0, height, _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        _resize_rows(rgb, planes[:, block], columns, rows.of(block))


def _resize_rows(rgb: Rgb, planes: Planes, x: _Axis, y: _Axis) -> None:
    """Write some rows of a resized image; ``x`` refers to columns of ``rgb``, ``y`` to its rows."""
    _, height, width = planes.shape
    low: Indices | slice = y.low - y.low[0]
    high: Indices | slice = y.high - y.low[0]
    rows = rgb[y.low[0] : y.high[-1] + 1]
    if len(rows) > 2 * height:
        rows = rgb.take(np.concatenate((y.low, y.high)), axis=0)
        low, high = slice(height), slice(height, None)
    # Pixels of four bytes are gathered as integers, which is several times as fast as bytes.
    pixels = cv2.cvtColor(np.ascontiguousarray(rows), cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    left, right = (
        pixels.take(columns, axis=1).view(np.uint8).reshape(-1, width, 4)
        for columns in (x.low, x.high)
    )
    base = np.empty((len(pixels), width), np.float32)
    mixed = np.empty_like(base)
    for channel, plane in enumerate(planes):
        np.copyto(base, left[..., channel])
        np.copyto(mixed, right[..., channel])
        mixed -= base
        mixed *= x.high_weight
        mixed += base
        np.multiply(mixed[low], y.low_weight[:, None], out=plane)
        np.add(plane, mixed[high] * y.high_weight[:, None], out=plane)
