"""The objects that appear in the scenes: a function that draws each kind, and a table of them all.

Each function receives a canvas, whose module describes units, axes and paths, and the scene's
random number generator. It draws the object facing right; the scene mirrors half of the objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from oiyolo.demo_data.canvas import bezier, chance, mix, palette, pick, shade

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from oiyolo.demo_data.canvas import RGB, Canvas, Point

_HULLS = palette("#f2f2ee #1c2c5c #b02226 #1e6e56 #eec43c #2e84be #e27028 #2c2e34 #ece4cc")
_BOTTOMS = palette("#8c2822 #1e2842 #264c3e #3c3a3c")
_SAILS = palette("#faf9f3 #f6f0e0 #e8ecf2")
_BRIGHT_SAILS = palette("#d63c30 #f0962c #2860b0 #3a966e #a04078 #963e2c")
_WOODS = palette("#965c30 #764628 #b27640 #603a26")
_SKINS = palette("#ecbe9e #c68e6a #865a40 #583a2a")
_CLOTHES = palette("#ce3432 #2c5ca8 #f0ca42 #348054 #ecece8 #463a5c")
_WALLS = palette("#f0e8d8 #deb68e #ce7a60 #ecd496 #beced6 #e8e2e2")
_ROOFS = palette("#9e4632 #704036 #5a5c66 #805c46")
_GREENS = palette("#3e6834 #2e5430 #5c7e3a #4a704c")
_DARK_BELOW = 380
_GLASS: RGB = (58, 78, 96)
_MAST: RGB = (206, 200, 188)


class SceneLayer(Enum):
    """The part of a scene in which a sprite is placed."""

    WATER = "water"
    BANK = "bank"
    FOREGROUND = "foreground"
    SKY = "sky"


@dataclass(frozen=True)
class Sprite:
    """One kind of object.

    Attributes:
        name: Class name in Open Images; empty for clutter without labels.
        paint: Function that draws the object.
        headroom: Space that the object needs above its base line, in object widths.
        width_range: Minimum and maximum width, as fractions of the image's width.
        layer: Part of the scene in which the object is placed.
        lean_deg: Maximum lean to either side, in degrees.
        weight: Relative frequency among the candidates for a scene.
    """

    name: str
    paint: Callable[[Canvas, np.random.Generator], None]
    headroom: float
    width_range: tuple[float, float]
    layer: SceneLayer
    lean_deg: float = 0.0
    weight: float = 1.0


def _person(
    canvas: Canvas, rng: np.random.Generator, foot: Point, height: float, *, seated: bool = False
) -> None:
    x, y = foot
    skin, shirt = pick(rng, _SKINS), pick(rng, _CLOTHES)
    head = height * 0.13
    if seated:
        hip = y
    else:
        hip = y - height * 0.45
        trousers = shade(pick(rng, _CLOTHES), 0.6)
        for side in (-1, 1):
            canvas.line([(x + side * head * 0.9, y), (x, hip)], trousers, height * 0.12)
    neck = y - height + 2.1 * head
    canvas.polygon(
        [(x - head * 1.3, neck), (x + head * 1.3, neck), (x + head * 1.1, hip), (x - head, hip)],
        shirt,
    )
    canvas.line(
        [(x + head, neck + head * 0.4), (x + head * 2.2, neck + head * 3)], skin, head * 0.7
    )
    canvas.ellipse((x, y - height + head), (head * 0.85, head), skin)
    if chance(rng, 0.6):
        canvas.polygon(
            bezier(
                (x - head, y - height + head * 0.8),
                (x, y - height - head),
                (x + head, y - height + head * 0.8),
                steps=5,
            ),
            shade(pick(rng, _CLOTHES), 0.7),
        )


def _hull(
    canvas: Canvas,
    colour: RGB,
    bottom: RGB,
    *,
    stern_y: float,
    bow_y: float,
    rake: float,
    draught: float,
) -> None:
    """Draw a hull from stern (left) to bow (right), with its waterline, shadow and rail."""
    deck = bezier((0.01, stern_y), (0.55, max(stern_y, bow_y) * 0.82), (0.99, bow_y))
    keel = bezier((0.99, bow_y), (1.0 - rake * 0.4, bow_y * 0.25), (1.0 - rake, draught))
    canvas.polygon([*deck, *keel, (0.06, draught), (0.02, stern_y * 0.4)], colour)
    # The lower part of the hull is in shadow. The paint below the waterline has its own colour.
    canvas.polygon(
        [
            (0.025, stern_y * 0.35),
            (0.995 - rake * 0.55, bow_y * 0.3),
            (1 - rake, draught),
            (0.06, draught),
        ],
        shade(colour, 0.8),
    )
    canvas.polygon(
        [(0.035, -0.02), (1 - rake * 0.9, -0.02), (1 - rake, draught), (0.06, draught)], bottom
    )
    canvas.line(deck, shade(colour, 1.25 if sum(colour) < _DARK_BELOW else 0.72), 0.014)


def _sailboat(canvas: Canvas, rng: np.random.Generator) -> None:
    height = rng.uniform(0.95, 1.3)
    mast_x = rng.uniform(0.46, 0.56)
    hull = pick(rng, _HULLS)
    sail = pick(rng, _SAILS if chance(rng, 0.62) else _BRIGHT_SAILS)
    deck = -0.15
    _hull(canvas, hull, pick(rng, _BOTTOMS), stern_y=-0.13, bow_y=-0.19, rake=0.16, draught=0.03)
    canvas.polygon(
        [(0.26, deck), (0.3, deck - 0.07), (0.58, deck - 0.06), (0.68, deck)],
        mix(hull, (255, 255, 255), 0.7),
    )
    for left in (0.34, 0.44, 0.53):
        canvas.rectangle(left, deck - 0.045, left + 0.05, deck - 0.022, _GLASS)
    boom_y = deck - 0.09
    leech = bezier(
        (mast_x - 0.015, -height), (0.2, -height * 0.55), (0.05, boom_y + 0.01), steps=10
    )
    canvas.polygon([*leech, (mast_x - 0.015, boom_y)], sail)
    # The belly of the sail faces away from the light.
    canvas.polygon(
        [
            *bezier((mast_x - 0.015, -height), (mast_x - 0.13, -height * 0.5), (0.3, boom_y)),
            (mast_x - 0.015, boom_y),
        ],
        shade(sail, 0.9),
    )
    for share in (0.3, 0.52, 0.74):
        y = -height + share * (height + boom_y)
        canvas.line(
            [(mast_x - 0.015, y), (mast_x - 0.44 * share, y + 0.015)], shade(sail, 0.82), 0.008
        )
    jib = pick(rng, (sail, *_BRIGHT_SAILS[:3]))
    if chance(rng, 0.85):
        foot = bezier((0.95, deck - 0.06), (0.7, deck - 0.03), (mast_x - 0.02, deck - 0.1))
        luff = bezier(
            (mast_x - 0.02, deck - 0.1), (mast_x + 0.13, -height * 0.5), (mast_x + 0.02, -height)
        )
        canvas.polygon([(mast_x + 0.02, -height * 0.94), *foot, *luff], jib)
        canvas.polygon(
            [(mast_x + 0.02, -height * 0.94), (0.95, deck - 0.06), (0.84, deck - 0.06)],
            shade(jib, 1.12),
        )
    canvas.line([(mast_x, deck), (mast_x, -height - 0.03)], _MAST, 0.018)
    canvas.line([(mast_x, boom_y), (0.04, boom_y + 0.012)], _MAST, 0.016)
    if chance(rng, 0.5):
        canvas.polygon(
            [(mast_x, -height - 0.04), (mast_x - 0.11, -height - 0.02), (mast_x, -height + 0.015)],
            pick(rng, _BRIGHT_SAILS),
        )


def _motorboat(canvas: Canvas, rng: np.random.Generator) -> None:
    hull = pick(rng, _HULLS)
    stripe = pick(rng, _BRIGHT_SAILS)
    _hull(canvas, hull, pick(rng, _BOTTOMS), stern_y=-0.17, bow_y=-0.25, rake=0.2, draught=0.03)
    canvas.line("M 0.03 -0.11 L 0.9 -0.15", stripe, 0.022)
    cabin = mix((248, 248, 246), hull, 0.12)
    height = rng.uniform(0.34, 0.44)
    left = rng.uniform(0.16, 0.26)
    right = left + rng.uniform(0.36, 0.44)
    canvas.polygon(
        [(left, -0.16), (left + 0.03, -height), (right, -height), (right + 0.13, -0.2)], cabin
    )
    canvas.polygon(
        [
            (left + 0.06, -height + 0.09),
            (left + 0.075, -height + 0.035),
            (right - 0.01, -height + 0.035),
            (right + 0.055, -height + 0.1),
        ],
        _GLASS,
    )
    canvas.polygon(
        [(right - 0.01, -height + 0.035), (right + 0.055, -height + 0.1), (right, -height + 0.1)],
        mix(_GLASS, (190, 220, 240), 0.6),
    )
    for port in (0.62, 0.71, 0.8):
        canvas.ellipse((port, -0.185), (0.018, 0.014), _GLASS, steps=10)
    if chance(rng, 0.6):
        canvas.line(
            [(left - 0.02, -height - 0.015), (right + 0.04, -height - 0.015)],
            shade(cabin, 0.86),
            0.03,
        )
        canvas.line([(left + 0.2, -height), (left + 0.16, -height - 0.16)], _MAST, 0.016)
    else:
        _person(canvas, rng, (left - 0.06, -0.14), 0.26)
    canvas.line("M 0.66 -0.29 L 0.97 -0.31", _MAST, 0.01)
    for post in (0.7, 0.8, 0.9):
        canvas.line([(post, -0.22), (post, -0.3)], _MAST, 0.008)


def _trawler(canvas: Canvas, rng: np.random.Generator) -> None:
    hull = pick(rng, _HULLS[1:])
    _hull(canvas, hull, pick(rng, _BOTTOMS), stern_y=-0.19, bow_y=-0.34, rake=0.12, draught=0.04)
    canvas.line("M 0.02 -0.15 Q 0.55 -0.16, 0.96 -0.28", (238, 238, 232), 0.02)
    house = pick(rng, ((246, 246, 240), (236, 226, 196), (250, 250, 250)), spread=6)
    aft = chance(rng, 0.6)
    left = rng.uniform(0.14, 0.22) if aft else rng.uniform(0.48, 0.54)
    canvas.rectangle(left, -0.5, left + 0.26, -0.17, house)
    canvas.rectangle(left, -0.5, left + 0.07, -0.17, shade(house, 0.84))
    canvas.rectangle(left - 0.025, -0.535, left + 0.3, -0.495, pick(rng, _BRIGHT_SAILS))
    for window in (0.03, 0.11, 0.19):
        canvas.rectangle(left + window, -0.455, left + window + 0.055, -0.375, _GLASS)
    mast_x = 0.6 if aft else 0.36
    wood = pick(rng, ((214, 168, 96), (232, 226, 210), (150, 92, 48)))
    canvas.line([(mast_x, -0.2), (mast_x, -0.74)], wood, 0.026)
    canvas.line([(mast_x, -0.32), (mast_x + 0.26, -0.58)], wood, 0.018)
    canvas.line([(mast_x, -0.72), (0.97, -0.34)], shade(_MAST, 0.7), 0.008)
    canvas.line([(mast_x, -0.72), (0.04, -0.2)], shade(_MAST, 0.7), 0.008)
    for crate in range(int(rng.integers(1, 4))):
        x = mast_x + 0.06 + crate * 0.075
        canvas.rectangle(x, -0.29, x + 0.065, -0.21, pick(rng, _CLOTHES))


def _dinghy(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw an open rowing boat with its crew."""
    hull = pick(rng, (*_HULLS, *_WOODS))
    for seat in rng.permutation([0.3, 0.5, 0.7])[: int(rng.integers(1, 4))]:
        _person(canvas, rng, (float(seat), -0.11), rng.uniform(0.28, 0.34), seated=True)
    canvas.polygon("M 0 -0.19 Q 0.5 -0.12, 1 -0.22 0.96 0, 0.84 0.04 L 0.1 0.04", hull)
    canvas.polygon("M 0.06 -0.05 L 0.94 -0.05 0.84 0.04 0.1 0.04", shade(hull, 0.72))
    canvas.line("M 0 -0.19 Q 0.5 -0.12, 1 -0.22", shade(hull, 0.55), 0.028)
    canvas.line("M 0.02 -0.1 L 0.94 -0.11", shade(hull, 0.86), 0.012)
    canvas.line("M 0.5 -0.14 L 0.2 0.05", _WOODS[2], 0.018)


