"""Scenes that loosely resemble photographs, with an exact box for every object.

A scene is a background with one to six objects, drawn from far to near. As if drawn by an
annotator, a box tightly encloses the visible part of its object.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.demo_data import sprites
from oiyolo.demo_data.background import paint_background
from oiyolo.demo_data.canvas import Canvas, chance
from oiyolo.demo_data.sprites import SceneLayer

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.demo_data.background import Background, Pixels
    from oiyolo.demo_data.canvas import Cutout
    from oiyolo.demo_data.sprites import Sprite

BOAT_FAMILY: Final = frozenset({"Boat", "Canoe", "Gondola"})
MIN_VISIBLE: Final = 0.55
# Placing a sprite requires slightly more than MIN_VISIBLE, because soft edges do not count.
_MIN_VISIBLE_PLACED: Final = 0.6
_MAX_OVERLAP: Final = 0.3
_OCCLUDED_BELOW: Final = 0.93
_SOLID_ALPHA: Final = 96
_SIZES_WH: Final = ((400, 300), (400, 300), (400, 300), (400, 266), (300, 400))
_MAX_ATTEMPTS: Final = 14
_GRAIN_SIDE: Final = 1024


class SceneKind(Enum):
    """The subject of a scene."""

    BOATS = "boats"
    MARINA = "marina"
    POSTER = "poster"
    ON_BOARD = "on-board"
    NO_BOATS = "no-boats"


@dataclass(frozen=True)
class DrawnObject:
    """One labelled object of a scene.

    Attributes:
        name: Class name in Open Images.
        xyxy: Left, top, right and bottom of the visible part, as fractions of the image.
        clicks: The topmost, leftmost, bottommost and rightmost visible points, each (x, y) in
            fractions of the image.
        occluded, truncated, group_of, depiction, inside: Open Images' flags of the box.
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
    """An upright image and its labelled objects."""

    image: Image.Image
    objects: tuple[DrawnObject, ...]
    kind: SceneKind


@dataclass(frozen=True)
class _Placement:
    """A sprite's position in the image: the middle of its base line, and its width, in pixels."""

    sprite: Sprite
    x: float
    y: float
    width: float


@dataclass
class _Composition:
    """An unfinished scene.

    Attributes:
        image: RGB image.
        instance_map: Number of the object that is visible at each pixel; 0 for the background.
        full_area_px: Area in pixels by object number, including the part outside the image.
        names: Class name by object number; empty for clutter.
        truncated: Numbers of the objects that extend beyond the image.
    """

    image: Image.Image
    instance_map: npt.NDArray[np.int16]
    full_area_px: dict[int, int]
    names: dict[int, str]
    truncated: set[int]


def draw_scene(rng: np.random.Generator, kind: SceneKind = SceneKind.BOATS) -> Scene:
    """Draw a scene.

    Args:
        rng: Random number generator, which determines everything: the same state of it produces
            the same pixels.
        kind: Subject of the scene.
    """
    size_wh = _SIZES_WH[int(rng.integers(len(_SIZES_WH)))]
    while True:
        # In rare cases none of the objects that the scene must have fits; it is drawn again then.
        scene = _try_scene(rng, kind, size_wh)
        has_boat = any(item.name in BOAT_FAMILY for item in scene.objects)
        if has_boat == (kind is not SceneKind.NO_BOATS) and scene.objects:
            return scene


