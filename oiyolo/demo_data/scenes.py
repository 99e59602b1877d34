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

    Mask = npt.NDArray[np.bool_]

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


@dataclass(frozen=True)
class _Placement:
    """A sprite's position in the image: the middle of its base line, and its width, in pixels."""

    sprite: Sprite
    x: float
    y: float
    width: float


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
    composition = _Composition(rng, background)
    for placement in _plan_placements(rng, background, size_wh, kind):
        composition.place(placement)
    extra: list[DrawnObject] = []
    if kind is SceneKind.MARINA:
        extra = [composition.draw_marina()]
    elif kind is SceneKind.POSTER:
        extra = [composition.draw_poster()]
    elif kind is SceneKind.ON_BOARD:
        extra = [composition.draw_bow()]
    objects = (*composition.visible_objects(), *extra)
    return Scene(_add_camera_effects(rng, composition.image), objects)


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


class _Composition:
    """An unfinished scene.

    Attributes:
        image: RGB image.
    """

    def __init__(self, rng: np.random.Generator, background: Background) -> None:
        pixels = np.clip(background.pixels, 0, 255).astype(np.uint8)
        self.image = Image.fromarray(pixels)
        self._rng = rng
        self._background = background
        # Number of the object that is visible at each pixel; 0 for the background.
        self._instance_map = np.zeros(pixels.shape[:2], np.int16)
        # Class name (empty for clutter) and area in pixels, including the part outside the image.
        self._names: dict[int, str] = {}
        self._full_area_px: dict[int, int] = {}
        self._truncated: set[int] = set()

    def place(self, placement: _Placement) -> None:
        """Paste a sprite unless too little of it or of another object would stay visible."""
        cutout = self._draw_sprite(placement)
        left_top = (round(placement.x) + cutout.left_px, round(placement.y) + cutout.top_px)
        mask = self._mask(cutout.image, left_top)
        area_px = int(np.count_nonzero(np.asarray(cutout.image.getchannel("A")) > _SOLID_ALPHA))
        inside_px = int(mask.sum())
        if inside_px < _MIN_VISIBLE_PLACED * area_px or self._would_hide_an_object(mask):
            return
        image = _apply_lighting(cutout.image, self._background, self._haze(placement))
        if placement.sprite.layer is SceneLayer.WATER:
            self._paste_reflection(image, (left_top[0], round(placement.y) - 1))
        self.image.paste(image, left_top, image)
        number = len(self._names) + 1
        self._names[number] = placement.sprite.name
        self._full_area_px[number] = area_px
        self._instance_map[mask] = number
        if inside_px < area_px:
            self._truncated.add(number)

    def _draw_sprite(self, placement: _Placement) -> Cutout:
        sprite, rng = placement.sprite, self._rng
        canvas = Canvas(
            placement.width,
            headroom=sprite.headroom,
            mirrored=chance(rng, 0.5),
            lean_deg=float(rng.uniform(-sprite.lean_deg, sprite.lean_deg)),
        )
        sprite.paint(canvas, rng)
        return canvas.cutout()

    def _mask(self, cutout: Image.Image, left_top: tuple[int, int]) -> Mask:
        """Return the pixels of the scene that a cutout at ``left_top`` covers."""
        alpha = Image.new("L", self.image.size)
        alpha.paste(cutout.getchannel("A"), left_top)
        return np.asarray(alpha) > _SOLID_ALPHA

    def _would_hide_an_object(self, mask: Mask) -> bool:
        """Return whether too little of another object would stay visible behind the mask."""
        visible = np.bincount(self._instance_map[~mask], minlength=len(self._names) + 1)
        behind = np.unique(self._instance_map[mask])
        return any(
            visible[number] < _MIN_VISIBLE_PLACED * self._full_area_px[number]
            for number in behind.tolist()
            if number
        )

    def _haze(self, placement: _Placement) -> float:
        if placement.sprite.layer is SceneLayer.SKY:
            return 0.15
        if placement.sprite.layer is SceneLayer.FOREGROUND:
            return 0.0
        horizon = self._background.horizon
        depth = (placement.y / self.image.height - horizon) / max(0.05, 1 - horizon)
        return float(np.clip(0.3 - 0.7 * depth, 0.0, 0.3))

    def _paste_reflection(self, image: Image.Image, left_top: tuple[int, int]) -> None:
        """Paste a cutout's reflection, cropped to the water."""
        reflection = _reflect(self._rng, image)
        if self._background.foreground is not None and self._background.water_bottom is not None:
            water_bottom_px = round((self._background.water_bottom + 0.01) * self.image.height)
            height = max(1, min(reflection.height, water_bottom_px - left_top[1]))
            reflection = reflection.crop((0, 0, reflection.width, height))
        self.image.paste(reflection, left_top, reflection)

    def visible_objects(self) -> list[DrawnObject]:
        """Return the labelled objects of which anything is visible."""
        objects = []
        for number, name in self._names.items():
            mask = self._instance_map == number
            visible_px = int(mask.sum())
            if name and visible_px:
                truncated = number in self._truncated
                is_whole = visible_px >= _OCCLUDED_BELOW * self._full_area_px[number]
                occluded = not truncated and not is_whole
                objects.append(_drawn_object(name, mask, occluded=occluded, truncated=truncated))
        return objects

    def draw_marina(self) -> DrawnObject:
        """Draw a row of small moored yachts, and return their single group-of box."""
        rng, (width, height), sprite = self._rng, self.image.size, sprites.MOORED_YACHT
        left, step = rng.uniform(0.12, 0.34) * width, rng.uniform(0.042, 0.056) * width
        count = int(rng.integers(7, 12))
        y = (self._background.horizon + rng.uniform(0.08, 0.2)) * height
        mask = np.zeros((height, width), bool)
        for nth in range(count):
            boat_width = rng.uniform(*sprite.width_range) * width
            boat_y = y + rng.uniform(-1, 1) * 0.012 * height
            placement = _Placement(sprite, left + nth * step, boat_y, boat_width)
            cutout = self._draw_sprite(placement)
            image = _apply_lighting(cutout.image, self._background, 0.12)
            left_top = (round(placement.x) + cutout.left_px, round(boat_y) + cutout.top_px)
            self._paste_reflection(image, (left_top[0], round(boat_y) - 1))
            self.image.paste(image, left_top, image)
            mask |= self._mask(image, left_top)
        # The yachts hide the objects behind them.
        self._instance_map[mask] = 0
        for number, area_px in self._full_area_px.items():
            visible = self._instance_map == number
            if visible.sum() < MIN_VISIBLE * area_px:
                self._instance_map[visible] = 0
        return _drawn_object("Boat", mask, occluded=True, group_of=True)

    def draw_poster(self) -> DrawnObject:
        """Draw a billboard with a boat painted on it, and return the boat as a depiction."""
        rng, (width, height) = self._rng, self.image.size
        board_w, board_h = round(0.34 * width), round(0.3 * height)
        left, top = round(rng.uniform(0.06, 0.58) * width), round(rng.uniform(0.42, 0.5) * height)
        right, bottom = left + board_w, top + board_h
        for post in (0.15, 0.8):
            x = left + round(post * board_w)
            self.image.paste((96, 72, 50), (x, bottom, x + 6, height))
        self.image.paste((244, 236, 214), (left, top, right, bottom))
        self.image.paste((70, 120, 170), (left + 4, top + 4, right - 4, bottom - 4))
        ground_y = top + round(board_h * 0.6)
        self.image.paste((240, 224, 180), (left + 4, top + 4, right - 4, ground_y))
        boat = sprites.SAILBOAT if chance(rng, 0.5) else sprites.TRAWLER
        canvas = Canvas(min(board_w * 0.6, 0.8 * board_h / boat.headroom), headroom=boat.headroom)
        boat.paint(canvas, rng)
        cutout = canvas.cutout()
        boat_x, boat_y = left + board_w // 2, top + round(board_h * 0.86)
        left_top = (boat_x + cutout.left_px, boat_y + cutout.top_px)
        self.image.paste(cutout.image, left_top, cutout.image)
        self._instance_map[top:bottom, left:right] = 0
        return _drawn_object("Boat", self._mask(cutout.image, left_top), depiction=True)

    def draw_bow(self) -> DrawnObject:
        """Draw the bow of the boat that carries the camera; return it as truncated, from inside."""
        rng, (width, height) = self._rng, self.image.size
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
        self.image.paste(cutout.image, left_top, cutout.image)
        mask = self._mask(cutout.image, left_top)
        self._instance_map[mask] = 0
        return _drawn_object("Boat", mask, truncated=True, inside=True)


def _drawn_object(name: str, mask: Mask, **flags: bool) -> DrawnObject:
    """Return the object that a mask shows, with its box and its four extreme points."""
    height, width = mask.shape
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
    return DrawnObject(name, xyxy, clicks, **flags)


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