def _schooner(canvas: Canvas, rng: np.random.Generator) -> None:
    hull = pick(rng, ((40, 38, 40), (96, 58, 38), (238, 236, 228), (24, 50, 66), (112, 36, 32)))
    sail = pick(rng, (*_SAILS, (190, 92, 60), (226, 204, 160)))
    _hull(canvas, hull, pick(rng, _BOTTOMS), stern_y=-0.13, bow_y=-0.16, rake=0.1, draught=0.03)
    canvas.line("M 0.03 -0.085 L 0.93 -0.1", (224, 190, 110), 0.012)
    height = rng.uniform(0.72, 0.86)
    for mast_x, top in ((0.36, height), (0.64, height * 0.92)):
        canvas.polygon(
            [
                (mast_x - 0.01, -top * 0.86),
                (mast_x - 0.2, -top * 0.98),
                (mast_x - 0.27, -0.2),
                (mast_x - 0.01, -0.19),
            ],
            sail,
        )
        canvas.line([(mast_x - 0.07, -top * 0.88), (mast_x - 0.09, -0.2)], shade(sail, 0.85), 0.01)
        canvas.line([(mast_x, -0.12), (mast_x, -top)], _WOODS[0], 0.02)
    for tip in (0.97, 0.86):
        canvas.polygon([(0.66, -height * 0.86), (tip, -0.19), (0.68, -0.2)], shade(sail, tip))
    canvas.line("M 0.9 -0.15 L 1.02 -0.2", _WOODS[1], 0.014)


