"""Boxes from the stored frame into the prepared one, and which of them become labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.imagery.labels import SMALLEST_SIDE

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes

Fit = str
"""How an image is brought to a size: "stretch", "letterbox" or "none"."""


class Frame(NamedTuple):
    """Where a picture comes to lie in the prepared one, in pixels.

    Attributes:
        left: From the left edge.
        top: From the upper edge.
        wh: Width and height of the picture there.
        size_wh: Width and height of the prepared one.
    """

    left: int
    top: int
    wh: tuple[int, int]
    size_wh: tuple[int, int]


def inner_frame(source_wh: tuple[int, int], size_wh: tuple[int, int], fit: Fit) -> Frame:
    """Give where an upright picture of a size comes to lie; a pixel high and wide at least."""
    if fit == "letterbox":
        left, top, width, height = geometry.letterbox_frame(source_wh, size_wh)
        return Frame(left, top, (width, height), size_wh)
    whole = source_wh if fit == "none" else size_wh
    return Frame(0, 0, whole, whole)


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes of one image in the prepared frame.

    Attributes:
        xyxy: Inside the frame, fractions, shape (n, 4); one for each box that went in.
        because: Why a box is no label ("" if it is one), shape (n,), as text.
    """

    xyxy: Boxes
    because: npt.NDArray[np.object_]

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which boxes are labels, shape (n,)."""
        return np.asarray(self.because == "", dtype=np.bool_)


def place_boxes(
    xyxy: Boxes,
    class_ids: npt.NDArray[np.int64],
    because: npt.NDArray[np.object_],
    *,
    rotation: int,
    source_wh: tuple[int, int],
    size_wh: tuple[int, int],
    fit: Fit,
) -> PlacedBoxes:
    """Turn, clip and fit boxes as their image is.

    Args:
        xyxy: Boxes in the stored frame, fractions, shape (n, 4).
        class_ids: Their classes, shape (n,).
        because: Why the selection dropped a box ("" if it did not), shape (n,).
        rotation: Degrees counter-clockwise that make the image upright.
        source_wh: Width and height of the upright image before it is resized, in pixels.
        size_wh: Width and height of the prepared image in pixels.
        fit: "stretch", "letterbox" or "none".

    Returns:
        The boxes in the prepared frame; a box without area there, or that repeats one before it,
        is no label.
    """
    placed = geometry.clip(geometry.rotate_ccw(xyxy, rotation))
    if fit == "letterbox":
        placed = geometry.letterbox(placed, source_wh, size_wh)
    reasons = because.copy()
    sides = placed[:, 2:] - placed[:, :2]
    # Turned about, so that a side that is no number is none either.
    reasons[(reasons == "") & ~(sides >= SMALLEST_SIDE).all(axis=1)] = "no area"
    seen: set[tuple[float, ...]] = set()
    for row in np.flatnonzero(reasons == ""):
        box = (float(class_ids[row]), *placed[row].round(6))
        if box in seen:
            reasons[row] = "repeated"
        seen.add(box)
    return PlacedBoxes(placed, reasons)
