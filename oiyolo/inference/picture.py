"""Draw the detections on a photograph of any size: a box and a label for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.drawing.marks import (
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    Style,
    draw_box,
    draw_label,
    to_pixels,
)
from oiyolo.drawing.text import is_drawable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.drawing.marks import Corners

_COLOURS: Final = (VERMILION, SKY, YELLOW, GREEN, PURPLE, ORANGE)
_PX_PER_FONT_PX: Final = 56
"""Letters are readable when a picture of any size is shown in a window."""
_MIN_FONT_PX: Final = 10
_FONT_PX_PER_LINE_PX: Final = 8
_CROWD: Final = 12
"""With more detections than this, letters are smaller, lines are thinner, and a label that would
cover another one is left out."""
_CROWD_SCALE: Final = 0.75


def draw_detections(
    rgb: npt.NDArray[np.uint8],
    xyxy: Boxes,
    class_ids: Sequence[int],
    confidences: Sequence[float],
    names: Sequence[str],
) -> Image.Image:
    """Return a picture with the boxes, each with its class and confidence.

    Args:
        rgb: Pixels of the upright image, shape (height, width, 3).
        xyxy: Corners in pixels of it, by falling confidence, shape (n, 4).
        class_ids: Class of each box.
        confidences: Confidence of each box.
        names: Names of the classes. One that no installed font can draw is replaced by the number
            of the class.
    """
    picture = Image.fromarray(rgb)
    size_wh = picture.size
    is_crowded = len(xyxy) > _CROWD
    letters_px = max(size_wh) / _PX_PER_FONT_PX * (_CROWD_SCALE if is_crowded else 1)
    font_px = max(_MIN_FONT_PX, round(letters_px))
    width_px = math.ceil(font_px / _FONT_PX_PER_LINE_PX)
    draw = ImageDraw.Draw(picture, "RGBA")
    corners = to_pixels(xyxy / np.tile(size_wh, 2), size_wh)
    styles = [Style("", _COLOURS[class_id % len(_COLOURS)], width_px) for class_id in class_ids]
    marks = list(zip(corners, class_ids, confidences, styles, strict=True))
    for box, _, _, style in reversed(marks):  # the most confident on top
        draw_box(draw, box, style)
    occupied: list[Corners] = []
    for box, class_id, confidence, style in marks:
        draw_label(
            draw,
            box,
            f"{_shown_name(class_id, names)} {confidence:.2f}",
            style,
            size_wh=size_wh,
            occupied=occupied,
            font_px=font_px,
            force=not is_crowded,
        )
    return picture


def _shown_name(class_id: int, names: Sequence[str]) -> str:
    name = names[class_id]
    is_visible = any(character.isprintable() and character != " " for character in name)
    return name if is_visible and is_drawable(name) else f"class {class_id}"