def _canoe(canvas: Canvas, rng: np.random.Generator) -> None:
    hull = pick(rng, (*_WOODS[:3], (190, 44, 40), (52, 112, 70), (228, 150, 40), (44, 96, 150)))
    crew = int(rng.integers(1, 4))
    for seat in {1: (0.46,), 2: (0.3, 0.68), 3: (0.24, 0.5, 0.74)}[crew]:
        _person(canvas, rng, (seat, -0.06), rng.uniform(0.26, 0.31), seated=True)
        reach = rng.uniform(0.1, 0.18) * (1 if chance(rng, 0.7) else -1)
        canvas.line([(seat - reach * 0.2, -0.24), (seat + reach, 0.02)], _WOODS[2], 0.016)
        canvas.ellipse((seat + reach, 0.015), (0.02, 0.032), _WOODS[0], steps=10)
    sheer = bezier((0.0, -0.15), (0.5, 0.0), (1.0, -0.15), steps=14)
    canvas.polygon(
        [*sheer, *bezier((1.0, -0.15), (0.99, 0.02), (0.86, 0.035)), (0.14, 0.035), (0.02, -0.03)],
        hull,
    )
    canvas.polygon("M 0.05 -0.02 L 0.95 -0.02 0.86 0.035 0.14 0.035", shade(hull, 0.74))
    canvas.line(sheer, shade(hull, 0.6), 0.02)


