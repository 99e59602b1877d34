"""Boxes: they follow the pixels of their image, and overlaps are computed correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo import boxes

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.boxes import Boxes

FRACTIONS = st.floats(0.0, 1.0, allow_nan=False)
ANGLES = st.sampled_from(boxes.RIGHT_ANGLES)


def box_of(x1: float, x2: float, y1: float, y2: float) -> Boxes:
    return np.array([[min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]])


BOX = st.builds(box_of, FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS)
SEVERAL = st.lists(BOX, min_size=1, max_size=6).map(np.concatenate)
SIDES = st.integers(1, 40)


@given(SEVERAL)
def test_four_quarter_rotations_are_the_identity(xyxy: Boxes) -> None:
    rotated = xyxy
    for _ in range(4):
        rotated = boxes.rotate_ccw(rotated, 90)
    np.testing.assert_allclose(rotated, xyxy, atol=1e-12)


@given(SEVERAL, ANGLES, ANGLES)
def test_rotations_add_up(xyxy: Boxes, first: int, second: int) -> None:
    twice = boxes.rotate_ccw(boxes.rotate_ccw(xyxy, first), second)
    np.testing.assert_allclose(twice, boxes.rotate_ccw(xyxy, (first + second) % 360), atol=1e-12)


@given(SEVERAL, ANGLES)
def test_a_rotation_keeps_the_area_and_the_order_of_corners(xyxy: Boxes, degrees: int) -> None:
    rotated = boxes.rotate_ccw(xyxy, degrees)
    np.testing.assert_allclose(boxes.area(rotated), boxes.area(xyxy), atol=1e-12)
    assert (rotated[:, 2:] >= rotated[:, :2] - 1e-12).all()
    assert rotated.min() >= -1e-12
    assert rotated.max() <= 1 + 1e-12


def test_an_angle_that_is_not_a_right_angle_is_refused() -> None:
    with pytest.raises(ValueError, match="45"):
        boxes.rotate_ccw(np.zeros((1, 4)), 45)


def contains(xyxy: npt.NDArray[np.float64], x: float, y: float) -> bool:
    return bool(xyxy[0] <= x <= xyxy[2] and xyxy[1] <= y <= xyxy[3])


@settings(max_examples=150)
@given(width=SIDES, height=SIDES, degrees=ANGLES, data=st.data())
def test_a_marked_pixel_stays_in_its_box_through_rotation_and_letterbox(
    width: int, height: int, degrees: int, data: st.DataObject
) -> None:
    column = data.draw(st.integers(0, width - 1))
    row = data.draw(st.integers(0, height - 1))
    grid = np.zeros((height, width), dtype=np.uint8)
    grid[row, column] = 1
    xyxy = np.array([[column / width, row / height, (column + 1) / width, (row + 1) / height]])

    grid = np.rot90(grid, degrees // 90)  # numpy rotates counter-clockwise
    xyxy = boxes.rotate_ccw(xyxy, degrees)
    (y,), (x,) = np.nonzero(grid)
    high, wide = grid.shape
    assert contains(xyxy[0], (x + 0.5) / wide, (y + 0.5) / high)
    np.testing.assert_allclose(
        xyxy[0], [x / wide, y / high, (x + 1) / wide, (y + 1) / high], atol=1e-9
    )

    size_wh = data.draw(st.tuples(st.integers(32, 96), st.integers(32, 96)))
    left, top, w, h = boxes.letterbox_frame((wide, high), size_wh)
    framed = boxes.letterbox(xyxy, (wide, high), size_wh)
    # The centre of the pixel, mapped by the frame.
    assert contains(
        framed[0],
        (left + (x + 0.5) / wide * w) / size_wh[0],
        (top + (y + 0.5) / high * h) / size_wh[1],
    )
    assert framed.min() >= 0
    assert framed.max() <= 1


@given(width=st.integers(1, 5000), height=st.integers(1, 5000),
       size_wh=st.tuples(st.integers(32, 1024), st.integers(32, 1024)))  # fmt: skip
def test_a_letterboxed_image_fits_touches_two_edges_and_keeps_its_aspect(
    width: int, height: int, size_wh: tuple[int, int]
) -> None:
    left, top, w, h = boxes.letterbox_frame((width, height), size_wh)
    assert left >= 0
    assert top >= 0
    assert left + w <= size_wh[0]
    assert top + h <= size_wh[1]
    assert w == size_wh[0] or h == size_wh[1]
    assert abs(left - (size_wh[0] - left - w)) <= 1
    assert abs(top - (size_wh[1] - top - h)) <= 1
    scale = min(size_wh[0] / width, size_wh[1] / height)
    assert abs(w - width * scale) <= 1
    assert abs(h - height * scale) <= 1


def test_a_box_of_the_whole_image_becomes_the_letterbox_frame() -> None:
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    framed = boxes.letterbox(whole, (1024, 512), (416, 416))
    np.testing.assert_allclose(framed, [[0, 0.25, 1, 0.75]])


@given(SEVERAL)
def test_centre_and_size_convert_back_to_the_same_corners(xyxy: Boxes) -> None:
    np.testing.assert_allclose(boxes.to_xyxy(boxes.to_cxcywh(xyxy)), xyxy, atol=1e-12)


def test_centre_and_size_of_an_example() -> None:
    cxcywh = boxes.to_cxcywh(np.array([[0.1, 0.2, 0.5, 0.4]]))
    np.testing.assert_allclose(cxcywh, [[0.3, 0.3, 0.4, 0.2]])


@given(SEVERAL, SEVERAL)
def test_iou_is_symmetric_and_between_0_and_1(a: Boxes, b: Boxes) -> None:
    values = boxes.iou(a[:, None], b)
    assert values.shape == (len(a), len(b))
    np.testing.assert_allclose(values, boxes.iou(b[:, None], a).T, atol=1e-12)
    assert values.min() >= 0
    assert values.max() <= 1 + 1e-9


@given(SEVERAL)
def test_iou_of_a_box_with_itself_is_1_unless_it_is_empty(xyxy: Boxes) -> None:
    own = np.diag(boxes.iou(xyxy[:, None], xyxy))
    np.testing.assert_allclose(own, np.where(boxes.area(xyxy) > 0, 1.0, 0.0), atol=1e-9)


@given(SEVERAL, SEVERAL, ANGLES)
def test_rotating_both_boxes_keeps_their_iou(a: Boxes, b: Boxes, degrees: int) -> None:
    a, b = np.round(a, 3), np.round(b, 3)  # boxes smaller than any in practice differ by rounding
    rotated = boxes.iou(boxes.rotate_ccw(a, degrees)[:, None], boxes.rotate_ccw(b, degrees))
    np.testing.assert_allclose(rotated, boxes.iou(a[:, None], b), atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "iou", "ioa"),
    [
        ((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5), 1.0, 1.0),
        ((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), 0.0, 0.0),
        ((0, 0, 0.5, 1), (0.25, 0, 0.75, 1), 1 / 3, 0.5),
        ((0, 0, 0.5, 0.5), (0, 0, 1, 1), 0.25, 1.0),
        ((0, 0, 1, 1), (0, 0, 0.5, 0.5), 0.25, 0.25),
        ((0.3, 0.3, 0.3, 0.3), (0, 0, 1, 1), 0.0, 0.0),
        ((0.3, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3), 0.0, 0.0),
    ],
)
def test_overlaps_of_examples(
    a: tuple[float, ...], b: tuple[float, ...], iou: float, ioa: float
) -> None:
    first, second = np.array([a], dtype=float), np.array([b], dtype=float)
    assert boxes.iou(first[:, None], second)[0, 0] == pytest.approx(iou)
    assert boxes.ioa(first[:, None], second)[0, 0] == pytest.approx(ioa)


def test_a_box_with_swapped_corners_has_no_area() -> None:
    swapped = np.array([[0.5, 0.5, 0.1, 0.1], [0.5, 0.1, 0.1, 0.5]])
    assert boxes.area(swapped).tolist() == [0.0, 0.0]


def test_boxes_are_clipped_to_the_image() -> None:
    clipped = boxes.clip(np.array([[-0.5, 0.2, 1.5, 0.7]]))
    assert clipped.tolist() == [[0.0, 0.2, 1.0, 0.7]]


def test_an_empty_set_of_boxes_stays_empty() -> None:
    empty = np.zeros((0, 4))
    assert boxes.rotate_ccw(empty, 90).shape == (0, 4)
    assert boxes.letterbox(empty, (10, 10), (32, 32)).shape == (0, 4)
    assert boxes.to_xyxy(boxes.to_cxcywh(empty)).shape == (0, 4)
    assert boxes.iou(empty[:, None], np.zeros((3, 4))).shape == (0, 3)
