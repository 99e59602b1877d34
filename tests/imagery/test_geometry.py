"""Pixels and boxes together, for any rotation, fit, size and source: nothing slips by a pixel."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo import boxes as geometry
from oiyolo.imagery import labels
from oiyolo.imagery.placement import inner_frame, place_boxes
from oiyolo.imagery.upright import make_upright

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.boxes import Boxes

ROTATIONS = st.sampled_from(geometry.RIGHT_ANGLES)
FITS = st.sampled_from(["stretch", "letterbox", "none"])
SIZES = st.tuples(st.integers(1, 10), st.integers(1, 10)).map(lambda n: (n[0] * 32, n[1] * 32))
FRACTIONS = st.floats(0, 1)


@st.composite
def marked(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """A picture's width and height, and a block in it: left, top, right, bottom in pixels."""
    w, h = draw(st.tuples(st.integers(1, 400), st.integers(1, 400)))
    left, top = draw(st.integers(0, w - 1)), draw(st.integers(0, h - 1))
    return (w, h), (left, top, draw(st.integers(left + 1, w)), draw(st.integers(top + 1, h)))


def turned(wh: tuple[int, int], rotation: int) -> tuple[int, int]:
    return wh if rotation in {0, 180} else wh[::-1]


def placed_one(
    xyxy: Boxes, rotation: int, source_wh: tuple[int, int], size_wh: tuple[int, int], fit: str
) -> Boxes:
    none = np.full(len(xyxy), "", dtype=object)
    return place_boxes(
        xyxy, np.arange(len(xyxy)), none,
        rotation=rotation, source_wh=source_wh, size_wh=size_wh, fit=fit,
    ).xyxy  # fmt: skip


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(picture=marked(), way=st.tuples(ROTATIONS, FITS, SIZES))
def test_a_marked_block_is_inside_its_box_and_fills_it(
    tmp_path: Path,
    form: str,
    picture: tuple[tuple[int, int], tuple[int, int, int, int]],
    way: tuple[int, str, tuple[int, int]],
) -> None:
    (stored_wh, block), (rotation, fit, size_wh) = picture, way
    image = Image.new("L", stored_wh, 0)
    image.paste(255, block)
    path = tmp_path / "a.jpg"
    image.save(path, form, **({"quality": 95} if form == "JPEG" else {}))
    made = make_upright(path, rotation, size_wh, fit)
    assert made.source_wh == turned(stored_wh, rotation)
    pixels = np.asarray(Image.open(io.BytesIO(made.jpeg)).convert("L")).astype(int)
    height, width = pixels.shape
    xyxy = np.array([block]) / np.array([*stored_wh, *stored_wh])
    (x1, y1, x2, y2) = placed_one(xyxy, rotation, made.source_wh, (width, height), fit)[0]
    box = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    # White outside of it, but for a pixel in which it ends and the blur of a JPEG ...
    slack = 2 if form == "JPEG" else 1
    rows, columns = np.nonzero(pixels > 200)
    assert (columns + 1 > box[0] - slack).all()
    assert (columns < box[2] + slack).all()
    assert (rows + 1 > box[1] - slack).all()
    assert (rows < box[3] + slack).all()
    # ... and nothing else in it, but for the blur of what is enlarged.
    enlarged = np.array(inner_frame(made.source_wh, size_wh, fit).wh) / made.source_wh
    blur = 3 + enlarged.clip(1)
    inner = np.concatenate([np.ceil(box[:2] + blur), np.floor(box[2:] - blur)]).astype(int)
    inside = pixels[max(0, inner[1]) : max(0, inner[3]), max(0, inner[0]) : max(0, inner[2])]
    assert (inside > 150).all()


@settings(max_examples=300, deadline=None)
@given(
    corners=st.lists(st.tuples(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS), max_size=5),
    rotation=ROTATIONS,
    fit=FITS,
    stored_wh=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
    size_wh=SIZES,
)
def test_boxes_go_through_all_of_it_and_back(
    corners: list[tuple[float, ...]],
    rotation: int,
    fit: str,
    stored_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> None:
    drawn = np.array(corners).reshape(-1, 4)
    xyxy = np.concatenate([np.minimum(drawn[:, :2], drawn[:, 2:]),
                           np.maximum(drawn[:, :2], drawn[:, 2:])], axis=1)  # fmt: skip
    source_wh = turned(stored_wh, rotation)
    placed = placed_one(xyxy, rotation, source_wh, size_wh, fit)
    # What is written is what was meant ...
    class_ids = np.zeros(len(placed), dtype=np.int64)
    written = labels.parse(labels.render_checked(class_ids, placed), where="here")[1]
    np.testing.assert_allclose(written, placed, atol=1e-6)
    # ... and leads back to where it came from, as exactly as the picture's scale lets it.
    frame = inner_frame(source_wh, size_wh, fit)
    share = np.array([*frame.wh, *frame.wh]) / np.array([*frame.size_wh, *frame.size_wh])
    offset = np.array([frame.left, frame.top] * 2) / np.array([*frame.size_wh, *frame.size_wh])
    back = geometry.rotate_ccw((written - offset) / share, -rotation % 360)
    lying_share = share if rotation in {0, 180} else share[[1, 0, 3, 2]]
    assert (np.abs(back - xyxy) <= 1e-6 / lying_share).all()
    exact = geometry.rotate_ccw((placed - offset) / share, -rotation % 360)
    np.testing.assert_allclose(exact, xyxy, atol=1e-9)


def test_a_letterbox_leaves_at_least_a_pixel_of_the_thinnest_picture(tmp_path: Path) -> None:
    for wh in ((60_000, 1), (1, 60_000)):
        assert min(inner_frame(wh, (416, 416), "letterbox").wh) == 1
    path = tmp_path / "a.jpg"
    Image.new("RGB", (5000, 2), (255, 220, 220)).save(path, "PNG")
    made = make_upright(path, 0, (96, 96), "letterbox")
    pixels = np.asarray(Image.open(io.BytesIO(made.jpeg))).astype(int)
    assert pixels[47, :, 0].min() > 200
    assert np.abs(pixels[:40] - 127).max() < 8


def test_a_box_that_is_no_number_is_no_label() -> None:
    rows = np.array([[np.nan, 0.1, 0.5, 0.5], [0.1, 0.1, np.inf, 0.5], [0.1, 0.1, 0.5, 0.5]])
    placed = place_boxes(
        rows, np.zeros(3, dtype=np.int64), np.full(3, "", dtype=object),
        rotation=90, source_wh=(10, 10), size_wh=(32, 32), fit="letterbox",
    )  # fmt: skip
    assert placed.because.tolist()[0] == "no area"
    assert placed.used.tolist()[2]
    labels.render_checked(np.zeros(placed.used.sum(), dtype=np.int64), placed.xyxy[placed.used])
