"""Scenes that look a little like photographs, with every object's box known.

A scene is a backdrop with one to six objects, far ones first. Boxes are tight around what is
visible of an object, as an annotator would draw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.demo_data import background, sprites
from oiyolo.demo_data.canvas import Pen, chance
from oiyolo.demo_data.sprites import Place

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.demo_data.background import Backdrop, Pixels
    from oiyolo.demo_data.canvas import Cutout
    from oiyolo.demo_data.sprites import Thing

BOAT_FAMILY: Final = frozenset({"Boat", "Canoe", "Gondola"})
LEAST_VISIBLE: Final = 0.55
# A little more is asked for when things are put into the picture: the soft edges do not count.
_LEAST_PLACED: Final = 0.6
_MOST_SHARED: Final = 0.3
_OCCLUDED_BELOW: Final = 0.93
_SOLID_ALPHA: Final = 96
_SHAPES_WH: Final = ((400, 300), (400, 300), (400, 300), (400, 266), (300, 400))
_TRIES: Final = 14
_GRAIN_SIDE: Final = 1024


class Kind(Enum):
    """What a scene is about."""

    BOATS = "boats"
    MARINA = "marina"
    POSTER = "poster"
    ON_BOARD = "on-board"
    NO_BOATS = "no-boats"


@dataclass(frozen=True)
class DrawnObject:
    """One labelled object of a scene.

    Attributes:
        name: The class name in Open Images.
        xyxy: Left, top, right, bottom of what is visible, as fractions of the image.
        clicks: The topmost, leftmost, bottommost and rightmost visible points, each (x, y) as
            fractions of the image.
        occluded, truncated, group_of, depiction, inside: Open Images' flags.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    clicks: tuple[tuple[float, float], ...]
    occluded: bool = False
    truncated: bool = False
    group_of: bool = False
    depiction: bool = False
    inside: bool = False


@dataclass(frozen=True)
class Scene:
    """A picture, upright, and what is in it."""

    image: Image.Image
    objects: tuple[DrawnObject, ...]
    kind: Kind


@dataclass(frozen=True)
class _Spot:
    """A thing with its place: the middle of its base line, and its width, all in pixels."""

    thing: Thing
    x: float
    y: float
    width: float


@dataclass
class _Stage:
    """A picture in the making.

    Attributes:
        image: RGB.
        owner: Which object is seen at each pixel, by number; 0 for the backdrop.
        whole_px: Each object's full area in pixels, also what lies outside the picture.
    """

    image: Image.Image
    owner: npt.NDArray[np.int16]
    whole_px: dict[int, int]
    names: dict[int, str]
    cut_off: set[int]


def draw_scene(rng: np.random.Generator, kind: Kind = Kind.BOATS) -> Scene:
    """Draw one scene.

    Args:
        rng: Decides everything; the same state gives the same pixels.
        kind: What the scene is about.
    """
    wh = _SHAPES_WH[int(rng.integers(len(_SHAPES_WH)))]
    while True:
        # Hardly ever, a picture has room for none of its boats: then another one is drawn.
        scene = _try_scene(rng, kind, wh)
        has_boat = any(drawn.name in BOAT_FAMILY for drawn in scene.objects)
        if has_boat == (kind is not Kind.NO_BOATS) and scene.objects:
            return scene


def _try_scene(rng: np.random.Generator, kind: Kind, wh: tuple[int, int]) -> Scene:
    land = kind is Kind.NO_BOATS and chance(rng, 0.4)
    ground = background.paint(
        rng,
        wh,
        water=not land,
        front=kind is Kind.POSTER or (kind is not Kind.ON_BOARD and chance(rng, 0.3)),
        bank=kind is Kind.MARINA or chance(rng, 0.5),
    )
    picture = np.clip(ground.pixels, 0, 255).astype(np.uint8)
    stage = _Stage(Image.fromarray(picture), np.zeros((wh[1], wh[0]), np.int16), {}, {}, set())
    for spot in _plan(rng, ground, wh, kind):
        _place(rng, stage, spot, ground)
    extra: list[DrawnObject] = []
    if kind is Kind.MARINA:
        extra.extend(_marina(rng, stage, ground, wh))
    elif kind is Kind.POSTER:
        extra.extend(_poster(rng, stage, wh))
    elif kind is Kind.ON_BOARD:
        extra.extend(_own_bow(rng, stage, wh))
    objects = [*_objects(stage, wh), *extra]
    return Scene(_developed(rng, stage.image), tuple(objects), kind)


