"""Boxes as fractions of the image, the representation that all stages use.

A set of boxes is a float64 array of shape (n, 4) called ``xyxy``: left, top, right, bottom, each
a fraction of the image's width or height, with the origin in the top-left corner. ``cxcywh`` holds
centre and size instead, as a line of a YOLO label file does. All functions are pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Boxes = npt.NDArray[np.float64]
"""Boxes, shape (n, 4), fractions of the image; the name of the variable says the order."""

Corners = tuple[float, float, float, float]
"""One box: left, top, right, bottom."""

RIGHT_ANGLES = (0, 90, 180, 270)


def corners(box: npt.NDArray[np.float64]) -> Corners:
    """Return a row of ``xyxy`` as a tuple."""
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


def are_corners(values: Sequence[float]) -> bool:
    """Return whether numbers from a file can be corners: four, from 0 to 1."""
    return [0 <= value <= 1 for value in values] == [True] * 4


def rotate_ccw(xyxy: Boxes, degrees: int) -> Boxes:
    """Rotate boxes together with their image, counter-clockwise.

    Args:
        xyxy: Boxes in the frame of the stored pixels, shape (n, 4).
        degrees: 0, 90, 180 or 270, as in Open Images' ``Rotation`` column
            (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).

    Returns:
        The boxes in the frame of the rotated image, shape (n, 4).

    Raises:
        ValueError: ``degrees`` is not a right angle.
    """
    x1, y1, x2, y2 = xyxy.T
    if degrees == 0:
        rotated = (x1, y1, x2, y2)
    elif degrees == 90:  # noqa: PLR2004
        rotated = (y1, 1 - x2, y2, 1 - x1)
    elif degrees == 180:  # noqa: PLR2004
        rotated = (1 - x2, 1 - y2, 1 - x1, 1 - y1)
    elif degrees == 270:  # noqa: PLR2004
        rotated = (1 - y2, x1, 1 - y1, x2)
    else:
        raise ValueError(f"degrees must be one of {RIGHT_ANGLES}, not {degrees}")
    return np.stack(rotated, axis=1)


def letterbox(xyxy: Boxes, image_wh: tuple[int, int], size_wh: tuple[int, int]) -> Boxes:
    """Convert boxes to the letterboxed image: scaled to fit ``size_wh``, centred between borders.

    Args:
        xyxy: Boxes in the frame of the image, shape (n, 4).
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the letterboxed image in pixels.

    Returns:
        The boxes as fractions of the letterboxed image, shape (n, 4).
    """
    left, top, width, height = letterbox_frame(image_wh, size_wh)
    scale = np.array([width, height, width, height]) / np.array([*size_wh, *size_wh])
    offset = np.array([left, top, left, top]) / np.array([*size_wh, *size_wh])
    return np.asarray(xyxy * scale + offset)


def letterbox_frame(
    image_wh: tuple[int, int], size_wh: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return where the image is in its letterbox: left, top, width, height in whole pixels."""
    scale = min(size_wh[0] / image_wh[0], size_wh[1] / image_wh[1])
    width = max(1, round(image_wh[0] * scale))
    height = max(1, round(image_wh[1] * scale))
    return (size_wh[0] - width) // 2, (size_wh[1] - height) // 2, width, height


def clip(xyxy: Boxes) -> Boxes:
    """Clip boxes to the image."""
    return np.clip(xyxy, 0.0, 1.0)


def area(xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Return each box's area as a fraction of the image's; 0 if its corners are swapped."""
    sides = np.maximum(xyxy[..., 2:] - xyxy[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def to_cxcywh(xyxy: Boxes) -> Boxes:
    """Convert corners to centre and size."""
    x1, y1, x2, y2 = xyxy.T
    return np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), axis=1)


def to_xyxy(cxcywh: Boxes) -> Boxes:
    """Convert centre and size to corners."""
    cx, cy, w, h = cxcywh.T
    return np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1)


def intersection_area(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Return the area of the intersection, row by row.

    Here and below, rows are broadcast as in numpy: ``a[:, None]`` and ``b`` result in all pairs,
    shape (len(a), len(b)).
    """
    low = np.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = np.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    return area(np.concatenate((low, high), axis=-1))


def iou(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Return intersection over union, row by row; 0 if neither box has an area."""
    intersection = intersection_area(a_xyxy, b_xyxy)
    union = area(a_xyxy) + area(b_xyxy) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def ioa(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Return intersection over the area of the first box, row by row; 0 if that has no area."""
    intersection = intersection_area(a_xyxy, b_xyxy)
    own = np.broadcast_to(area(a_xyxy), intersection.shape)
    return np.divide(intersection, own, out=np.zeros_like(intersection), where=own > 0)