def _gondola(canvas: Canvas, rng: np.random.Generator) -> None:
    black = pick(rng, ((26, 26, 32), (34, 32, 40)), spread=6)
    # The gondolier stands aft; two passengers sit amidships.
    _person(canvas, rng, (0.17, -0.09), 0.4)
    canvas.rectangle(0.135, -0.37, 0.205, -0.345, (200, 40, 44))
    canvas.line("M 0.2 -0.3 L 0.36 0.03", _WOODS[2], 0.016)
    for seat in (0.48, 0.57):
        _person(canvas, rng, (seat, -0.06), 0.21, seated=True)
    cushion = pick(rng, ((170, 30, 40), (120, 30, 90), (196, 150, 60)))
    canvas.polygon("M 0.4 -0.05 L 0.42 -0.15 0.47 -0.15 0.48 -0.05", cushion)
    sheer = [
        *bezier((0.0, -0.23), (0.12, -0.06), (0.4, -0.06)),
        *bezier((0.4, -0.06), (0.84, -0.05), (0.95, -0.27)),
    ]
    canvas.polygon(
        [*sheer, *bezier((0.97, -0.2), (0.9, 0.02), (0.7, 0.035)), (0.24, 0.035), (0.05, -0.06)],
        black,
    )
    canvas.line(sheer[6:14], (180, 140, 70), 0.014)
    iron = (206, 210, 214)
    canvas.line("M 0.94 -0.12 L 0.955 -0.3 0.99 -0.33", iron, 0.024)
    for tooth in (-0.14, -0.18, -0.22, -0.26):
        canvas.line([(0.95, tooth), (0.995, tooth - 0.008)], iron, 0.012)


def _jet_ski(canvas: Canvas, rng: np.random.Generator) -> None:
    body = pick(rng, _BRIGHT_SAILS)
    _person(canvas, rng, (0.4, -0.22), 0.6, seated=True)
    canvas.polygon("M 0.02 -0.22 L 0.3 -0.26 0.62 -0.42 1 -0.12 0.84 0.05 0.05 0.05", body)
    canvas.polygon("M 0.02 -0.08 L 0.94 -0.08 0.84 0.05 0.05 0.05", shade(body, 0.6))
    canvas.line("M 0.56 -0.38 L 0.5 -0.56", (40, 40, 44), 0.05)
    canvas.polygon("M -0.2 -0.12 L 0.02 -0.16 0.06 0.05 -0.2 0.06", (240, 246, 250))


