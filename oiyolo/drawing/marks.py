"""Boxes and their labels, drawn so that they show on any ground.

The colours are Okabe and Ito's, which people with any colour vision tell apart
(https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.drawing.text import INK, WHITE, font, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import ImageDraw

    from oiyolo.boxes import Boxes
    from oiyolo.drawing.text import Colour

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the drawing."""

SKY: Final[Colour] = (86, 180, 233)
VERMILION: Final[Colour] = (230, 97, 0)
YELLOW: Final[Colour] = (240, 228, 66)
ORANGE: Final[Colour] = (230, 159, 0)
PURPLE: Final[Colour] = (204, 121, 167)
GREEN: Final[Colour] = (0, 158, 115)
GREY: Final[Colour] = (187, 187, 187)

LABEL_FONT_PX: Final = 13
_DARK_TEXT_FROM: Final = 140  # luma (ITU-R BT.601), 0 to 255
_LEAST_PX: Final = 6


@dataclasses.dataclass(frozen=True)
class Style:
    """How one kind of box is drawn: ``dash_px`` is a dash and the gap after it, 0 for none."""

    name: str
    colour: Colour
    width_px: int
    dash_px: tuple[int, int] = (0, 0)


def to_pixels(xyxy: Boxes, size_wh: tuple[int, int]) -> list[Corners]:
    """Give boxes in pixels of the drawing, at least a visible few wide."""
    w, h = size_wh
    boxes = []
    for x1, y1, x2, y2 in np.clip(xyxy, 0.0, 1.0).tolist():
        left, top = min(round(x1 * w), w - _LEAST_PX), min(round(y1 * h), h - _LEAST_PX)
        right = max(round(x2 * w) - 1, left + _LEAST_PX - 1)
        boxes.append((left, top, right, max(round(y2 * h) - 1, top + _LEAST_PX - 1)))
    return boxes


def draw_box(draw: ImageDraw.ImageDraw, box: Corners, style: Style) -> None:
    """Draw a box with a dark rim, so that it shows on any ground."""
    left, top, right, bottom = box
    rim = (left - 1, top - 1, right + 1, bottom + 1)
    draw.rectangle(rim, outline=(0, 0, 0, 130), width=style.width_px + 2)
    if not style.dash_px[0]:
        draw.rectangle(box, outline=style.colour, width=style.width_px)
        return
    thick = style.width_px - 1
    for start, end in _dashes(left, right, style.dash_px):
        draw.rectangle((start, top, end, top + thick), fill=style.colour)
        draw.rectangle((start, bottom - thick, end, bottom), fill=style.colour)
    for start, end in _dashes(top, bottom, style.dash_px):
        draw.rectangle((left, start, left + thick, end), fill=style.colour)
        draw.rectangle((right - thick, start, right, end), fill=style.colour)


def _dashes(start: float, end: float, dash_px: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Give the dashes of a line, first and last pixel of each; the last one is cut off."""
    dash, gap = dash_px
    at = start
    while at <= end:
        yield at, min(at + dash - 1, end)
        at += dash + gap


def draw_label(
    draw: ImageDraw.ImageDraw,
    box: Corners,
    label: str,
    style: Style,
    *,
    size_wh: tuple[int, int],
    taken: list[Corners],
    font_px: int = LABEL_FONT_PX,
    at_any_price: bool = True,
) -> bool:
    """Write a label at its box, where it fits and covers no other label.

    Args:
        draw: What to write on.
        box: The box.
        label: The text.
        style: The box's own; the label's ground has its colour.
        size_wh: Width and height of the drawing.
        taken: Where labels stand already; this one's place is added.
        font_px: Height of the letters.
        at_any_price: Where there is no room, write at the box's corner, over what is there.

    Returns:
        Whether it was written.
    """
    width, height = min(font(font_px, label).getlength(label) + 8, size_wh[0]), font_px + 5
    left, top, right, bottom = box
    corners = (
        (left - 1, top - height),
        (left - 1, bottom + 1),
        (left, top),
        (right - width, top - height),
        (right - width, top),
        (right - width, bottom + 1),
        (left, bottom - height),
        (right - width, bottom - height),
    )
    places = [(x, y, x + width, y + height) for x, y in corners]
    fits = (
        place
        for place in places
        if place[0] >= -1
        and place[1] >= 0
        and place[2] <= size_wh[0]
        and place[3] <= size_wh[1]
        and not any(_touch(place, other) for other in taken)
    )
    place = next(fits, None)
    if place is None:
        if not at_any_price:
            return False
        fallback_left = min(max(left, 0), max(size_wh[0] - width, 0))
        place = (fallback_left, top, fallback_left + width, top + height)
    taken.append(place)
    draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=style.colour)
    red, green, blue = style.colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue >= _DARK_TEXT_FROM
    write(
        draw,
        (place[0] + 4, (place[1] + place[3]) / 2),
        label,
        size_px=font_px,
        width_px=width - 7,
        colour=INK if dark else WHITE,
        anchor="lm",
    )
    return True


def _touch(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
