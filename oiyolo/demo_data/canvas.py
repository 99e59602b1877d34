"""A canvas on which one object is drawn, supersampled, in units of its own width.

The base line is the line on which the object stands or floats. Its left end is the point (0, 0),
its right end (1, 0). The y axis points down, as in images, so everything above the base line has a
negative y. A shape is a sequence of points, or an SVG path of absolute moves (M), lines (L) and
quadratic Bézier curves (Q; https://www.w3.org/TR/SVG2/paths.html).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from PIL import Image, ImageColor, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

RGB = tuple[int, int, int]
Point = tuple[float, float]
Shape = Union["Sequence[Point]", str]

_SMALL_WIDTH_PX = 100.0


def palette(colours: str) -> tuple[RGB, ...]:
    """Return colours from their hexadecimal codes, such as "#f2f2ee #1c2c5c"."""
    return tuple(ImageColor.getrgb(code)[:3] for code in colours.split())


def shade(colour: RGB, factor: float) -> RGB:
    """Return a darker (``factor`` below 1) or lighter (above 1) colour."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Return a mixture of two colours; ``share`` is the proportion of the second one."""
    red, green, blue = (
        round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def pick(rng: np.random.Generator, colours: Sequence[RGB], *, spread: int = 14) -> RGB:
    """Return a random one of the colours, with each channel shifted by at most ``spread``."""
    base = colours[int(rng.integers(len(colours)))]
    shifts = rng.integers(-spread, spread + 1, 3)
    red, green, blue = (
        min(255, max(0, channel + int(shift))) for channel, shift in zip(base, shifts, strict=True)
    )
    return red, green, blue


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return ``True`` with the given probability."""
    return bool(rng.random() < probability)


def bezier(start: Point, control: Point, end: Point, *, steps: int = 8) -> list[Point]:
    """Return ``steps`` + 1 points on the quadratic Bézier curve from ``start`` to ``end``."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        points.append(
            (a * start[0] + b * control[0] + c * end[0], a * start[1] + b * control[1] + c * end[1])
        )
    return points


def _points(shape: Shape) -> Sequence[Point]:
    """Return the points of a shape; those of a curve are computed."""
    if not isinstance(shape, str):
        return shape
    points: list[Point] = []
    for command, numbers in re.findall(r"([MLQ])([^MLQ]+)", shape):
        values = iter(map(float, numbers.replace(",", " ").split()))
        pairs = list(zip(values, values, strict=True))
        if command != "Q":
            points += pairs
            continue
        for control, end in zip(pairs[::2], pairs[1::2], strict=True):
            points += bezier(points[-1], control, end)[1:]
    return points


@dataclass(frozen=True)
class Cutout:
    """A drawn object with a transparent background.

    Attributes:
        image: RGBA image, cropped to the object.
        left_px: X of the image's left edge, relative to the middle of the object's base line.
        top_px: Y of the image's top edge, relative to the base line; negative above it.
    """

    image: Image.Image
    left_px: int
    top_px: int


class Canvas:
    """A transparent canvas for the polygons, ellipses and lines of one object.

    Args:
        width_px: Width of the object in the final image.
        headroom: Height of the canvas above the base line, in object widths.
        mirrored: Whether to flip the drawing horizontally.
        lean_deg: Clockwise rotation of the drawing about the middle of the base line.
    """

    _SIDE_MARGIN = 0.25
    _BOTTOM_MARGIN = 0.25

    def __init__(
        self, width_px: float, *, headroom: float, mirrored: bool = False, lean_deg: float = 0.0
    ) -> None:
        # Small objects need finer edges. On large ones the cost would exceed the visible benefit.
        self._samples = 3 if width_px < _SMALL_WIDTH_PX else 2
        self._unit = width_px * self._samples
        self._sign = -1.0 if mirrored else 1.0
        self._cos = math.cos(math.radians(lean_deg))
        self._sin = math.sin(math.radians(lean_deg))
        half = (0.5 + self._SIDE_MARGIN) * self._unit
        # Whole multiples of the sampling factor, so that the base line lies between two pixels of
        # the final image.
        self._mid_x = self._samples * math.ceil(half / self._samples)
        self._base_y = self._samples * math.ceil(headroom * self._unit / self._samples)
        below = self._samples * math.ceil(self._BOTTOM_MARGIN * self._unit / self._samples)
        self._image = Image.new("RGBA", (2 * self._mid_x, self._base_y + below), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def _to_samples(self, point: Point) -> Point:
        x = (point[0] - 0.5) * self._sign
        y = point[1]
        return (
            self._mid_x + (x * self._cos - y * self._sin) * self._unit,
            self._base_y + (x * self._sin + y * self._cos) * self._unit,
        )

    def polygon(self, shape: Shape, colour: RGB) -> None:
        """Fill a shape."""
        self._draw.polygon([self._to_samples(point) for point in _points(shape)], fill=colour)

    def ellipse(self, centre: Point, radii: Point, colour: RGB, *, steps: int = 22) -> None:
        """Fill an ellipse with the given centre and (x, y) radii."""
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

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: RGB) -> None:
        """Fill a rectangle whose sides are parallel to the axes."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, shape: Shape, colour: RGB, width: float) -> None:
        """Draw the outline of a shape; its width, in object widths, is at least one pixel."""
        width_samples = max(self._samples, round(width * self._unit))
        self._draw.line(
            [self._to_samples(point) for point in _points(shape)],
            fill=colour,
            width=width_samples,
            joint="curve",
        )

    def cutout(self) -> Cutout:
        """Return the drawing, reduced to the final size and cropped."""
        image = self._image.reduce(self._samples)
        left, top, right, bottom = image.getbbox() or (0, 0, 1, 1)
        return Cutout(
            image=image.crop((left, top, right, bottom)),
            left_px=left - self._mid_x // self._samples,
            top_px=top - self._base_y // self._samples,
        )
