"""Boxes and labels on pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest

from oiyolo.drawing import marks
from oiyolo.inference import picture
from oiyolo.inference.picture import draw_detections

GREY = 90


def rgb(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


@pytest.mark.parametrize("wh", [(1, 1), (3, 200), (40, 30), (4000, 3000)])
def test_a_picture_has_the_size_of_the_image_and_shows_its_boxes(wh: tuple[int, int]) -> None:
    image = rgb(*wh)
    boxes = np.array([[0, 0, wh[0], wh[1]], [wh[0] / 4, wh[1] / 4, wh[0] / 2, wh[1] / 2]])
    drawn = np.asarray(draw_detections(image, boxes, [0, 7], [0.9, 0.3], ["a"] * 8))
    assert drawn.shape == image.shape
    assert (drawn != GREY).any()
    assert (image == GREY).all()


def test_a_class_has_the_same_colour_everywhere_and_different_ones_differ() -> None:
    boxes = np.array([[20, 20, 380, 280]])
    middles = {}
    for class_id in (0, 1):
        drawn = draw_detections(rgb(400, 300), boxes, [class_id], [0.9], ["", ""])
        middles[class_id] = drawn.getpixel((20, 150))
    assert middles == {0: marks.VERMILION, 1: marks.SKY}


def test_a_name_that_no_font_can_draw_is_replaced_by_the_number_of_the_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels: list[str] = []

    def draw_label(_: object, __: object, label: str, *___: object, **____: object) -> None:
        labels.append(label)

    monkeypatch.setattr(picture, "draw_label", draw_label)
    monkeypatch.setattr(picture, "is_drawable", lambda name: name != "\u8239")
    names = ["boat", "\u8239", " ", "\ud800"]
    boxes = np.tile([10.0, 10, 50, 50], (4, 1))
    draw_detections(rgb(100, 100), boxes, [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6], names)
    assert labels == ["boat 0.90", "class 1 0.80", "class 2 0.70", "class 3 0.60"]


def test_in_a_crowd_no_label_covers_another(monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[bool] = []

    def draw_label(*_: object, force: bool, **__: object) -> None:
        forced.append(force)

    monkeypatch.setattr(picture, "draw_label", draw_label)
    for count in (2, 100):
        boxes = np.tile([10.0, 10, 50, 50], (count, 1))
        draw_detections(rgb(100, 100), boxes, [0] * count, [0.5] * count, ["boat"])
    assert forced == [True] * 2 + [False] * 100
