"""Images as a network sees them, and its boxes on the image, compared with loops like darknet's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.inference.placement import fit_image, placed_wh, to_image, unit_wh

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.inference.facts import InputFit

    Rgb = npt.NDArray[np.uint8]
    Planes = npt.NDArray[np.float32]
    Wh = tuple[int, int]
    Sides = tuple[float, float, float, float]

F = np.float32
SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))
SIZES = st.tuples(st.integers(2, 40), st.integers(2, 40))
FITS = st.sampled_from(["letterbox", "stretch"])


def resized_by_loops(rgb: Rgb, width: int, height: int) -> Planes:
    """Return what darknet's resize_image makes of an image, shape (3, height, width)."""
    image = (rgb.transpose(2, 0, 1) / 255).astype(F)
    _, image_h, image_w = image.shape
    if (image_w, image_h) == (width, height):
        return image
    part = np.zeros((3, image_h, width), F)
    w_scale = F(image_w - 1) / F(width - 1) if width > 1 else F(0)
    for x in range(width):
        if x == width - 1 or image_w == 1:
            part[:, :, x] = image[:, :, image_w - 1]
            continue
        sx = F(x) * w_scale
        ix = int(sx)
        dx = F(sx - F(ix))
        part[:, :, x] = (F(1) - dx) * image[:, :, ix] + dx * image[:, :, ix + 1]
    out = np.zeros((3, height, width), F)
    h_scale = F(image_h - 1) / F(height - 1) if height > 1 else F(0)
    for y in range(height):
        sy = F(y) * h_scale
        iy = int(sy)
        dy = F(sy - F(iy))
        out[:, y] = (F(1) - dy) * part[:, iy]
        if y == height - 1 or image_h == 1:
            continue
        out[:, y] += dy * part[:, iy + 1]
    return out


def fitted_by_loops(rgb: Rgb, size_wh: Wh, fit: InputFit) -> Planes:
    width, height = size_wh
    image_h, image_w = rgb.shape[:2]
    if fit == "stretch":
        return resized_by_loops(rgb, width, height)
    if F(width) / F(image_w) < F(height) / F(image_h):
        new_w, new_h = width, max(1, (image_h * width) // image_w)
    else:
        new_w, new_h = max(1, (image_w * height) // image_h), height
    boxed = np.full((3, height, width), F(0.5))
    left, top = (width - new_w) // 2, (height - new_h) // 2
    boxed[:, top : top + new_h, left : left + new_w] = resized_by_loops(rgb, new_w, new_h)
    return boxed


def fitted(rgb: Rgb, size_wh: Wh, fit: InputFit) -> Planes:
    out = np.full((3, size_wh[1], size_wh[0]), np.nan, F)
    fit_image(rgb, size_wh, fit, out)
    return out


def noise(image_wh: Wh) -> Rgb:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (image_wh[1], image_wh[0], 3), np.uint8)


@settings(max_examples=80, deadline=None)
@given(image_wh=SIDES, size_wh=SIZES, fit=FITS)
def test_the_input_is_darknets(image_wh: Wh, size_wh: Wh, fit: InputFit) -> None:
    rgb = noise(image_wh)
    expected = fitted_by_loops(rgb, size_wh, fit)
    assert np.abs(fitted(rgb, size_wh, fit) - expected).max() < 1e-5


@pytest.mark.parametrize("image_wh", [(1024, 768), (640, 480), (333, 500), (1200, 90)])
def test_the_input_of_a_photograph_is_darknets(image_wh: Wh) -> None:
    rgb = noise(image_wh)
    expected = fitted_by_loops(rgb, (416, 416), "letterbox")
    assert np.abs(fitted(rgb, (416, 416), "letterbox") - expected).max() < 1e-4


def test_darknets_black_last_row_is_reproduced() -> None:
    """Rounding puts the last row of 240 -> 416 above the image's last row."""
    white = np.full((240, 416, 3), 255, np.uint8)
    last = fitted(white, (416, 416), "stretch")[:, -1]
    assert np.allclose(last, fitted_by_loops(white, (416, 416), "stretch")[:, -1], atol=1e-5)
    assert last.max() < 0.01


def test_views_of_any_layout_are_accepted() -> None:
    rgb = noise((90, 70))
    for view in (rgb[::-1], rgb[:, ::-1], rgb.transpose(1, 0, 2), rgb[10:60, 20:80]):
        copy = np.ascontiguousarray(view)
        for size_wh in ((32, 32), (view.shape[1], view.shape[0])):
            assert np.array_equal(
                fitted(view, size_wh, "letterbox"), fitted(copy, size_wh, "letterbox")
            )


def test_a_very_narrow_image_remains_visible() -> None:
    assert placed_wh((10_000, 10), (416, 416), "letterbox") == (416, 1)
    assert placed_wh((10, 10_000), (416, 416), "letterbox") == (1, 416)


def corrected_by_loops(box: Sides, image_wh: Wh, size_wh: Wh, fit: InputFit) -> list[float]:
    """Return what darknet's correct_yolo_boxes makes of a box, then its corners."""
    (w, h), (netw, neth) = image_wh, size_wh
    if fit == "stretch":
        new_w, new_h = netw, neth
    elif F(netw) / F(w) < F(neth) / F(h):
        new_w, new_h = netw, (h * netw) // w
    else:
        new_w, new_h = (w * neth) // h, neth
    x = (box[0] - (netw - new_w) / 2.0 / netw) / F(new_w / netw) * w
    y = (box[1] - (neth - new_h) / 2.0 / neth) / F(new_h / neth) * h
    half_w, half_h = box[2] * F(netw / new_w) * w / 2, box[3] * F(neth / new_h) * h / 2
    corners = np.array([x - half_w, y - half_h, x + half_w, y + half_h])
    return [float(side) for side in np.clip(corners, 0, [w, h, w, h])]


@given(
    box=st.tuples(*[st.floats(0, 1, width=32)] * 4),
    image_wh=st.tuples(st.integers(50, 5000), st.integers(50, 5000)),
    size_wh=st.sampled_from([(416, 416), (320, 192), (96, 608)]),
    fit=FITS,
)
def test_boxes_return_to_the_image_as_darknets(
    box: Sides, image_wh: Wh, size_wh: Wh, fit: InputFit
) -> None:
    expected = corrected_by_loops(box, image_wh, size_wh, fit)
    xyxy = to_image(np.array([box], F), image_wh, size_wh, fit)
    assert xyxy.dtype == np.float64
    assert np.allclose(xyxy[0], expected, atol=0.01 * max(image_wh) / 1000, rtol=0)


def test_infinite_boxes_are_clipped_to_the_image() -> None:
    boxes = np.array([[0.5, 0.5, math.inf, 0.5]])
    assert to_image(boxes, (200, 100), (32, 32), "stretch").tolist() == [[0, 25, 200, 75]]


def test_no_boxes() -> None:
    assert to_image(np.empty((0, 4), F), (200, 100), (32, 32), "letterbox").shape == (0, 4)


def test_the_unit_includes_the_borders() -> None:
    assert unit_wh((200, 100), (32, 32), "letterbox") == (200, 200)
    assert unit_wh((200, 100), (32, 32), "stretch") == (200, 100)
