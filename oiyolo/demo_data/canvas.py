"""A pen that draws one object: in units of the object's own width, supersampled, then cut out.

The point (0, 0) is the left end of the line that the object stands or floats on and (1, 0) the
right end; y grows downwards, as in pictures, so what stands above the line has a negative y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

RGB = tuple[int, int, int]
Point = tuple[float, float]

_SMALL_WIDTH_PX = 100.0


def shade(colour: RGB, factor: float) -> RGB:
    """Darken (below 1) or lighten (above 1) a colour."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Mix two colours; ``share`` is the second one's part."""
    red, green, blue = (
        round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def pick(rng: np.random.Generator, colours: Sequence[RGB], *, spread: int = 14) -> RGB:
    """Take one of some colours, a little off."""
    base = colours[int(rng.integers(len(colours)))]
    off = rng.integers(-spread, spread + 1, 3)
    red, green, blue = (
        min(255, max(0, channel + int(delta))) for channel, delta in zip(base, off, strict=True)
    )
    return red, green, blue


def chance(rng: np.random.Generator, share: float) -> bool:
    """Say yes in a share of all cases."""
    return bool(rng.random() < share)


def bow(start: Point, control: Point, end: Point, *, steps: int = 8) -> list[Point]:
    """Give points on the curve from ``start`` to ``end`` that is drawn towards ``control``."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        points.append(
            (a * start[0] + b * control[0] + c * end[0], a * start[1] + b * control[1] + c * end[1])
        )
    return points


@dataclass(frozen=True)
class Cutout:
    """A drawn object on transparent ground.

    Attributes:
        picture: RGBA, cropped to what was drawn.
        left_px: Where its left edge lies, from the middle of the object's base line.
        top_px: Where its top edge lies, from the base line; negative is above.
    """

    picture: Image.Image
    left_px: int
    top_px: int


class Pen:
    """Draws polygons, ellipses and lines for one object.

    Args:
        width_px: The object's width in the final picture.
        up: Room above the base line, in object widths.
        mirrored: Draw everything left-right.
        lean_deg: Turn everything clockwise about the middle of the base line.
    """

    _SIDE = 0.25
    _DOWN = 0.25

    def __init__(
        self, width_px: float, *, up: float, mirrored: bool = False, lean_deg: float = 0.0
    ) -> None:
        # Small things need finer edges; large ones would cost more than they show.
        self._samples = 3 if width_px < _SMALL_WIDTH_PX else 2
        self._unit = width_px * self._samples
        self._sign = -1.0 if mirrored else 1.0
        self._cos = math.cos(math.radians(lean_deg))
        self._sin = math.sin(math.radians(lean_deg))
        half = (0.5 + self._SIDE) * self._unit
        # Whole multiples of the sampling, so that the base line falls between two final pixels.
        self._mid_x = self._samples * math.ceil(half / self._samples)
        self._base_y = self._samples * math.ceil(up * self._unit / self._samples)
        below = self._samples * math.ceil(self._DOWN * self._unit / self._samples)
        self._canvas = Image.new("RGBA", (2 * self._mid_x, self._base_y + below), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._canvas)

    def _at(self, point: Point) -> Point:
        x = (point[0] - 0.5) * self._sign
        y = point[1]
        return (
            self._mid_x + (x * self._cos - y * self._sin) * self._unit,
            self._base_y + (x * self._sin + y * self._cos) * self._unit,
        )

    def polygon(self, points: Sequence[Point], colour: RGB) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=colour)

    def oval(self, centre: Point, radii: Point, colour: RGB, *, steps: int = 22) -> None:
        """Fill an ellipse given by its centre and its two radii."""
        self.polygon(
            [
                (
                    centre[0] + radii[0] * math.cos(2 * math.pi * step / steps),
                    centre[1] + radii[1] * math.sin(2 * math.pi * step / steps),
                )
                for step in range(steps)
            ],
            colour,
        )

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Sequence[Point], colour: RGB, width: float) -> None:
        """Draw a line through points; its width is in object widths, at least one sample."""
        width_px = max(self._samples, round(width * self._unit))
        self._draw.line(
            [self._at(point) for point in points], fill=colour, width=width_px, joint="curve"
        )

    def cutout(self) -> Cutout:
        """Give what was drawn, at the final size."""
        picture = self._canvas.reduce(self._samples)
        left, top, right, bottom = picture.getbbox() or (0, 0, 1, 1)
        return Cutout(
            picture=picture.crop((left, top, right, bottom)),
            left_px=left - self._mid_x // self._samples,
            top_px=top - self._base_y // self._samples,
        )
