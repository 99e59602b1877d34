"""Convert boxes from the frame that an annotation uses to fractions of the stored image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from oiyolo.imagery.exif import UPRIGHT, to_stored_boxes, upright_rotation
from oiyolo.imagery.labels import MIN_SIDE
from oiyolo.interchange import kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.imagery.header import ImageHeader
    from oiyolo.interchange.imported import Exif, Rotation


Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_MAX_OVERHANG_PX: Final = 2.0
_MAX_OVERHANG: Final = 0.01
"""How far a corner may be outside its image, in pixels or as a fraction, whichever is more: what
rounding and tools that count pixels from another origin cause. Such a box is clipped."""
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class BoxError(ValueError):
    """A box cannot be used; ``kind`` is one of the kinds of this module."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The image that the boxes of an annotation refer to.

    Attributes:
        size_wh: Its width and height in pixels.
        orientation: The EXIF orientation that was applied to it; 1 for the stored image.
        note: Kind of a problem with what the annotation states about it; empty if there is none.
    """

    size_wh: tuple[int, int]
    orientation: int = UPRIGHT
    note: str = ""

    def to_stored(self, xyxy_px: Corners) -> Corners:
        """Return a box as fractions of the stored image.

        Args:
            xyxy_px: The box in pixels, where the left edge of the image is 0 and its right edge is
                its width.

        Raises:
            BoxError: The box is outside the image, or has no area.
        """
        (width, height), (x1, y1, x2, y2) = self.size_wh, xyxy_px
        if not (math.isfinite(x1 + x2) and math.isfinite(y1 + y2)):
            raise BoxError(kinds.MALFORMED, f"{xyxy_px} are not four numbers")
        dx, dy = (max(_MAX_OVERHANG_PX, _MAX_OVERHANG * side) for side in self.size_wh)
        if min(x1 + dx, y1 + dy, width + dx - x2, height + dy - y2) < 0:
            raise BoxError(kinds.OUTSIDE, f"{_shown(xyxy_px)} in an image of {width}x{height}")
        box = clip_fractions((x1 / width, y1 / height, x2 / width, y2 / height))
        return box if self.orientation == UPRIGHT else undo_orientation(box, self.orientation)


def clip_fractions(xyxy: Corners) -> Corners:
    """Return a box clipped to its image.

    Raises:
        BoxError: Nothing or next to nothing remains.
    """
    x1, y1, x2, y2 = xyxy
    x1, y1 = max(x1, 0.0), max(y1, 0.0)
    x2, y2 = min(x2, 1.0), min(y2, 1.0)
    if not (x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE):
        raise BoxError(kinds.NO_AREA, f"{_shown(xyxy)} as fractions of the image")
    return x1, y1, x2, y2


def undo_orientation(xyxy: Corners, orientation: int) -> Corners:
    """Return a box of the upright image as fractions of the stored image."""
    return cast("Corners", tuple(to_stored_boxes(np.array([xyxy]), orientation)[0].tolist()))


def choose_frame(
    header: ImageHeader, stated_wh: tuple[int, int] | None, exif: Exif
) -> LabelledFrame:
    """Return the frame of the boxes of an image.

    Args:
        header: The image's header.
        stated_wh: The size that the annotation states, which is often wrong; ``None`` if it states
            none.
        exif: The frame if EXIF turns the image and the stated size does not decide.
    """
    stored_wh = header.stored_wh
    note = kinds.WRONG_SIZE if stated_wh not in {None, stored_wh} else ""
    if header.orientation == UPRIGHT:
        return LabelledFrame(stored_wh, UPRIGHT, note)
    is_sideways = upright_rotation(header.orientation) in {90, 270}
    upright_wh = stored_wh[::-1] if is_sideways else stored_wh
    upright = LabelledFrame(upright_wh, header.orientation)
    if stored_wh != upright_wh and stated_wh in {stored_wh, upright_wh}:
        return upright if stated_wh == upright_wh else LabelledFrame(stored_wh)
    chosen = upright if exif == "upright" else LabelledFrame(stored_wh)
    return LabelledFrame(chosen.size_wh, chosen.orientation, note or kinds.EXIF_ASSUMED)


def rotation_of(header: ImageHeader) -> Rotation:
    """Return the degrees counter-clockwise that make a stored image upright."""
    return cast("Rotation", upright_rotation(header.orientation))


def parse_number(text: str) -> float:
    """Return a decimal number; ``nan`` for any other text.

    Python itself also reads "1_000", "infinity" and digits of other scripts.
    """
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) and text.isascii() else math.nan


def _shown(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"