def _choose(rng: np.random.Generator, choices: list[Thing]) -> Thing:
    weights = np.array([thing.weight for thing in choices])
    return choices[int(rng.choice(len(choices), p=weights / weights.sum()))]


def _plan(
    rng: np.random.Generator, ground: Backdrop, wh: tuple[int, int], kind: Kind
) -> list[_Spot]:
    """Choose what is in the picture and where, far things first."""
    places = {Place.SKY}
    if ground.water is not None:
        places.add(Place.WATER)
    if np.isfinite(ground.bank).any():
        places.add(Place.BANK)
    if ground.front is not None:
        places.add(Place.FRONT)
    others = [thing for thing in sprites.OTHERS if thing.place in places]
    count = int(rng.integers(1, 7))
    if kind is Kind.BOATS:
        boats = max(1, int(rng.binomial(count, 0.6)))
        chosen = [_choose(rng, list(sprites.BOATS)) for _ in range(boats)]
        chosen += [_choose(rng, others) for _ in range(count - boats)]
    else:
        chosen = [
            _choose(rng, others) for _ in range(max(2, count) if kind is Kind.NO_BOATS else 2)
        ]
    spots: list[_Spot] = []
    for thing in chosen:
        for _ in range(_TRIES):
            spot = _spot(rng, thing, ground, wh)
            if all(_shared(spot, other) < _MOST_SHARED for other in spots):
                spots.append(spot)
                break
    return sorted(spots, key=lambda spot: spot.y if spot.thing.place is not Place.SKY else -1.0)


def _shared(first: _Spot, second: _Spot) -> float:
    """Give the shared part of two things' frames, as a share of the smaller frame."""
    across = min(first.x + first.width / 2, second.x + second.width / 2) - max(
        first.x - first.width / 2, second.x - second.width / 2
    )
    down = min(first.y, second.y) - max(
        first.y - 0.8 * first.thing.up * first.width,
        second.y - 0.8 * second.thing.up * second.width,
    )
    smaller = min(0.8 * spot.thing.up * spot.width**2 for spot in (first, second))
    return max(0.0, across) * max(0.0, down) / smaller


def _spot(rng: np.random.Generator, thing: Thing, ground: Backdrop, wh: tuple[int, int]) -> _Spot:
    width_px, height_px = wh
    low, high = thing.width
    # More of the small sizes than of the large ones, as far away there is more room.
    share = low + (high - low) * rng.uniform() ** 1.3
    width = share * width_px
    x = rng.uniform(0.04, 0.96) * width_px
    if thing.place is Place.WATER:
        floor = ground.water or 1.0
        nearness = np.clip((share - 0.1) / 0.4 + rng.normal(0, 0.16), 0.06, 1.0)
        y = (ground.horizon + 0.03 + (floor - ground.horizon - 0.03) * nearness) * height_px
        tallest = 0.86 * height_px
        width = min(width, tallest / thing.up)
        # Boats mostly lie well inside the picture; a few are cut off by its edge.
        half = width / 2 / width_px
        if chance(rng, 0.88):
            x = rng.uniform(half + 0.01, 0.99 - half) * width_px
    elif thing.place is Place.BANK:
        columns = np.flatnonzero(np.isfinite(ground.bank))
        column = int(columns[int(rng.integers(len(columns)))])
        x, y = float(column), float(ground.bank[column])
    elif thing.place is Place.FRONT:
        top, bottom = ground.front or (0.8, 0.95)
        y = rng.uniform(top, bottom) * height_px
    else:
        y = rng.uniform(0.1, max(0.16, ground.horizon * 0.95)) * height_px
    return _Spot(thing, x, y, width)


