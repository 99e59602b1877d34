"""Draw boxes and their labels so that they are visible on any background.

The colours are those of Okabe and Ito, which can be distinguished with any kind of colour vision
(https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.drawing.text import INK, WHITE, draw_text, font

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
_LUMA_WEIGHTS: Final = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
_DARK_TEXT_MIN_LUMA: Final = 140  # 0 to 255
_MIN_SIDE_PX: Final = 6


@dataclasses.dataclass(frozen=True)
class Style:
    """How one kind of box is drawn.

    Attributes:
        name: Its name in the legend.
        colour: Colour of its lines.
        width_px: Width of its lines.
        dash_px: Length of a dash and of the gap after it; (0, 0) for a solid line.
    """

    name: str
    colour: Colour
    width_px: int
    dash_px: tuple[int, int] = (0, 0)


def to_pixels(xyxy: Boxes, size_wh: tuple[int, int]) -> list[Corners]:
    """Return boxes in pixels of the drawing, each with a visible minimum width and height."""
    w, h = size_wh
    boxes = []
    for x1, y1, x2, y2 in np.clip(xyxy, 0.0, 1.0).tolist():
        left, top = min(round(x1 * w), w - _MIN_SIDE_PX), min(round(y1 * h), h - _MIN_SIDE_PX)
        right = max(round(x2 * w) - 1, left + _MIN_SIDE_PX - 1)
        boxes.append((left, top, right, max(round(y2 * h) - 1, top + _MIN_SIDE_PX - 1)))
    return boxes


def draw_box(draw: ImageDraw.ImageDraw, box: Corners, style: Style) -> None:
    """Draw a box with a dark rim, so that it is visible on any background."""
    left, top, right, bottom = box
    rim = (left - 1, top - 1, right + 1, bottom + 1)
    draw.rectangle(rim, outline=(0, 0, 0, 130), width=style.width_px + 2)
    if not style.dash_px[0]:
        draw.rectangle(box, outline=style.colour, width=style.width_px)
        return
    thickness = style.width_px - 1
    for start, end in _dashes(left, right, style.dash_px):
        draw.rectangle((start, top, end, top + thickness), fill=style.colour)
        draw.rectangle((start, bottom - thickness, end, bottom), fill=style.colour)
    for start, end in _dashes(top, bottom, style.dash_px):
        draw.rectangle((left, start, left + thickness, end), fill=style.colour)
        draw.rectangle((right - thickness, start, right, end), fill=style.colour)


def _dashes(start: float, end: float, dash_px: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Yield the first and the last pixel of each dash of a line; the last dash may be shorter."""
    dash, gap = dash_px
    position = start
    while position <= end:
        yield position, min(position + dash - 1, end)
        position += dash + gap


def draw_label(
    draw: ImageDraw.ImageDraw,
    box: Corners,
    label: str,
    style: Style,
    *,
    size_wh: tuple[int, int],
    occupied: list[Corners],
    font_px: int = LABEL_FONT_PX,
    force: bool = True,
) -> bool:
    """Draw the label of a box where it fits and covers no other label.

    Args:
        draw: The drawing.
        box: The box.
        label: The text.
        style: Style of the box; its colour is the background of the label.
        size_wh: Width and height of the drawing.
        occupied: Rectangles of the labels drawn so far; that of this label is appended.
        font_px: Height of the letters.
        force: Whether to draw the label over others at the box's corner if it fits nowhere.

    Returns:
        Whether the label was drawn.
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
    rectangles = ((x, y, x + width, y + height) for x, y in corners)
    free = (rectangle for rectangle in rectangles if _is_free(rectangle, size_wh, occupied))
    rectangle = next(free, None)
    if rectangle is None:
        if not force:
            return False
        fallback_left = min(max(left, 0), max(size_wh[0] - width, 0))
        rectangle = (fallback_left, top, fallback_left + width, top + height)
    occupied.append(rectangle)
    left, top, right, bottom = rectangle
    draw.rectangle((left, top, right - 1, bottom - 1), fill=style.colour)
    luma = np.dot(style.colour, _LUMA_WEIGHTS)
    draw_text(
        draw,
        (left + 4, (top + bottom) / 2),
        label,
        size_px=font_px,
        width_px=width - 7,
        colour=INK if luma >= _DARK_TEXT_MIN_LUMA else WHITE,
        anchor="lm",
    )
    return True


def _is_free(rectangle: Corners, size_wh: tuple[int, int], occupied: list[Corners]) -> bool:
    """Return whether a label in this rectangle is inside the drawing and covers no other label."""
    left, top, right, bottom = rectangle
    is_inside = left >= -1 and top >= 0 and right <= size_wh[0] and bottom <= size_wh[1]
    return is_inside and not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
        for other in occupied
    )
