"""Boxes are converted from pixels of any frame to fractions of the stored image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.imagery.exif import UPRIGHT, orient, upright_rotation
from oiyolo.imagery.header import ImageHeader
from oiyolo.interchange import kinds
from oiyolo.interchange.frames import (
    BoxError,
    LabelledFrame,
    choose_frame,
    parse_number,
    undo_orientation,
)

SIDES = st.integers(10, 9000)
ORIENTATIONS = range(1, 9)


@given(SIDES, SIDES, st.data())
def test_pixels_become_fractions_and_back(width: int, height: int, data: st.DataObject) -> None:
    x1, y1 = data.draw(st.integers(0, width - 2)), data.draw(st.integers(0, height - 2))
    x2, y2 = data.draw(st.integers(x1 + 2, width)), data.draw(st.integers(y1 + 2, height))
    box = LabelledFrame((width, height)).to_stored((x1, y1, x2, y2))
    scaled = np.array(box) * (width, height, width, height)
    np.testing.assert_allclose(scaled, (x1, y1, x2, y2), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_of_the_upright_image_covers_the_same_pixels_as_stored(orientation: int) -> None:
    stored = np.zeros((4, 6, 3), dtype=np.uint8)
    stored[1:3, 1:2] = 255
    ys, xs = np.nonzero(orient(stored, orientation)[:, :, 0])
    height, width = orient(stored, orientation).shape[:2]
    upright = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
    box = undo_orientation(upright, orientation)
    np.testing.assert_allclose(box, (1 / 6, 1 / 4, 2 / 6, 3 / 4), atol=1e-9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_rotation_of_a_photograph_turns_it_as_exif_does(orientation: int) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = np.rot90(stored, upright_rotation(orientation) // 90)
    is_mirrored = orientation in {2, 4, 5, 7}
    upright = np.fliplr(turned) if is_mirrored else turned
    np.testing.assert_array_equal(upright, orient(stored, orientation))


@pytest.mark.parametrize(
    ("orientation", "stored_wh", "stated_wh", "note"),
    [
        (UPRIGHT, (40, 20), (40, 20), ""),
        (UPRIGHT, (40, 20), None, ""),
        (UPRIGHT, (40, 20), (20, 40), kinds.WRONG_SIZE),
        (6, (40, 20), (40, 20), ""),
        (6, (40, 20), None, kinds.EXIF_ASSUMED),
        (6, (40, 20), (1, 1), kinds.WRONG_SIZE),
        (6, (40, 40), (40, 40), kinds.EXIF_ASSUMED),  # a square has the same size upright
        (3, (40, 20), (40, 20), kinds.EXIF_ASSUMED),
        (2, (40, 20), None, kinds.EXIF_ASSUMED),
    ],
)
def test_the_frame_of_an_annotation(
    orientation: int, stored_wh: tuple[int, int], stated_wh: tuple[int, int] | None, note: str
) -> None:
    header = ImageHeader(stored_wh, orientation)
    assert choose_frame(header, stated_wh, "stored") == LabelledFrame(stored_wh, UPRIGHT, note)


def test_the_option_decides_where_the_size_does_not() -> None:
    header = ImageHeader((40, 20), 6)
    assert choose_frame(header, None, "upright") == LabelledFrame((20, 40), 6, kinds.EXIF_ASSUMED)
    assert choose_frame(header, (20, 40), "stored") == LabelledFrame((20, 40), 6)


@given(st.tuples(*[st.floats()] * 4), st.sampled_from(list(ORIENTATIONS)))
def test_any_numbers_are_a_box_inside_the_image_or_an_error(
    corners: tuple[float, float, float, float], orientation: int
) -> None:
    try:
        x1, y1, x2, y2 = LabelledFrame((100, 50), orientation).to_stored(corners)
    except BoxError:
        return
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1


@pytest.mark.parametrize(("text", "value"), [("1", 1), (" 1.5\n", 1.5), ("-.5e1", -5), ("+2.", 2)])
def test_numbers(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "1_0", "nan", "inf", "0x1", "1,5", "\u0661", "1 2"])
def test_other_texts_are_not_numbers(text: str) -> None:
    assert math.isnan(parse_number(text))
