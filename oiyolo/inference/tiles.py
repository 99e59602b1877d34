"""Overlapping tiles of an image, in which a network finds objects too small for it in the whole.

A box that ends at a border between tiles shows only a part of an object. Parts that face each other
across a border are joined; where a fuller box of the class covers a part, the part is dropped. Any
other part is dropped, too, since the neighbour shows more of the object and does not confirm it. If
they were kept, parts of large objects would be reported as all kinds of things: on 40 photographs,
almost three times as many wrong boxes, for one more small object.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from oiyolo.boxes import area, ioa, to_cxcywh, to_xyxy
from oiyolo.core.batches import batched
from oiyolo.inference.suppression import suppress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.boxes import Boxes

    Flags = npt.NDArray[np.bool_]

Frame = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels of the image."""

MAX_TILES: Final = 64
"""Tiles of a larger image are made larger, so that no image takes minutes."""
_OVERLAP: Final = 0.2
"""Share of a tile's side by which neighbours overlap, at least."""
_ROWS_AT_ONCE: Final = 256
_BORDER_SHARE: Final = 0.02
"""A box that ends this close to the border of a tile, in sides of the tile, counts as cut."""
_COVERED_SHARE: Final = 0.7
"""Share of a cut box that a fuller box covers if they show the same object."""
_FACING_SHARE: Final = 0.6
"""Overlap of two parts along the border that they face, relative to both together."""


class TileDetections(NamedTuple):
    """The detections in a tile, or in the whole image.

    Attributes:
        frame: The part of the image that was searched.
        class_id: Class of each detection, shape (n,).
        confidence: Confidence of each detection, shape (n,).
        xyxy: Left, top, right, bottom in pixels of the whole image, shape (n, 4).
    """

    frame: Frame
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    xyxy: Boxes


def tiles(image_wh: tuple[int, int], size_wh: tuple[int, int]) -> list[Frame]:
    """Return overlapping tiles that cover an image, row by row.

    A tile has the size of the network's input, so that nothing is reduced, or a multiple of it if
    there would be more than ``MAX_TILES``. Where the image is smaller, a tile is as small.

    Args:
        image_wh: Width and height of the image in pixels.
        size_wh: Width and height of the network's input in pixels.

    Returns:
        The tiles; none if the image is not larger than the network's input.
    """
    scale = 1.0
    while True:
        tile_wh = [round(side * scale) for side in size_wh]
        columns, rows = map(_intervals, image_wh, tile_wh)
        if len(columns) * len(rows) <= MAX_TILES:
            break
        scale *= 1.1
    if len(columns) == len(rows) == 1:
        return []
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _intervals(length: int, tile: int) -> list[tuple[int, int]]:
    """Return the first and last pixel, exclusive, of the tiles on an axis, evenly spaced."""
    if length <= tile:
        return [(0, length)]
    count = 1 + math.ceil((length - tile) / (tile * (1 - _OVERLAP)))
    starts = np.linspace(0, length - tile, count).round().astype(int).tolist()
    return [(start, start + tile) for start in starts]


def merge(
    parts: Sequence[TileDetections], image_wh: tuple[int, int], *, nms_iou: float
) -> TileDetections:
    """Return the detections in an image and in its tiles, each object once.

    Args:
        parts: The detections in the whole image and in each tile.
        image_wh: Width and height of the image in pixels.
        nms_iou: IoU above which the less confident of two boxes of a class is removed.

    Returns:
        The detections by falling confidence, in the frame of the whole image.
    """
    class_id = np.concatenate([part.class_id for part in parts])
    class_ids = np.unique(class_id)
    boxes = _Boxes(
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([_cut_sides(part, image_wh) for part in parts]),
    )
    # One column per class: each box has a score in its own.
    objects = [_whole_objects(boxes.of(class_id == number)) for number in class_ids]
    column = np.repeat(np.arange(len(objects)), [len(each.confidence) for each in objects])
    scores = np.zeros((len(column), len(objects)), np.float32)
    if objects:
        scores[np.arange(len(column)), column] = np.concatenate(
            [each.confidence for each in objects]
        )
    xyxy = np.concatenate([np.empty((0, 4)), *[each.xyxy for each in objects]])
    kept = suppress(to_cxcywh(xyxy), scores, threshold=0, nms_iou=nms_iou)
    corners = np.clip(to_xyxy(kept.cxcywh), 0, [*image_wh, *image_wh])
    return TileDetections((0, 0, *image_wh), class_ids[kept.class_id], kept.confidence, corners)