def _car(canvas: Canvas, rng: np.random.Generator) -> None:
    paint = pick(rng, (*_CLOTHES, (120, 126, 134), (180, 184, 190), (34, 36, 42)))
    van = chance(rng, 0.3)
    roof = -0.5 if van else -0.42
    waist = -0.27
    cabin = (
        [(0.02, waist), (0.04, roof), (0.72, roof), (0.84, waist)]
        if van
        else [(0.12, waist), (0.25, roof), (0.62, roof), (0.78, waist)]
    )
    canvas.polygon(cabin, paint)
    canvas.polygon([(0.0, waist), (0.8, waist), (0.99, -0.22), (1.0, -0.07), (0.0, -0.07)], paint)
    canvas.polygon("M 0 -0.14 L 1 -0.14 1 -0.06 0 -0.06", shade(paint, 0.7))
    if van:
        for left in (0.08, 0.3, 0.52):
            canvas.rectangle(left, roof + 0.05, left + 0.17, waist - 0.01, _GLASS)
    else:
        canvas.polygon(
            [(0.18, waist - 0.01), (0.27, roof + 0.03), (0.42, roof + 0.03), (0.42, waist - 0.01)],
            _GLASS,
        )
        canvas.polygon(
            [(0.45, waist - 0.01), (0.45, roof + 0.03), (0.6, roof + 0.03), (0.71, waist - 0.01)],
            _GLASS,
        )
    canvas.ellipse((0.97, -0.17), (0.02, 0.03), (250, 240, 190), steps=10)
    for wheel in (0.21, 0.79):
        canvas.ellipse((wheel, -0.085), (0.095, 0.095), (26, 26, 28))
        canvas.ellipse((wheel, -0.085), (0.048, 0.048), (176, 178, 182), steps=14)


def _bus(canvas: Canvas, rng: np.random.Generator) -> None:
    paint = pick(rng, ((204, 44, 42), (240, 190, 50), (50, 120, 170), (236, 236, 230)))
    canvas.rectangle(0.0, -0.42, 1.0, -0.07, paint)
    canvas.rectangle(0.0, -0.14, 1.0, -0.07, shade(paint, 0.7))
    for left in (0.04, 0.2, 0.36, 0.52, 0.68):
        canvas.rectangle(left, -0.37, left + 0.14, -0.24, _GLASS)
    canvas.rectangle(0.86, -0.38, 0.99, -0.15, mix(_GLASS, (190, 220, 240), 0.35))
    for wheel in (0.2, 0.76):
        canvas.ellipse((wheel, -0.075), (0.065, 0.075), (26, 26, 28), steps=16)


def _house(canvas: Canvas, rng: np.random.Generator) -> None:
    wall, roof = pick(rng, _WALLS), pick(rng, _ROOFS)
    rows = int(rng.integers(1, 3))
    height = rng.uniform(0.5, 0.62) if rows == 1 else rng.uniform(0.66, 0.8)
    ridge = height + rng.uniform(0.25, 0.42)
    canvas.rectangle(0.06, -height, 0.94, 0.0, wall)
    canvas.rectangle(0.06, -height, 0.3, 0.0, shade(wall, 0.88))
    if chance(rng, 0.5):
        canvas.polygon([(0.0, -height), (0.5, -ridge), (1.0, -height)], roof)
    else:
        canvas.polygon(
            [(0.0, -height), (0.16, -ridge + 0.06), (0.84, -ridge + 0.06), (1.0, -height)], roof
        )
    canvas.rectangle(0.7, -ridge - 0.04, 0.79, -ridge + 0.16, shade(roof, 0.8))
    shutter = pick(rng, _GREENS + _BOTTOMS)
    for row in range(rows):
        top = -height + 0.1 + row * 0.3
        for nth, left in enumerate((0.16, 0.43, 0.7)):
            if row == rows - 1 and nth == 1:
                canvas.rectangle(left, -0.3, left + 0.15, 0.0, shade(shutter, 0.8))
                continue
            canvas.rectangle(left - 0.03, top, left + 0.16, top + 0.16, shutter)
            canvas.rectangle(left, top, left + 0.13, top + 0.16, _GLASS)


def _lighthouse(canvas: Canvas, rng: np.random.Generator) -> None:
    stripe = pick(rng, ((196, 40, 38), (36, 60, 110), (40, 40, 44)))
    white = (246, 244, 238)
    levels = 6
    for level in range(levels):
        low, high = level / levels, (level + 1) / levels
        a, b = 0.04 + 0.16 * low, 0.04 + 0.16 * high
        tone = stripe if level % 2 else white
        canvas.polygon(
            [(a, -2.1 * low), (1 - a, -2.1 * low), (1 - b, -2.1 * high), (b, -2.1 * high)], tone
        )
        canvas.polygon(
            [(0.64, -2.1 * low), (1 - a, -2.1 * low), (1 - b, -2.1 * high), (0.64, -2.1 * high)],
            shade(tone, 0.8),
        )
    canvas.rectangle(0.1, -2.2, 0.9, -2.1, (60, 60, 64))
    canvas.rectangle(0.26, -2.52, 0.74, -2.2, (250, 232, 160))
    canvas.polygon("M 0.18 -2.52 L 0.5 -2.84 0.82 -2.52", stripe)