def _try_scene(rng: np.random.Generator, kind: SceneKind, size_wh: tuple[int, int]) -> Scene:
    land = kind is SceneKind.NO_BOATS and chance(rng, 0.4)
    background = paint_background(
        rng,
        size_wh,
        water=not land,
        foreground=kind is SceneKind.POSTER
        or (kind is not SceneKind.ON_BOARD and chance(rng, 0.3)),
        bank=kind is SceneKind.MARINA or chance(rng, 0.5),
    )
    pixels = np.clip(background.pixels, 0, 255).astype(np.uint8)
    composition = _Composition(
        Image.fromarray(pixels), np.zeros((size_wh[1], size_wh[0]), np.int16), {}, {}, set()
    )
    for placement in _plan_placements(rng, background, size_wh, kind):
        _place_sprite(rng, composition, placement, background)
    extra: list[DrawnObject] = []
    if kind is SceneKind.MARINA:
        extra.extend(_draw_marina(rng, composition, background, size_wh))
    elif kind is SceneKind.POSTER:
        extra.extend(_draw_poster(rng, composition, size_wh))
    elif kind is SceneKind.ON_BOARD:
        extra.extend(_draw_bow(rng, composition, size_wh))
    objects = [*_visible_objects(composition, size_wh), *extra]
    return Scene(_add_camera_effects(rng, composition.image), tuple(objects), kind)


def _choose(rng: np.random.Generator, candidates: list[Sprite]) -> Sprite:
    weights = np.array([sprite.weight for sprite in candidates])
    return candidates[int(rng.choice(len(candidates), p=weights / weights.sum()))]


def _plan_placements(
    rng: np.random.Generator, background: Background, size_wh: tuple[int, int], kind: SceneKind
) -> list[_Placement]:
    """Return randomly chosen sprites and their positions, from far to near."""
    layers = {SceneLayer.SKY}
    if background.water_bottom is not None:
        layers.add(SceneLayer.WATER)
    if np.isfinite(background.bank_y).any():
        layers.add(SceneLayer.BANK)
    if background.foreground is not None:
        layers.add(SceneLayer.FOREGROUND)
    others = [sprite for sprite in sprites.OTHERS if sprite.layer in layers]
    count = int(rng.integers(1, 7))
    if kind is SceneKind.BOATS:
        boats = max(1, int(rng.binomial(count, 0.6)))
        chosen = [_choose(rng, list(sprites.BOATS)) for _ in range(boats)]
        chosen += [_choose(rng, others) for _ in range(count - boats)]
    else:
        chosen = [
            _choose(rng, others) for _ in range(max(2, count) if kind is SceneKind.NO_BOATS else 2)
        ]
    placements: list[_Placement] = []
    for sprite in chosen:
        for _ in range(_MAX_ATTEMPTS):
            placement = _random_placement(rng, sprite, background, size_wh)
            if all(_overlap(placement, other) < _MAX_OVERLAP for other in placements):
                placements.append(placement)
                break
    return sorted(
        placements,
        key=lambda placement: placement.y if placement.sprite.layer is not SceneLayer.SKY else -1.0,
    )


def _overlap(first: _Placement, second: _Placement) -> float:
    """Return the overlap of two sprites' frames, as a fraction of the smaller frame."""
    across = min(first.x + first.width / 2, second.x + second.width / 2) - max(
        first.x - first.width / 2, second.x - second.width / 2
    )
    down = min(first.y, second.y) - max(
        first.y - 0.8 * first.sprite.headroom * first.width,
        second.y - 0.8 * second.sprite.headroom * second.width,
    )
    smaller = min(
        0.8 * placement.sprite.headroom * placement.width**2 for placement in (first, second)
    )
    return max(0.0, across) * max(0.0, down) / smaller


def _random_placement(
    rng: np.random.Generator, sprite: Sprite, background: Background, size_wh: tuple[int, int]
) -> _Placement:
    width_px, height_px = size_wh
    low, high = sprite.width_range
    # Small sizes are more frequent than large ones, because there is more space in the distance.
    relative_width = low + (high - low) * rng.uniform() ** 1.3
    width = relative_width * width_px
    x = rng.uniform(0.04, 0.96) * width_px
    if sprite.layer is SceneLayer.WATER:
        bottom = background.water_bottom or 1.0
        nearness = np.clip((relative_width - 0.1) / 0.4 + rng.normal(0, 0.16), 0.06, 1.0)
        y = (
            background.horizon + 0.03 + (bottom - background.horizon - 0.03) * nearness
        ) * height_px
        max_height_px = 0.86 * height_px
        width = min(width, max_height_px / sprite.headroom)
        # Most boats are completely inside the image; the edge truncates a few.
        half = width / 2 / width_px
        if chance(rng, 0.88):
            x = rng.uniform(half + 0.01, 0.99 - half) * width_px
    elif sprite.layer is SceneLayer.BANK:
        columns = np.flatnonzero(np.isfinite(background.bank_y))
        column = int(columns[int(rng.integers(len(columns)))])
        x, y = float(column), float(background.bank_y[column])
    elif sprite.layer is SceneLayer.FOREGROUND:
        top, bottom = background.foreground or (0.8, 0.95)
        y = rng.uniform(top, bottom) * height_px
    else:
        y = rng.uniform(0.1, max(0.16, background.horizon * 0.95)) * height_px
    return _Placement(sprite, x, y, width)


