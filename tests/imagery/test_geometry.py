"""Pixels and boxes stay aligned to the pixel for any rotation, fit, size and source."""

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
from oiyolo.imagery.placement import place_boxes, place_image
from oiyolo.imagery.upright import make_upright

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.boxes import Boxes

ROTATIONS = st.sampled_from(geometry.RIGHT_ANGLES)
FITS = st.sampled_from(["stretch", "letterbox", "none"])
SIZES = st.tuples(st.integers(1, 10), st.integers(1, 10)).map(lambda n: (n[0] * 32, n[1] * 32))
FRACTIONS = st.floats(0, 1)


@st.composite
def marked_images(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Draw an image's width and height, and a block in it: left, top, right, bottom in pixels."""
    w, h = draw(st.tuples(st.integers(1, 400), st.integers(1, 400)))
    left, top = draw(st.integers(0, w - 1)), draw(st.integers(0, h - 1))
    return (w, h), (left, top, draw(st.integers(left + 1, w)), draw(st.integers(top + 1, h)))


def upright_wh(wh: tuple[int, int], rotation: int) -> tuple[int, int]:
    return wh if rotation in {0, 180} else wh[::-1]


def place(
    xyxy: Boxes, rotation: int, source_wh: tuple[int, int], size_wh: tuple[int, int], fit: str
) -> Boxes:
    no_reasons = np.full(len(xyxy), "", dtype=object)
    return place_boxes(
        xyxy, np.arange(len(xyxy)), no_reasons,
        rotation=rotation, source_wh=source_wh, size_wh=size_wh, fit=fit,
    ).xyxy  # fmt: skip


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(image_and_block=marked_images(), preparation=st.tuples(ROTATIONS, FITS, SIZES))
def test_a_marked_block_lies_within_its_box_and_fills_it(
    tmp_path: Path,
    file_format: str,
    image_and_block: tuple[tuple[int, int], tuple[int, int, int, int]],
    preparation: tuple[int, str, tuple[int, int]],
) -> None:
    (stored_wh, block), (rotation, fit, size_wh) = image_and_block, preparation
    image = Image.new("L", stored_wh, 0)
    image.paste(255, block)
    path = tmp_path / "a.jpg"
    image.save(path, file_format, **({"quality": 95} if file_format == "JPEG" else {}))
    result = make_upright(path, rotation, size_wh, fit)
    assert result.source_wh == upright_wh(stored_wh, rotation)
    pixels = np.asarray(Image.open(io.BytesIO(result.jpeg)).convert("L")).astype(int)
    height, width = pixels.shape
    xyxy = np.array([block]) / np.array([*stored_wh, *stored_wh])
    (x1, y1, x2, y2) = place(xyxy, rotation, result.source_wh, (width, height), fit)[0]
    box = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    # No white outside the box, except for a partly covered pixel and the blur of a JPEG ...
    slack = 2 if file_format == "JPEG" else 1
    rows, columns = np.nonzero(pixels > 200)
    assert (columns + 1 > box[0] - slack).all()
    assert (columns < box[2] + slack).all()
    assert (rows + 1 > box[1] - slack).all()
    assert (rows < box[3] + slack).all()
    # ... and only white inside it, except for the blur of an enlargement.
    enlarged = np.array(place_image(result.source_wh, size_wh, fit).wh) / result.source_wh
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
def test_boxes_can_be_converted_back_to_the_stored_frame(
    corners: list[tuple[float, ...]],
    rotation: int,
    fit: str,
    stored_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> None:
    drawn = np.array(corners).reshape(-1, 4)
    xyxy = np.concatenate([np.minimum(drawn[:, :2], drawn[:, 2:]),
                           np.maximum(drawn[:, :2], drawn[:, 2:])], axis=1)  # fmt: skip
    source_wh = upright_wh(stored_wh, rotation)
    placed = place(xyxy, rotation, source_wh, size_wh, fit)
    # The label that is written contains the placed boxes ...
    class_ids = np.zeros(len(placed), dtype=np.int64)
    written = labels.parse(labels.render(class_ids, placed), where="here")[1]
    np.testing.assert_allclose(written, placed, atol=1e-6)
    # ... and can be converted back to the stored frame, as exactly as the image's scale allows.
    frame = place_image(source_wh, size_wh, fit)
    share = np.array([*frame.wh, *frame.wh]) / np.array([*frame.size_wh, *frame.size_wh])
    offset = np.array([frame.left, frame.top] * 2) / np.array([*frame.size_wh, *frame.size_wh])
    back = geometry.rotate_ccw((written - offset) / share, -rotation % 360)
    lying_share = share if rotation in {0, 180} else share[[1, 0, 3, 2]]
    assert (np.abs(back - xyxy) <= 1e-6 / lying_share).all()
    exact = geometry.rotate_ccw((placed - offset) / share, -rotation % 360)
    np.testing.assert_allclose(exact, xyxy, atol=1e-9)


def test_a_letterbox_keeps_at_least_one_pixel_of_the_thinnest_image(tmp_path: Path) -> None:
    for wh in ((60_000, 1), (1, 60_000)):
        assert min(place_image(wh, (416, 416), "letterbox").wh) == 1
    path = tmp_path / "a.jpg"
    Image.new("RGB", (5000, 2), (255, 220, 220)).save(path, "PNG")
    result = make_upright(path, 0, (96, 96), "letterbox")
    pixels = np.asarray(Image.open(io.BytesIO(result.jpeg))).astype(int)
    assert pixels[47, :, 0].min() > 200
    assert np.abs(pixels[:40] - 127).max() < 8


def test_a_box_with_nan_is_not_a_label() -> None:
    rows = np.array([[np.nan, 0.1, 0.5, 0.5], [0.1, 0.1, np.inf, 0.5], [0.1, 0.1, 0.5, 0.5]])
    placed = place_boxes(
        rows, np.zeros(3, dtype=np.int64), np.full(3, "", dtype=object),
        rotation=90, source_wh=(10, 10), size_wh=(32, 32), fit="letterbox",
    )  # fmt: skip
    assert placed.drop_reasons.tolist()[0] == "no area"
    assert placed.used.tolist()[2]
    labels.render(np.zeros(placed.used.sum(), dtype=np.int64), placed.xyxy[placed.used])