class _Boxes(NamedTuple):
    """Boxes of a class, and which of their sides (as in ``xyxy``) end at the border of a tile."""

    confidence: npt.NDArray[np.float64]
    xyxy: Boxes
    cut: Flags

    def of(self, rows: npt.NDArray[np.bool_ | np.intp]) -> _Boxes:
        return _Boxes(self.confidence[rows], self.xyxy[rows], self.cut[rows])


def _cut_sides(part: TileDetections, image_wh: tuple[int, int]) -> Flags:
    """Return which sides of a tile's boxes end at a border inside the image, shape (n, 4)."""
    left, top, right, bottom = part.frame
    margin = _BORDER_SHARE * np.array([right - left, bottom - top] * 2)
    is_at_border = np.abs(part.xyxy - np.array(part.frame)) <= margin
    return np.asarray(is_at_border & (np.array(part.frame) != np.array([0, 0, *image_wh])))


def _whole_objects(boxes: _Boxes) -> _Boxes:
    """Return the boxes that show entire objects, among them those of joined parts."""
    remaining = _without_covered(_joined(boxes))
    return remaining.of(np.flatnonzero(~remaining.cut.any(axis=1)))


def _without_covered(boxes: _Boxes) -> _Boxes:
    """Return the boxes without those that are cut and mostly inside a larger one."""
    remains = np.logical_not(boxes.cut.any(axis=1))
    area_px = area(boxes.xyxy)
    for rows in batched(np.flatnonzero(~remains).tolist(), _ROWS_AT_ONCE):
        covered = ioa(boxes.xyxy[rows, None], boxes.xyxy) > _COVERED_SHARE
        remains[rows] = ~(covered & (area_px > area_px[rows, None])).any(axis=1)
    return boxes.of(remains)


def _joined(boxes: _Boxes) -> _Boxes:
    """Return the boxes with each group of parts of one object replaced by the box around them.

    The object is as certain as the least certain of its parts.
    """
    group = np.arange(len(boxes.confidence))
    pairs = np.concatenate([_facing(boxes, axis) for axis in (0, 1)], axis=1)
    while np.any(group[pairs[0]] != group[pairs[1]]):
        lower = group[pairs].min(axis=0)
        for side in pairs:
            np.minimum.at(group, side, lower)
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    around = boxes.of(first)
    np.minimum.at(around.confidence, member, boxes.confidence)
    np.minimum.at(around.xyxy[:, :2], member, boxes.xyxy[:, :2])
    np.maximum.at(around.xyxy[:, 2:], member, boxes.xyxy[:, 2:])
    around.cut[:] = False
    np.logical_or.at(around.cut, member, boxes.cut & (boxes.xyxy == around.xyxy[member]))
    return around


def _facing(boxes: _Boxes, axis: int) -> npt.NDArray[np.intp]:
    """Return the pairs of parts that a border between two tiles separates, shape (2, n).

    The first part is cut at its far side, the second at its near side, and each extends beyond the
    other in the direction of ``axis`` (0: x, 1: y).
    """
    one, other = np.flatnonzero(boxes.cut[:, axis + 2]), np.flatnonzero(boxes.cut[:, axis])
    a, b = boxes.xyxy[one, None], boxes.xyxy[other]
    near, far, low, high = axis, axis + 2, 1 - axis, 3 - axis
    meets = (b[..., near] < a[..., far]) & (a[..., near] < b[..., near])
    meets &= a[..., far] < b[..., far]
    shared = np.minimum(a[..., high], b[..., high]) - np.maximum(a[..., low], b[..., low])
    both = np.maximum(a[..., high], b[..., high]) - np.minimum(a[..., low], b[..., low])
    first, second = np.nonzero(meets & (shared > _FACING_SHARE * both))
    return np.stack((one[first], other[second]))