def _tree(canvas: Canvas, rng: np.random.Generator) -> None:
    green = pick(rng, _GREENS)
    if chance(rng, 0.35):
        canvas.rectangle(0.45, -0.25, 0.55, 0.0, _WOODS[3])
        for tier in range(4):
            y = -0.15 - tier * 0.38
            half = 0.5 - tier * 0.1
            canvas.polygon(
                [(0.5 - half, y), (0.5, y - 0.62), (0.5 + half, y)], shade(green, 0.8 + 0.1 * tier)
            )
        return
    canvas.polygon("M 0.44 0 L 0.47 -0.6 0.55 -0.6 0.57 0", _WOODS[3])
    for _ in range(13):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.3)
        x, y = 0.5 + reach * math.cos(angle), -0.78 + reach * math.sin(angle) * 1.15
        tone = shade(green, 0.82 + 0.5 * (-y - 0.45))
        canvas.ellipse((x, y), (rng.uniform(0.13, 0.2), rng.uniform(0.12, 0.18)), tone, steps=9)


def _palm(canvas: Canvas, rng: np.random.Generator) -> None:
    lean = rng.uniform(-0.12, 0.2)
    crown = (0.5 + lean, -1.35)
    trunk = bezier((0.48, 0.0), (0.46, -0.8), crown)
    canvas.line(trunk, pick(rng, ((140, 108, 76), (120, 92, 66))), 0.075)
    green = pick(rng, _GREENS)
    for frond in range(9):
        angle = math.pi * (frond / 8 * 1.3 - 1.15)
        tip = (crown[0] + 0.5 * math.cos(angle), crown[1] + 0.42 * math.sin(angle) + 0.12)
        peak = (crown[0] + 0.32 * math.cos(angle), crown[1] + 0.45 * math.sin(angle) - 0.16)
        low = (peak[0], peak[1] + 0.14)
        canvas.polygon(
            [*bezier(crown, peak, tip), *bezier(tip, low, crown)],
            shade(green, rng.uniform(0.75, 1.15)),
        )


def _gull(canvas: Canvas, rng: np.random.Generator) -> None:
    grey = pick(rng, ((236, 238, 240), (70, 72, 80), (190, 194, 200)))
    lift = rng.uniform(0.16, 0.34)
    for side in (-1, 1):
        canvas.polygon(
            [
                *bezier(
                    (0.5, -0.12), (0.5 + side * 0.26, -0.2 - lift), (0.5 + side * 0.5, -lift + 0.06)
                ),
                *bezier(
                    (0.5 + side * 0.5, -lift + 0.06),
                    (0.5 + side * 0.24, -0.06 - lift),
                    (0.5, -0.02),
                ),
            ],
            shade(grey, 0.86 if side < 0 else 1.0),
        )
    canvas.ellipse((0.52, -0.08), (0.15, 0.06), grey, steps=12)
    canvas.polygon("M 0.64 -0.11 L 0.72 -0.08 0.64 -0.06", (226, 150, 50))


def _duck(canvas: Canvas, rng: np.random.Generator) -> None:
    body = pick(rng, ((146, 122, 94), (240, 240, 236), (92, 86, 84)))
    head = pick(rng, ((30, 96, 66), body, shade(body, 0.7)))
    canvas.polygon(
        "M 0 -0.34 Q 0.3 -0.2, 0.62 -0.36 L 0.84 -0.3 Q 0.86 0.04, 0.5 0.05 L 0.16 0.02", body
    )
    canvas.ellipse((0.42, -0.16), (0.24, 0.11), shade(body, 0.82), steps=14)
    canvas.line("M 0.7 -0.25 L 0.74 -0.55", head, 0.16)
    canvas.ellipse((0.76, -0.6), (0.12, 0.11), head, steps=14)
    canvas.polygon("M 0.86 -0.64 L 1 -0.58 0.86 -0.54", (232, 168, 50))


def _swan(canvas: Canvas, rng: np.random.Generator) -> None:
    white = pick(rng, ((246, 246, 244), (238, 236, 230)), spread=6)
    canvas.polygon(
        "M 0 -0.38 Q 0.3 -0.5, 0.66 -0.28 L 0.84 -0.24 Q 0.84 0.04, 0.5 0.05 L 0.14 0", white
    )
    canvas.polygon("M 0.06 -0.3 Q 0.4 -0.06, 0.66 -0.26", shade(white, 0.85))
    canvas.line(
        "M 0.74 -0.2 Q 0.98 -0.46, 0.78 -0.66 L 0.78 -0.66 Q 0.7 -0.8, 0.84 -0.82", white, 0.085
    )
    canvas.polygon("M 0.84 -0.87 L 0.99 -0.76 0.84 -0.77", (228, 120, 40))


