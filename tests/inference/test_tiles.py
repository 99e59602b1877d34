"""Tiles: they cover an image, and what they show of an object becomes one box."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.boxes import iou
from oiyolo.inference.tiles import MAX_TILES, TileDetections, merge, tiles

if TYPE_CHECKING:
    from oiyolo.inference.tiles import Frame

Sides = tuple[float, float, float, float]
IMAGE_WH, SIZE_WH = (1000, 700), (320, 320)


def seen(
    frame: Frame, objects: list[Sides], min_share: float = 0.3, class_id: int = 0
) -> TileDetections:
    """Return what a perfect detector finds in a frame: the visible part of each object."""
    boxes = np.array(objects, float).reshape(-1, 4)
    parts = np.clip(boxes, [*frame[:2]] * 2, [*frame[2:]] * 2)
    share = (parts[:, 2:] - parts[:, :2]).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    parts = parts[share > min_share]
    return TileDetections(frame, np.full(len(parts), class_id), np.full(len(parts), 0.5), parts)


def merged(
    objects: list[Sides], *, whole: list[Sides] | None = None, min_share: float
) -> TileDetections:
    """Return the merged detections of all tiles, and of some objects in the whole image."""
    frames = tiles(IMAGE_WH, SIZE_WH)
    parts = [seen((0, 0, *IMAGE_WH), whole or [])]
    return merge(
        parts + [seen(frame, objects, min_share) for frame in frames], IMAGE_WH, nms_iou=0.45
    )


@given(
    image_wh=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    size_wh=st.sampled_from([(320, 320), (416, 416), (608, 352)]),
)
def test_tiles_cover_the_image_and_overlap(
    image_wh: tuple[int, int], size_wh: tuple[int, int]
) -> None:
    frames = tiles(image_wh, size_wh)
    assert len(frames) <= MAX_TILES
    if image_wh[0] <= size_wh[0] and image_wh[1] <= size_wh[1]:
        assert frames == []
        return
    assert len({(right - left, bottom - top) for left, top, right, bottom in frames}) == 1
    for low, high, length in ((0, 2, image_wh[0]), (1, 3, image_wh[1])):
        spans = sorted({(frame[low], frame[high]) for frame in frames})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        side = spans[0][1] - spans[0][0]
        shared = [a[1] - b[0] for a, b in itertools.pairwise(spans)]
        assert all(pixels >= 0.2 * side - 1 for pixels in shared)


def test_a_tile_is_as_large_as_the_networks_input() -> None:
    assert tiles((1000, 300), SIZE_WH) == [(0, 0, 320, 300), (227, 0, 547, 300), (453, 0, 773, 300),
                                           (680, 0, 1000, 300)]  # fmt: skip


SCENES = {
    "small objects": [(10, 10, 40, 50), (300, 200, 350, 260), (940, 640, 1000, 700)],
    "at the borders of tiles": [(210, 300, 270, 330), (225, 10, 335, 60), (440, 180, 470, 330)],
    "larger than the overlap": [(150, 100, 420, 380)],
    "over several tiles": [(30, 40, 960, 240)],
    "over most of the image": [(50, 30, 950, 680)],
    "side by side": [(100, 100, 310, 300), (312, 100, 600, 300)],
}


@pytest.mark.parametrize("objects", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("min_share", [0.02, 0.3])
def test_each_object_is_found_once(objects: list[Sides], min_share: float) -> None:
    whole = [box for box in objects if box[2] - box[0] > SIZE_WH[0]]
    found = merged(objects, whole=whole, min_share=min_share)
    overlap = iou(found.xyxy[:, None], np.array(objects, float))
    assert overlap.shape == (len(objects), len(objects))
    assert overlap.max(axis=0).min() > 0.9


@pytest.mark.parametrize(
    "objects", [SCENES["over several tiles"], SCENES["over most of the image"]]
)
def test_parts_are_joined_if_the_whole_image_shows_nothing(objects: list[Sides]) -> None:
    found = merged(objects, min_share=0.02)
    assert len(found.confidence) == 1
    assert np.abs(found.xyxy - objects).max() < 1


def test_the_joined_box_is_as_certain_as_its_least_certain_part() -> None:
    left, right = (
        seen((0, 0, 320, 320), [(200, 50, 400, 150)]),
        seen((227, 0, 547, 320), [(200, 50, 400, 150)]),
    )
    left.confidence[:] = 0.8
    found = merge([left, right], IMAGE_WH, nms_iou=0.45)
    assert found.confidence.tolist() == [0.5]
    assert found.xyxy.tolist() == [[200, 50, 400, 150]]


def test_a_cut_box_is_dropped_unless_its_class_is_confirmed() -> None:
    objects = [(200.0, 50.0, 400.0, 150.0)]
    frames = [(0, 0, 320, 320), (227, 0, 547, 320)]
    parts = [seen(frame, objects, class_id=n) for n, frame in enumerate(frames)]
    assert merge(parts, IMAGE_WH, nms_iou=0.45).class_id.size == 0
    whole = seen((0, 0, *IMAGE_WH), objects, class_id=1)
    found = merge([whole, *parts], IMAGE_WH, nms_iou=0.45)
    assert (found.class_id.tolist(), found.xyxy.tolist()) == ([1], [list(objects[0])])


def test_a_box_at_the_border_of_the_image_is_not_cut() -> None:
    found = merge([seen((680, 380, *IMAGE_WH), [(900, 600, 1000, 700)])], IMAGE_WH, nms_iou=0.45)
    assert found.xyxy.tolist() == [[900, 600, 1000, 700]]


def test_the_more_confident_box_of_an_object_remains() -> None:
    box = (100, 100, 200, 200)
    weak, strong = seen((0, 0, *IMAGE_WH), [box]), seen((0, 0, 320, 320), [(102, 101, 203, 200)])
    strong.confidence[:] = 0.8
    found = merge([weak, strong], IMAGE_WH, nms_iou=0.45)
    assert found.confidence.round(6).tolist() == [0.8]
    assert np.allclose(found.xyxy, strong.xyxy)
    assert found.frame == (0, 0, *IMAGE_WH)


def test_nothing_found() -> None:
    found = merge([seen((0, 0, *IMAGE_WH), []), seen((0, 0, 320, 320), [])], IMAGE_WH, nms_iou=0.45)
    assert [len(values) for values in found[1:]] == [0, 0, 0]
    assert found.xyxy.shape == (0, 4)
