"""Convert boxes from the stored frame to the prepared one, and decide which become labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.imagery.labels import MIN_SIDE

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes

Fit = str
"""How an image is fitted to a size: "stretch", "letterbox" or "none"."""


class Frame(NamedTuple):
    """Position of a resized image in the prepared image, in pixels.

    Attributes:
        left: Distance from the left edge.
        top: Distance from the top edge.
        wh: Width and height of the resized image.
        size_wh: Width and height of the prepared image.
    """

    left: int
    top: int
    wh: tuple[int, int]
    size_wh: tuple[int, int]


def place_image(source_wh: tuple[int, int], size_wh: tuple[int, int], fit: Fit) -> Frame:
    """Return the position of an upright image in the prepared image; it is at least 1 x 1.

    Args:
        source_wh: Width and height of the upright image in pixels.
        size_wh: Width and height of the prepared image in pixels; ignored if ``fit`` is "none".
        fit: "stretch", "letterbox" or "none".
    """
    if fit == "letterbox":
        left, top, width, height = geometry.letterbox_frame(source_wh, size_wh)
        return Frame(left, top, (width, height), size_wh)
    whole = source_wh if fit == "none" else size_wh
    return Frame(0, 0, whole, whole)


def to_stored(
    xyxy: Boxes,
    *,
    rotation: int,
    source_wh: tuple[int, int],
    size_wh: tuple[int, int],
    fit: Fit,
) -> Boxes:
    """Return boxes of the prepared frame as fractions of the stored image, clipped to it.

    The arguments are those of ``place_boxes``, whose inverse this is.
    """
    upright = xyxy
    if fit == "letterbox":
        frame = place_image(source_wh, size_wh, fit)
        size = np.array([*frame.size_wh, *frame.size_wh])
        start = np.array([frame.left, frame.top, frame.left, frame.top])
        upright = (xyxy * size - start) / np.array([*frame.wh, *frame.wh])
    return geometry.clip(geometry.rotate_ccw(geometry.clip(upright), -rotation % 360))


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes of one image in the prepared frame.

    Attributes:
        xyxy: All boxes that were passed in, clipped to the image, as fractions of the frame, shape
            (n, 4).
        drop_reasons: Why each box is not a label; "" if it is one. Shape (n,), text.
    """

    xyxy: Boxes
    drop_reasons: npt.NDArray[np.object_]

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Whether each box is a label, shape (n,)."""
        return np.asarray(self.drop_reasons == "", dtype=np.bool_)


def place_boxes(
    xyxy: Boxes,
    class_ids: npt.NDArray[np.int64],
    drop_reasons: npt.NDArray[np.object_],
    *,
    rotation: int,
    source_wh: tuple[int, int],
    size_wh: tuple[int, int],
    fit: Fit,
) -> PlacedBoxes:
    """Rotate, clip and fit boxes in the same way as their image.

    Args:
        xyxy: Boxes in the stored frame, as fractions, shape (n, 4).
        class_ids: Class of each box, shape (n,).
        drop_reasons: Why the selection dropped each box; "" if it did not. Shape (n,).
        rotation: Degrees counter-clockwise that make the image upright.
        source_wh: Width and height of the upright image before it is resized, in pixels.
        size_wh: Width and height of the prepared image in pixels.
        fit: "stretch", "letterbox" or "none".

    Returns:
        The boxes in the prepared frame. A box without area there, or one that repeats an earlier
        box of its class, is not a label.
    """
    placed = geometry.clip(geometry.rotate_ccw(xyxy, rotation))
    if fit == "letterbox":
        placed = geometry.letterbox(placed, source_wh, size_wh)
    reasons = drop_reasons.copy()
    sides = placed[:, 2:] - placed[:, :2]
    # Negated, so that a side that is NaN counts as too small.
    reasons[(reasons == "") & ~(sides >= MIN_SIDE).all(axis=1)] = "no area"
    seen: set[tuple[float, ...]] = set()
    for row in np.flatnonzero(reasons == ""):
        box = (float(class_ids[row]), *placed[row].round(6))
        if box in seen:
            reasons[row] = "repeated"
        seen.add(box)
    return PlacedBoxes(placed, reasons)