def _balloon(canvas: Canvas, rng: np.random.Generator) -> None:
    first, second = pick(rng, _BRIGHT_SAILS), pick(rng, (*_SAILS, *_BRIGHT_SAILS))
    for gore, half in enumerate((0.5, 0.36, 0.22, 0.08)):
        tone = first if gore % 2 == 0 else second
        top = bezier((0.5 - half, -0.85), (0.5 - half, -1.38), (0.5, -1.38))
        right = bezier((0.5, -1.38), (0.5 + half, -1.38), (0.5 + half, -0.85))
        low = bezier((0.5 + half, -0.85), (0.5 + half * 0.9, -0.6), (0.5 + half * 0.24, -0.3))
        back = bezier((0.5 - half * 0.24, -0.3), (0.5 - half * 0.9, -0.6), (0.5 - half, -0.85))
        canvas.polygon([*top, *right, *low, *back], tone)
    for side in (-0.09, 0.09):
        canvas.line([(0.5 + side, -0.32), (0.5 + side * 0.8, -0.12)], (70, 60, 50), 0.012)
    canvas.rectangle(0.4, -0.14, 0.6, 0.0, _WOODS[0])


def _airplane(canvas: Canvas, rng: np.random.Generator) -> None:
    white = (240, 242, 244)
    livery = pick(rng, _BRIGHT_SAILS)
    canvas.polygon("M 0.02 -0.2 L 0 -0.38 0.08 -0.38 0.2 -0.2", livery)
    canvas.polygon(
        "M 0.02 -0.18 Q 0.5 -0.26, 0.86 -0.2 1.04 -0.14, 0.9 -0.1 L 0.3 -0.06 0.1 -0.13", white
    )
    canvas.line("M 0.08 -0.15 L 0.9 -0.15", livery, 0.02)
    canvas.polygon("M 0.42 -0.12 L 0.6 -0.12 0.34 0.1 0.26 0.1", shade(white, 0.75))
    canvas.polygon("M 0.05 -0.17 L 0.14 -0.17 0.06 -0.08 0 -0.08", shade(white, 0.75))


def _kite(canvas: Canvas, rng: np.random.Generator) -> None:
    first, second = pick(rng, _BRIGHT_SAILS), pick(rng, _BRIGHT_SAILS)
    canvas.polygon("M 0.5 -1.5 L 1 -0.95 0.5 -0.25 0 -0.95", first)
    canvas.polygon("M 0.5 -1.5 L 1 -0.95 0.5 -0.95", second)
    canvas.polygon("M 0 -0.95 L 0.5 -0.95 0.5 -0.25", shade(second, 0.85))
    canvas.line("M 0.5 -0.25 Q 0.8 -0.1, 0.55 0 L 0.55 0 Q 0.3 0.1, 0.5 0.2", first, 0.05)


def _parasol(canvas: Canvas, rng: np.random.Generator) -> None:
    first, second = pick(rng, _BRIGHT_SAILS), pick(rng, _SAILS)
    canvas.line("M 0.5 0 L 0.5 -0.85", _WOODS[2], 0.04)
    for panel in range(6):
        left, right = panel / 6, (panel + 1) / 6
        canvas.polygon(
            [
                (0.5, -0.95),
                (left, -0.6 - 0.2 * math.sin(math.pi * left)),
                (right, -0.6 - 0.2 * math.sin(math.pi * right)),
            ],
            second if panel % 2 else first,
        )
        canvas.polygon(
            [(0.5, -0.95), (left, -0.58), (right, -0.58)], second if panel % 2 else first
        )


def _standing_person(canvas: Canvas, rng: np.random.Generator) -> None:
    _person(canvas, rng, (0.5, 0.0), 2.4)


def _buoy(canvas: Canvas, rng: np.random.Generator) -> None:
    paint = pick(rng, ((206, 52, 44), (40, 128, 80), (236, 190, 50)))
    canvas.polygon("M 0.1 0.02 L 0 -0.25 1 -0.25 0.9 0.02", shade(paint, 0.75))
    canvas.polygon("M 0.22 -0.25 L 0.4 -1.1 0.6 -1.1 0.78 -0.25", paint)
    canvas.rectangle(0.34, -1.35, 0.66, -1.1, shade(paint, 1.2))