def _draw_sprite(rng: np.random.Generator, placement: _Placement) -> Cutout:
    sprite = placement.sprite
    canvas = Canvas(
        placement.width,
        headroom=sprite.headroom,
        mirrored=chance(rng, 0.5),
        lean_deg=float(rng.uniform(-sprite.lean_deg, sprite.lean_deg)),
    )
    sprite.paint(canvas, rng)
    return canvas.cutout()


def _apply_lighting(image: Image.Image, background: Background, haze: float) -> Image.Image:
    """Return a cutout in the scene's lighting: tinted, slightly darker towards the bottom, hazy."""
    values = np.array(image)
    colours = values[..., :3].astype(np.float32)
    brightness = np.linspace(1 - haze, 0.85 * (1 - haze), image.height, dtype=np.float32)
    colours *= brightness[:, None, None] * np.array(background.lighting.tint, np.float32)
    colours += np.array(background.lighting.haze, np.float32) * np.float32(haze)
    values[..., :3] = np.minimum(colours, 255)
    return Image.fromarray(values)


def _reflect(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Return the reflection of a cutout in water: flipped, compressed, rippled and fading out."""
    height = max(2, round(image.height * 0.5))
    flipped = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(
        (image.width, height), Image.Resampling.BILINEAR
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


def _paste_reflection(
    rng: np.random.Generator,
    composition: _Composition,
    image: Image.Image,
    left_top: tuple[int, int],
    background: Background,
) -> None:
    """Paste a cutout's reflection at ``left_top``, cropped to the water."""
    reflection = _reflect(rng, image)
    if background.foreground is not None and background.water_bottom is not None:
        max_height = (
            round((background.water_bottom + 0.01) * composition.image.height) - left_top[1]
        )
        reflection = reflection.crop(
            (0, 0, reflection.width, max(1, min(reflection.height, max_height)))
        )
    composition.image.paste(reflection, left_top, reflection)


def _place_sprite(
    rng: np.random.Generator,
    composition: _Composition,
    placement: _Placement,
    background: Background,
) -> bool:
    """Paste a sprite unless too little of it or of another object would stay visible.

    Returns:
        Whether the sprite was pasted.
    """
    cutout = _draw_sprite(rng, placement)
    left, top = round(placement.x) + cutout.left_px, round(placement.y) + cutout.top_px
    solid = np.asarray(cutout.image.getchannel("A")) > _SOLID_ALPHA
    height, width = composition.instance_map.shape
    rows = slice(max(0, top), min(height, top + solid.shape[0]))
    columns = slice(max(0, left), min(width, left + solid.shape[1]))
    inside = solid[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    area_px = int(solid.sum())
    if inside.size == 0 or inside.sum() < _MIN_VISIBLE_PLACED * area_px:
        return False
    covered_px = np.bincount(
        composition.instance_map[rows, columns][inside], minlength=len(composition.full_area_px) + 1
    )
    for number, full_area_px in composition.full_area_px.items():
        if covered_px[number]:
            visible_px = np.count_nonzero(composition.instance_map == number) - covered_px[number]
            if visible_px < _MIN_VISIBLE_PLACED * full_area_px:
                return False
    haze = 0.0
    if placement.sprite.layer in {SceneLayer.WATER, SceneLayer.BANK}:
        depth = (placement.y / height - background.horizon) / max(0.05, 1 - background.horizon)
        haze = float(np.clip(0.3 - 0.7 * depth, 0.0, 0.3))
    elif placement.sprite.layer is SceneLayer.SKY:
        haze = 0.15
    image = _apply_lighting(cutout.image, background, haze)
    if placement.sprite.layer is SceneLayer.WATER:
        _paste_reflection(rng, composition, image, (left, round(placement.y) - 1), background)
    composition.image.paste(image, (left, top), image)
    number = len(composition.full_area_px) + 1
    composition.full_area_px[number] = area_px
    composition.names[number] = placement.sprite.name
    composition.instance_map[rows, columns][inside] = number
    if int(inside.sum()) < area_px:
        composition.truncated.add(number)
    return True


def _visible_objects(composition: _Composition, size_wh: tuple[int, int]) -> list[DrawnObject]:
    objects = []
    for number, name in composition.names.items():
        mask = composition.instance_map == number
        visible_px = int(mask.sum())
        if not name or not visible_px:
            continue
        xyxy, clicks = _box_and_clicks(mask, size_wh)
        objects.append(
            DrawnObject(
                name,
                xyxy,
                clicks,
                occluded=number not in composition.truncated
                and visible_px < _OCCLUDED_BELOW * composition.full_area_px[number],
                truncated=number in composition.truncated,
            )
        )
    return objects


def _box_and_clicks(
    mask: npt.NDArray[np.bool_], size_wh: tuple[int, int]
) -> tuple[tuple[float, float, float, float], tuple[tuple[float, float], ...]]:
    """Return the box around a mask and its four extreme points, in fractions of the image."""
    width, height = size_wh
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


def _draw_marina(
    rng: np.random.Generator,
    composition: _Composition,
    background: Background,
    size_wh: tuple[int, int],
) -> list[DrawnObject]:
    """Draw a row of small moored yachts, and return their single group-of box."""
    before = composition.instance_map.copy()
    width, height = size_wh
    left, step = rng.uniform(0.12, 0.34) * width, rng.uniform(0.042, 0.056) * width
    count = int(rng.integers(7, 12))
    y = (background.horizon + rng.uniform(0.08, 0.2)) * height
    mask = np.zeros_like(before, bool)
    for nth in range(count):
        sprite = sprites.MOORED_YACHT
        boat_width = rng.uniform(*sprite.width_range) * width
        placement = _Placement(
            sprite, left + nth * step, y + rng.uniform(-1, 1) * 0.012 * height, boat_width
        )
        cutout = _draw_sprite(rng, placement)
        image = _apply_lighting(cutout.image, background, 0.12)
        left_top = (round(placement.x) + cutout.left_px, round(placement.y) + cutout.top_px)
        _paste_reflection(
            rng, composition, image, (left_top[0], round(placement.y) - 1), background
        )
        composition.image.paste(image, left_top, image)
        alpha = Image.new("L", size_wh)
        alpha.paste(image.getchannel("A"), left_top)
        mask |= np.asarray(alpha) > _SOLID_ALPHA
    # The yachts hide the objects behind them.
    composition.instance_map[mask] = 0
    for number in composition.names:
        if (composition.instance_map == number).sum() < MIN_VISIBLE * composition.full_area_px[
            number
        ]:
            composition.instance_map[composition.instance_map == number] = 0
    xyxy, clicks = _box_and_clicks(mask, size_wh)
    return [DrawnObject("Boat", xyxy, clicks, occluded=True, group_of=True)]


def _draw_poster(
    rng: np.random.Generator, composition: _Composition, size_wh: tuple[int, int]
) -> list[DrawnObject]:
    """Draw a billboard with a boat painted on it, and return the boat as a depiction."""
    width, height = size_wh
    board_w, board_h = round(0.34 * width), round(0.3 * height)
    left, top = round(rng.uniform(0.06, 0.58) * width), round(rng.uniform(0.42, 0.5) * height)
    board = Image.new("RGB", (board_w, board_h), (244, 236, 214))
    board.paste((70, 120, 170), (4, 4, board_w - 4, board_h - 4))
    board.paste((240, 224, 180), (4, 4, board_w - 4, round(board_h * 0.6)))
    boat = sprites.SAILBOAT if chance(rng, 0.5) else sprites.TRAWLER
    boat_w = min(board_w * 0.6, 0.8 * board_h / boat.headroom)
    canvas = Canvas(boat_w, headroom=boat.headroom)
    boat.paint(canvas, rng)
    cutout = canvas.cutout()
    left_top = (board_w // 2 + cutout.left_px, round(board_h * 0.86) + cutout.top_px)
    board.paste(cutout.image, left_top, cutout.image)
    for post in (0.15, 0.8):
        x = left + round(post * board_w)
        composition.image.paste((96, 72, 50), (x, top + board_h, x + 6, height))
    composition.image.paste(board, (left, top))
    alpha = Image.new("L", size_wh)
    alpha.paste(cutout.image.getchannel("A"), (left + left_top[0], top + left_top[1]))
    composition.instance_map[top : top + board_h, left : left + board_w] = 0
    xyxy, clicks = _box_and_clicks(np.asarray(alpha) > _SOLID_ALPHA, size_wh)
    return [DrawnObject("Boat", xyxy, clicks, depiction=True)]


def _draw_bow(
    rng: np.random.Generator, composition: _Composition, size_wh: tuple[int, int]
) -> list[DrawnObject]:
    """Draw the bow of the boat that carries the camera; return it as truncated, from inside."""
    width, height = size_wh
    canvas = Canvas(0.8 * width, headroom=0.9)
    wood = (178, 122, 70)
    tip = rng.uniform(0.42, 0.58)
    rail = (238, 234, 222)
    canvas.polygon([(0.0, 0.0), (0.04, -0.12), (tip, -0.42), (0.96, -0.12), (1.0, 0.0)], rail)
    canvas.polygon([(0.08, 0.0), (0.12, -0.09), (tip, -0.37), (0.88, -0.09), (0.92, 0.0)], wood)
    for plank in range(1, 9):
        foot = 0.08 + 0.84 * plank / 9
        canvas.line([(foot, 0.0), (foot + (tip - foot) * 0.75, -0.28)], (128, 84, 46), 0.006)
    canvas.line([(tip, -0.4), (tip, -0.6)], rail, 0.012)
    cutout = canvas.cutout()
    left_top = (round(width * rng.uniform(0.46, 0.54)) + cutout.left_px, height + cutout.top_px)
    composition.image.paste(cutout.image, left_top, cutout.image)
    alpha = Image.new("L", size_wh)
    alpha.paste(cutout.image.getchannel("A"), left_top)
    mask = np.asarray(alpha) > _SOLID_ALPHA
    composition.instance_map[mask] = 0
    xyxy, clicks = _box_and_clicks(mask, size_wh)
    return [DrawnObject("Boat", xyxy, clicks, truncated=True, inside=True)]


@lru_cache(maxsize=8)
def _vignette(size_wh: tuple[int, int]) -> Pixels:
    x = np.linspace(-1, 1, size_wh[0], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, size_wh[1], dtype=np.float32)[:, None]
    return np.asarray((x * x + y * y)[..., None], np.float32)


@lru_cache(maxsize=1)
def _grain() -> Pixels:
    return np.random.default_rng(21).standard_normal((_GRAIN_SIDE, _GRAIN_SIDE), dtype=np.float32)


def _add_camera_effects(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Return the image with a random exposure, colour cast, grain and vignette."""
    values = np.array(image, dtype=np.float32)
    values *= (rng.uniform(0.93, 1.12) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    values *= 1 - np.float32(rng.uniform(0, 0.12)) * _vignette(image.size)
    left, top = rng.integers(0, _GRAIN_SIDE - 400, 2)
    grain = _grain()[top : top + image.height, left : left + image.width]
    values += (grain * np.float32(rng.uniform(1, 5)))[..., None]
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
