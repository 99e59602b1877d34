"""Boxes as fractions of the image: the one geometry that every stage speaks.

A set of boxes is a float64 array of shape (n, 4) called ``xyxy``: left, top, right, bottom, each
a fraction of the image's width or height, origin at the top-left corner. ``cxcywh`` is the same
boxes as centre and size, which is what a YOLO label line holds. All functions are pure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]
"""Boxes, shape (n, 4), fractions of the image; the variable's name tells the order."""

RIGHT_ANGLES = (0, 90, 180, 270)


def rotate_ccw(xyxy: Boxes, degrees: int) -> Boxes:
    """Turn boxes with their image, counter-clockwise.

    Args:
        xyxy: Boxes in the frame of the stored pixels, shape (n, 4).
        degrees: 0, 90, 180 or 270, as in Open Images' ``Rotation`` column
            (https://storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html).

    Returns:
        The boxes in the turned frame, shape (n, 4).

    Raises:
        ValueError: ``degrees`` is not a right angle.
    """
    x1, y1, x2, y2 = xyxy.T
    if degrees == 0:
        turned = (x1, y1, x2, y2)
    elif degrees == 90:  # noqa: PLR2004
        turned = (y1, 1 - x2, y2, 1 - x1)
    elif degrees == 180:  # noqa: PLR2004
        turned = (1 - x2, 1 - y2, 1 - x1, 1 - y1)
    elif degrees == 270:  # noqa: PLR2004
        turned = (1 - y2, x1, 1 - y1, x2)
    else:
        raise ValueError(f"degrees must be one of {RIGHT_ANGLES}, not {degrees}")
    return np.stack(turned, axis=1)


def letterbox(xyxy: Boxes, image_wh: tuple[int, int], size_wh: tuple[int, int]) -> Boxes:
    """Follow an image that is scaled to fit inside ``size_wh`` and centred on a border.

    Args:
        xyxy: Boxes in the frame of the image, shape (n, 4).
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the letterboxed picture in pixels.

    Returns:
        The boxes as fractions of the letterboxed picture, shape (n, 4).
    """
    left, top, width, height = letterbox_frame(image_wh, size_wh)
    scale = np.array([width, height, width, height]) / np.array([*size_wh, *size_wh])
    offset = np.array([left, top, left, top]) / np.array([*size_wh, *size_wh])
    return np.asarray(xyxy * scale + offset)


def letterbox_frame(
    image_wh: tuple[int, int], size_wh: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Give the place of a letterboxed image: left, top, width, height in whole pixels."""
    scale = min(size_wh[0] / image_wh[0], size_wh[1] / image_wh[1])
    width = max(1, round(image_wh[0] * scale))
    height = max(1, round(image_wh[1] * scale))
    return (size_wh[0] - width) // 2, (size_wh[1] - height) // 2, width, height


def clip(xyxy: Boxes) -> Boxes:
    """Cut boxes off at the image's edges."""
    return np.clip(xyxy, 0.0, 1.0)


def area(xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Give each box's area as a fraction of the image's; 0 where a box is turned inside out."""
    sides = np.maximum(xyxy[..., 2:] - xyxy[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def to_cxcywh(xyxy: Boxes) -> Boxes:
    """Corners to centre and size."""
    x1, y1, x2, y2 = xyxy.T
    return np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), axis=1)


def to_xyxy(cxcywh: Boxes) -> Boxes:
    """Centre and size to corners."""
    cx, cy, w, h = cxcywh.T
    return np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1)


def shared_area(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Give the area that two boxes share, row by row.

    Here and below, rows are brought together as numpy broadcasts them: ``a[:, None]`` and ``b``
    give every pair, shape (len(a), len(b)).
    """
    low = np.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = np.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    return area(np.concatenate((low, high), axis=-1))


def iou(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Give intersection over union, row by row; 0 where neither box has an area."""
    shared = shared_area(a_xyxy, b_xyxy)
    union = area(a_xyxy) + area(b_xyxy) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def ioa(a_xyxy: Boxes, b_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Give intersection over the first box's area, row by row; 0 where it has none."""
    shared = shared_area(a_xyxy, b_xyxy)
    own = np.broadcast_to(area(a_xyxy), shared.shape)
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)