def _post(canvas: Canvas, rng: np.random.Generator) -> None:
    wood = pick(rng, _WOODS)
    canvas.rectangle(0.2, -2.0, 0.8, 0.05, wood)
    canvas.rectangle(0.2, -2.0, 0.42, 0.05, shade(wood, 0.75))
    canvas.ellipse((0.5, -2.0), (0.3, 0.12), shade(wood, 1.25), steps=12)


def _moored_yacht(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a moored yacht with its sail furled on the boom; marinas consist of these."""
    hull = pick(rng, _HULLS)
    _hull(canvas, hull, pick(rng, _BOTTOMS), stern_y=-0.15, bow_y=-0.2, rake=0.16, draught=0.03)
    canvas.polygon("M 0.28 -0.15 L 0.32 -0.25 0.6 -0.24 0.7 -0.16", (246, 246, 240))
    canvas.rectangle(0.36, -0.215, 0.56, -0.185, _GLASS)
    canvas.line([(0.5, -0.15), (0.5, -rng.uniform(0.7, 0.95))], _MAST, 0.03)
    canvas.line("M 0.49 -0.32 L 0.08 -0.3", pick(rng, _BRIGHT_SAILS), 0.06)


SAILBOAT = Sprite("Boat", _sailboat, 1.45, (0.17, 0.4), SceneLayer.WATER, 5, 3.0)
MOTORBOAT = Sprite("Boat", _motorboat, 0.65, (0.18, 0.5), SceneLayer.WATER, 2, 2.2)
TRAWLER = Sprite("Boat", _trawler, 0.85, (0.18, 0.46), SceneLayer.WATER, 2, 1.6)
DINGHY = Sprite("Boat", _dinghy, 0.5, (0.2, 0.44), SceneLayer.WATER, 2, 1.2)
SCHOONER = Sprite("Boat", _schooner, 1.0, (0.22, 0.5), SceneLayer.WATER, 2, 1.0)
CANOE = Sprite("Canoe", _canoe, 0.45, (0.24, 0.5), SceneLayer.WATER, 2, 1.4)
GONDOLA = Sprite("Gondola", _gondola, 0.55, (0.26, 0.5), SceneLayer.WATER, 1.5, 1.0)
BOATS = (SAILBOAT, MOTORBOAT, TRAWLER, DINGHY, SCHOONER, CANOE, GONDOLA)

MOORED_YACHT = Sprite("Boat", _moored_yacht, 1.1, (0.1, 0.15), SceneLayer.WATER, 1)

OTHERS = (
    Sprite("Jet ski", _jet_ski, 0.9, (0.09, 0.15), SceneLayer.WATER, 5, 0.25),
    Sprite("Duck", _duck, 0.8, (0.06, 0.13), SceneLayer.WATER, 2, 0.7),
    Sprite("Swan", _swan, 1.0, (0.07, 0.14), SceneLayer.WATER, 1, 0.6),
    Sprite("", _buoy, 1.5, (0.025, 0.05), SceneLayer.WATER, 8, 0.9),
    Sprite("", _post, 2.2, (0.015, 0.03), SceneLayer.WATER, 3, 0.5),
    Sprite("House", _house, 1.4, (0.09, 0.2), SceneLayer.BANK, 0, 1.4),
    Sprite("Tree", _tree, 2.0, (0.06, 0.14), SceneLayer.BANK, 2, 1.4),
    Sprite("Lighthouse", _lighthouse, 3.0, (0.035, 0.065), SceneLayer.BANK, 0, 0.5),
    Sprite("Car", _car, 0.6, (0.18, 0.36), SceneLayer.FOREGROUND, 0, 1.6),
    Sprite("Bus", _bus, 0.5, (0.28, 0.42), SceneLayer.FOREGROUND, 0, 0.35),
    Sprite("Palm tree", _palm, 2.1, (0.16, 0.3), SceneLayer.FOREGROUND, 4, 0.8),
    Sprite("Person", _standing_person, 2.6, (0.03, 0.055), SceneLayer.FOREGROUND, 2, 1.2),
    Sprite("Umbrella", _parasol, 1.1, (0.14, 0.24), SceneLayer.FOREGROUND, 10, 0.7),
    Sprite("Bird", _gull, 0.65, (0.05, 0.13), SceneLayer.SKY, 18, 2.0),
    Sprite("Balloon", _balloon, 1.5, (0.07, 0.15), SceneLayer.SKY, 3, 0.7),
    Sprite("Airplane", _airplane, 0.5, (0.1, 0.2), SceneLayer.SKY, 10, 0.6),
    Sprite("Kite", _kite, 1.7, (0.04, 0.08), SceneLayer.SKY, 20, 0.5),
)