def _drawn(rng: np.random.Generator, spot: _Spot) -> Cutout:
    thing = spot.thing
    pen = Pen(
        spot.width,
        up=thing.up,
        mirrored=chance(rng, 0.5),
        lean_deg=float(rng.uniform(-thing.lean_deg, thing.lean_deg)),
    )
    thing.paint(pen, rng)
    return pen.cutout()


def _lit(picture: Image.Image, ground: Backdrop, haze: float) -> Image.Image:
    """Give a cutout in the scene's light: tinted, a little darker below, hazy when far."""
    values = np.array(picture)
    colours = values[..., :3].astype(np.float32)
    fall = np.linspace(1 - haze, 0.85 * (1 - haze), picture.height, dtype=np.float32)
    colours *= fall[:, None, None] * np.array(ground.light.tint, np.float32)
    colours += np.array(ground.light.haze, np.float32) * np.float32(haze)
    values[..., :3] = np.minimum(colours, 255)
    return Image.fromarray(values)


def _reflection(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Give what the water shows of a cutout: upside down, squat, rippled, fading."""
    height = max(2, round(picture.height * 0.5))
    flipped = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(
        (picture.width, height), Image.Resampling.BILINEAR
    )
    values = np.array(flipped)
    rows = np.arange(height)
    shift = np.round(
        (0.6 + rows * 0.05) * np.sin(rows / rng.uniform(1.2, 2.0) + rng.uniform(0, 6))
    ).astype(int)
    columns = np.clip(np.arange(values.shape[1])[None, :] + shift[:, None], 0, values.shape[1] - 1)
    values = np.take_along_axis(values, columns[..., None], axis=1)
    fade = np.linspace(rng.uniform(0.3, 0.5), 0.0, height)
    values[..., 3] = (values[..., 3] * fade[:, None]).astype(np.uint8)
    return Image.fromarray(values)


def _mirror_in_water(
    rng: np.random.Generator,
    stage: _Stage,
    picture: Image.Image,
    at: tuple[int, int],
    ground: Backdrop,
) -> None:
    """Paste a cutout's reflection at ``at``, as far as there is water."""
    mirrored = _reflection(rng, picture)
    if ground.front is not None and ground.water is not None:
        room = round((ground.water + 0.01) * stage.image.height) - at[1]
        mirrored = mirrored.crop((0, 0, mirrored.width, max(1, min(mirrored.height, room))))
    stage.image.paste(mirrored, at, mirrored)


def _place(rng: np.random.Generator, stage: _Stage, spot: _Spot, ground: Backdrop) -> bool:
    """Put a thing into the picture, unless it would hide too much of another or of itself."""
    cutout = _drawn(rng, spot)
    left, top = round(spot.x) + cutout.left_px, round(spot.y) + cutout.top_px
    solid = np.asarray(cutout.picture.getchannel("A")) > _SOLID_ALPHA
    height, width = stage.owner.shape
    rows = slice(max(0, top), min(height, top + solid.shape[0]))
    columns = slice(max(0, left), min(width, left + solid.shape[1]))
    inside = solid[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    whole_px = int(solid.sum())
    if inside.size == 0 or inside.sum() < _LEAST_PLACED * whole_px:
        return False
    covered = np.bincount(stage.owner[rows, columns][inside], minlength=len(stage.whole_px) + 1)
    for number, its_whole_px in stage.whole_px.items():
        if covered[number]:
            left_px = np.count_nonzero(stage.owner == number) - covered[number]
            if left_px < _LEAST_PLACED * its_whole_px:
                return False
    far = 0.0
    if spot.thing.place in {Place.WATER, Place.BANK}:
        depth = (spot.y / height - ground.horizon) / max(0.05, 1 - ground.horizon)
        far = float(np.clip(0.3 - 0.7 * depth, 0.0, 0.3))
    elif spot.thing.place is Place.SKY:
        far = 0.15
    picture = _lit(cutout.picture, ground, far)
    if spot.thing.place is Place.WATER:
        _mirror_in_water(rng, stage, picture, (left, round(spot.y) - 1), ground)
    stage.image.paste(picture, (left, top), picture)
    number = len(stage.whole_px) + 1
    stage.whole_px[number] = whole_px
    stage.names[number] = spot.thing.name
    stage.owner[rows, columns][inside] = number
    if int(inside.sum()) < whole_px:
        stage.cut_off.add(number)
    return True


def _objects(stage: _Stage, wh: tuple[int, int]) -> list[DrawnObject]:
    objects = []
    for number, name in stage.names.items():
        mask = stage.owner == number
        seen_px = int(mask.sum())
        if not name or not seen_px:
            continue
        xyxy, clicks = _extent(mask, wh)
        objects.append(
            DrawnObject(
                name,
                xyxy,
                clicks,
                occluded=number not in stage.cut_off
                and seen_px < _OCCLUDED_BELOW * stage.whole_px[number],
                truncated=number in stage.cut_off,
            )
        )
    return objects


def _extent(
    mask: npt.NDArray[np.bool_], wh: tuple[int, int]
) -> tuple[tuple[float, float, float, float], tuple[tuple[float, float], ...]]:
    """Give the box around a mask and its four extreme points, as fractions of the image."""
    width, height = wh
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    xyxy = (
        float(left / width),
        float(top / height),
        float((right + 1) / width),
        float((bottom + 1) / height),
    )
    at_top, at_bottom = np.flatnonzero(mask[top])[0], np.flatnonzero(mask[bottom])[0]
    at_left, at_right = np.flatnonzero(mask[:, left])[0], np.flatnonzero(mask[:, right])[0]
    clicks = (
        (float((at_top + 0.5) / width), xyxy[1]),
        (xyxy[0], float((at_left + 0.5) / height)),
        (float((at_bottom + 0.5) / width), xyxy[3]),
        (xyxy[2], float((at_right + 0.5) / height)),
    )
    return xyxy, clicks


def _marina(
    rng: np.random.Generator, stage: _Stage, ground: Backdrop, wh: tuple[int, int]
) -> list[DrawnObject]:
    """Moor a crowd of small yachts side by side: one group-of box."""
    before = stage.owner.copy()
    width, height = wh
    left, step = rng.uniform(0.12, 0.34) * width, rng.uniform(0.042, 0.056) * width
    count = int(rng.integers(7, 12))
    y = (ground.horizon + rng.uniform(0.08, 0.2)) * height
    mask = np.zeros_like(before, bool)
    for nth in range(count):
        thing = sprites.MOORED
        boat_width = rng.uniform(*thing.width) * width
        spot = _Spot(thing, left + nth * step, y + rng.uniform(-1, 1) * 0.012 * height, boat_width)
        cutout = _drawn(rng, spot)
        picture = _lit(cutout.picture, ground, 0.12)
        at = (round(spot.x) + cutout.left_px, round(spot.y) + cutout.top_px)
        _mirror_in_water(rng, stage, picture, (at[0], round(spot.y) - 1), ground)
        stage.image.paste(picture, at, picture)
        layer = Image.new("L", wh)
        layer.paste(picture.getchannel("A"), at)
        mask |= np.asarray(layer) > _SOLID_ALPHA
    # The crowd lies in front of what was placed before it.
    stage.owner[mask] = 0
    for number in stage.names:
        if (stage.owner == number).sum() < LEAST_VISIBLE * stage.whole_px[number]:
            stage.owner[stage.owner == number] = 0
    xyxy, clicks = _extent(mask, wh)
    return [DrawnObject("Boat", xyxy, clicks, occluded=True, group_of=True)]


def _poster(rng: np.random.Generator, stage: _Stage, wh: tuple[int, int]) -> list[DrawnObject]:
    """Put up a board with a painted boat on it: a depiction."""
    width, height = wh
    board_w, board_h = round(0.34 * width), round(0.3 * height)
    left, top = round(rng.uniform(0.06, 0.58) * width), round(rng.uniform(0.42, 0.5) * height)
    board = Image.new("RGB", (board_w, board_h), (244, 236, 214))
    board.paste((70, 120, 170), (4, 4, board_w - 4, board_h - 4))
    board.paste((240, 224, 180), (4, 4, board_w - 4, round(board_h * 0.6)))
    boat = sprites.SAILBOAT if chance(rng, 0.5) else sprites.TRAWLER
    boat_w = min(board_w * 0.6, 0.8 * board_h / boat.up)
    pen = Pen(boat_w, up=boat.up)
    boat.paint(pen, rng)
    cutout = pen.cutout()
    at = (board_w // 2 + cutout.left_px, round(board_h * 0.86) + cutout.top_px)
    board.paste(cutout.picture, at, cutout.picture)
    for post in (0.15, 0.8):
        x = left + round(post * board_w)
        stage.image.paste((96, 72, 50), (x, top + board_h, x + 6, height))
    stage.image.paste(board, (left, top))
    layer = Image.new("L", wh)
    layer.paste(cutout.picture.getchannel("A"), (left + at[0], top + at[1]))
    stage.owner[top : top + board_h, left : left + board_w] = 0
    xyxy, clicks = _extent(np.asarray(layer) > _SOLID_ALPHA, wh)
    return [DrawnObject("Boat", xyxy, clicks, depiction=True)]


def _own_bow(rng: np.random.Generator, stage: _Stage, wh: tuple[int, int]) -> list[DrawnObject]:
    """Show the bow of the boat that the picture is taken from: inside, truncated."""
    width, height = wh
    pen = Pen(0.8 * width, up=0.9)
    wood = (178, 122, 70)
    tip = rng.uniform(0.42, 0.58)
    rail = (238, 234, 222)
    pen.polygon([(0.0, 0.0), (0.04, -0.12), (tip, -0.42), (0.96, -0.12), (1.0, 0.0)], rail)
    pen.polygon([(0.08, 0.0), (0.12, -0.09), (tip, -0.37), (0.88, -0.09), (0.92, 0.0)], wood)
    for plank in range(1, 9):
        foot = 0.08 + 0.84 * plank / 9
        pen.line([(foot, 0.0), (foot + (tip - foot) * 0.75, -0.28)], (128, 84, 46), 0.006)
    pen.line([(tip, -0.4), (tip, -0.6)], rail, 0.012)
    cutout = pen.cutout()
    at = (round(width * rng.uniform(0.46, 0.54)) + cutout.left_px, height + cutout.top_px)
    stage.image.paste(cutout.picture, at, cutout.picture)
    layer = Image.new("L", wh)
    layer.paste(cutout.picture.getchannel("A"), at)
    mask = np.asarray(layer) > _SOLID_ALPHA
    stage.owner[mask] = 0
    xyxy, clicks = _extent(mask, wh)
    return [DrawnObject("Boat", xyxy, clicks, truncated=True, inside=True)]


@lru_cache(maxsize=8)
def _vignette(wh: tuple[int, int]) -> Pixels:
    x = np.linspace(-1, 1, wh[0], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, wh[1], dtype=np.float32)[:, None]
    return np.asarray((x * x + y * y)[..., None], np.float32)


@lru_cache(maxsize=1)
def _grain() -> Pixels:
    return np.random.default_rng(21).standard_normal((_GRAIN_SIDE, _GRAIN_SIDE), dtype=np.float32)


def _developed(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Give the picture as a camera would: its own exposure and colour cast, grain, dark corners."""
    values = np.array(image, dtype=np.float32)
    values *= (rng.uniform(0.93, 1.12) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    values *= 1 - np.float32(rng.uniform(0, 0.12)) * _vignette(image.size)
    left, top = rng.integers(0, _GRAIN_SIDE - 400, 2)
    grain = _grain()[top : top + image.height, left : left + image.width]
    values += (grain * np.float32(rng.uniform(1, 5)))[..., None]
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
