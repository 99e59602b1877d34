"""Skies, seas, hills and shores: what a scene's objects stand in front of.

Everything is painted straight at the picture's size, as float32 arrays of shape (height, width, 3)
with values in 0..255, RGB. Edges between surfaces are one pixel soft.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from oiyolo.demo_data.canvas import chance

if TYPE_CHECKING:
    from oiyolo.demo_data.canvas import RGB

Pixels = npt.NDArray[np.float32]

_CLOTH_SIDE: Final = 512
_CLOTH_FINENESS: Final = 4
_WHITE_CAPS_FROM: Final = 11.0


@dataclass(frozen=True)
class Light:
    """The colours of an hour and a weather.

    Attributes:
        name: For people.
        zenith, haze: The sky's colour at the top of the picture and at the horizon.
        far, near: The water's colour at the horizon and at the bottom of the picture.
        tint: What the light multiplies objects and land by.
        cloud: The clouds' colour.
        sun: The sun's colour, or ``None`` where it is hidden or behind the camera.
    """

    name: str
    zenith: RGB
    haze: RGB
    far: RGB
    near: RGB
    tint: tuple[float, float, float]
    cloud: RGB
    sun: RGB | None


LIGHTS: Final = (
    Light("noon", (62, 122, 196), (182, 212, 232), (96, 152, 186), (28, 82, 122),
          (1.0, 1.0, 1.0), (250, 251, 252), None),
    Light("lagoon", (70, 150, 214), (206, 230, 236), (92, 190, 196), (28, 132, 150),
          (1.04, 1.03, 0.98), (252, 252, 250), None),
    Light("overcast", (152, 164, 178), (212, 216, 218), (150, 164, 170), (82, 104, 116),
          (0.93, 0.95, 0.97), (232, 234, 236), None),
    Light("haze", (150, 178, 200), (226, 224, 214), (176, 192, 194), (98, 130, 142),
          (0.96, 0.95, 0.92), (242, 240, 234), (255, 250, 232)),
    Light("morning", (112, 156, 206), (250, 222, 190), (196, 190, 184), (66, 98, 128),
          (1.04, 0.98, 0.9), (255, 236, 214), (255, 244, 214)),
    Light("sunset", (72, 78, 136), (250, 166, 96), (226, 150, 104), (62, 62, 96),
          (0.96, 0.78, 0.66), (246, 150, 116), (255, 226, 160)),
    Light("dusk", (42, 56, 108), (206, 150, 158), (140, 122, 154), (34, 46, 84),
          (0.68, 0.66, 0.78), (150, 116, 146), None),
    Light("storm", (92, 106, 124), (190, 198, 194), (134, 150, 150), (54, 84, 90),
          (0.88, 0.9, 0.92), (140, 146, 156), None),
)  # fmt: skip
_OFTEN: Final = (0.21, 0.2, 0.1, 0.12, 0.14, 0.11, 0.06, 0.06)


@dataclass(frozen=True)
class Backdrop:
    """A painted backdrop and where things can be put on it.

    Attributes:
        pixels: Shape (height, width, 3).
        light: Its light.
        horizon: Where the water begins, as a fraction of the height.
        water: The floor of the water, as a fraction of the height: below it lies the front.
            ``None`` where there is no water.
        bank: For each column, the y in pixels on which things of the far bank stand; NaN where
            there is no bank.
        front: The y range, as fractions of the height, on which things in front stand; ``None``
            where there is nothing but water in front.
    """

    pixels: Pixels
    light: Light
    horizon: float
    water: float | None
    bank: npt.NDArray[np.float32]
    front: tuple[float, float] | None


def smooth_noise(rng: np.random.Generator, wh: tuple[int, int], cells: tuple[int, int]) -> Pixels:
    """Give smooth random values in about -1..1, shape (height, width).

    Args:
        rng: The random numbers.
        wh: Width and height in pixels.
        cells: How many random values there are across and down.
    """
    coarse = rng.uniform(-1.0, 1.0, (cells[1], cells[0])).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(wh, Image.Resampling.BICUBIC))


@lru_cache(maxsize=1)
def _cloth() -> Pixels:
    """Give one endless fractal texture, mean 0, deviation 1, four samples to its unit of length.

    Skies and seas take differently stretched pieces of it: making one for each picture would cost
    more than everything else.
    """
    rng = np.random.default_rng(20)
    frequencies = np.fft.fftfreq(_CLOTH_SIDE)
    radius = np.hypot(frequencies[:, None], frequencies[None, :])
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((_CLOTH_SIDE, _CLOTH_SIDE))) * radius**-1.35
    spectrum[0, 0] = 0.0
    cloth = np.fft.ifft2(spectrum).real
    # Finer than it is detailed, so that a stretched piece of it shows no steps. The margin makes
    # the resampling see the texture as endless, too.
    margin = 4
    coarse = np.pad((cloth / cloth.std()).astype(np.float32), margin, mode="wrap")
    side = (_CLOTH_SIDE + 2 * margin) * _CLOTH_FINENESS
    fine = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    cut = margin * _CLOTH_FINENESS
    return np.ascontiguousarray(np.asarray(fine)[cut:-cut, cut:-cut])


def _look_up(across: Pixels, down: Pixels) -> Pixels:
    """Give the texture at places in its own units; the two arrays are broadcast together."""
    cloth = _cloth()
    fine = np.float32(_CLOTH_FINENESS)
    rows = (down * fine).astype(np.int32) % cloth.shape[0]
    columns = (across * fine).astype(np.int32) % cloth.shape[1]
    return np.asarray(cloth[rows, columns])


def _ramp(first: RGB, last: RGB, shares: Pixels) -> Pixels:
    a, b = np.array(first, np.float32), np.array(last, np.float32)
    return a + shares[:, None] * (b - a)


def _lay(pixels: Pixels, over: Pixels, coverage: Pixels) -> None:
    """Lay a colour or picture over part of ``pixels``; ``coverage`` has shape (height, width)."""
    change = over - pixels
    change *= coverage[..., None]
    pixels += change


def _lay_below(pixels: Pixels, edge_y: Pixels, over: Pixels) -> None:
    """Lay ``over`` on everything below the line ``edge_y`` (pixels, one value a column)."""
    top = min(max(0, int(edge_y.min()) - 1), pixels.shape[0] - 1)
    rows = np.arange(top, pixels.shape[0], dtype=np.float32)
    coverage = np.clip(rows[:, None] - edge_y[None, :] + 0.5, 0.0, 1.0)
    part = over if over.ndim == 1 else over[top:]
    _lay(pixels[top:], part, coverage)


def _skyline(
    rng: np.random.Generator, width: int, base_y: float, height: float, roughness: float
) -> Pixels:
    """Give a hilly line, one y in pixels for each column."""
    line = np.zeros(width, np.float32)
    size = 1.0
    for cells in (3, 6, 12, 26, 60):
        values = rng.uniform(-0.3, 1.0, cells + 1)
        line += np.float32(size) * np.interp(
            np.linspace(0, cells, width), np.arange(cells + 1), values
        ).astype(np.float32)
        size *= roughness
    return np.asarray(base_y - height * np.maximum(line, 0.02), dtype=np.float32)


def _sky(
    rng: np.random.Generator, pixels: Pixels, light: Light, horizon_y: float, sun_x: float
) -> None:
    height, width = pixels.shape[:2]
    below = max(2, int(horizon_y) + 2)
    rows = np.linspace(0.0, 1.0, below, dtype=np.float32)
    sky = np.broadcast_to(_ramp(light.zenith, light.haze, rows**1.3)[:, None], (below, width, 3))
    sky = np.array(sky)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    vanishing = np.float32(rng.uniform(-0.5, 0.5))
    sun_y = rng.uniform(0.1, 0.85)
    if light.sun is not None:
        distance = np.hypot((across - sun_x)[None, :], (rows - sun_y)[:, None] * below / width)
        sun = np.array(light.sun, np.float32)
        _lay(sky, sun, np.exp(-(distance / 0.16)) * 0.75)
        _lay(sky, sun, np.clip((0.03 - distance) * 200, 0, 1))
    else:
        # Away from the sun one side of the sky is still the brighter one.
        sky *= 1.0 + np.float32(0.4 * sun_x) * across[None, :, None]
    # Clouds are seen from below: they crowd and flatten towards the horizon, wide angles more so.
    depth = 1.0 / (1.12 - rows)
    zoom = rng.uniform(18, 60)
    spread = depth ** np.float32(rng.uniform(0.05, 0.7))
    offset = rng.uniform(0, _CLOTH_SIDE, 2)
    field = _look_up(
        np.float32(offset[0])
        + (across - vanishing)[None, :] * np.float32(zoom * 3.6) * spread[:, None],
        np.float32(offset[1]) + np.float32(zoom) * depth[:, None],
    )
    field += np.float32(rng.uniform(0.9, 2.0)) * smooth_noise(rng, (width, below), (6, 4))
    cover = np.float32(rng.uniform(-0.9, 1.2))
    field -= cover
    coverage = np.clip(
        field * np.float32(rng.uniform(0.5, 1.1)), 0.0, np.float32(rng.uniform(0.75, 0.97))
    )
    lit = np.array(light.cloud, np.float32)
    shadow = 0.74 * lit + 0.1 * np.array(light.zenith, np.float32)
    field -= np.float32(0.7)
    thick = np.clip(field * np.float32(0.6), 0.0, 1.0)[..., None]
    _lay(sky, lit + thick * (shadow - lit), coverage)
    pixels[:below] = sky[: min(below, height)]


def _sea(
    rng: np.random.Generator, pixels: Pixels, light: Light, horizon_y: float, sun_x: float
) -> None:
    height, width = pixels.shape[:2]
    top = int(horizon_y)
    rows = np.linspace(0.0, 1.0, height - top, dtype=np.float32)
    sea = np.array(
        np.broadcast_to(_ramp(light.far, light.near, rows**0.7)[:, None], (len(rows), width, 3))
    )
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    # Wind draws broad patches on the water, which also mirrors clouds.
    shine = smooth_noise(rng, (width, len(rows)), (5, 6)) * np.float32(rng.uniform(10, 34))
    near = rows[:, None] + np.float32(0.06)
    choppiness = rng.uniform(4, 17)
    waves = np.zeros_like(shine)
    for zoom, strength in ((26.0, 1.0), (61.0, 0.6)):
        offset = rng.uniform(0, _CLOTH_SIDE, 2)
        waves += np.float32(strength) * _look_up(
            np.float32(offset[0]) + across[None, :] * np.float32(zoom) / near,
            np.float32(offset[1]) - np.float32(zoom * 2.6) / (near + np.float32(0.05)),
        )
    shine += waves * (np.float32(choppiness) * (np.float32(0.35) + rows[:, None]))
    sea += shine[..., None]
    if light.sun is not None:
        # The sun's path on the water lies below the sun and widens towards the viewer.
        beside = (across[None, :] - np.float32(sun_x)) / (np.float32(0.05) + np.float32(0.1) * near)
        glitter = (np.clip(waves, 0.2, 1.8) - np.float32(0.2)) * np.exp(-(beside * beside))
        _lay(
            sea,
            np.array(light.sun, np.float32),
            np.minimum(glitter * np.float32(0.7), np.float32(0.9)),
        )
    elif choppiness > _WHITE_CAPS_FROM:
        caps = np.clip((waves - np.float32(2.6)) * np.float32(0.5), 0.0, 0.8)
        _lay(sea, np.array((244, 247, 248), np.float32), caps)
    pixels[top:] = sea


def _tinted(colour: tuple[float, float, float], light: Light, haze: float) -> Pixels:
    """Give a colour as it looks in that light through some haze (0 none, 1 only haze)."""
    seen = np.array(colour, np.float32) * np.array(light.tint, np.float32)
    return np.asarray(seen * (1 - haze) + np.array(light.haze, np.float32) * haze, np.float32)


_HILLS: Final = ((86, 104, 84), (104, 110, 96), (72, 96, 66), (120, 106, 84), (88, 96, 112))
_GROUNDS: Final = (
    (214, 190, 146),
    (190, 172, 140),
    (150, 148, 144),
    (104, 126, 70),
    (126, 112, 92),
)
_FIELDS: Final = ((116, 140, 72), (150, 156, 82), (196, 178, 104), (98, 122, 66), (138, 116, 80))


def _hills(rng: np.random.Generator, pixels: Pixels, light: Light, horizon_y: float) -> None:
    # What reaches below the horizon is painted over later, but for a few pixels of it.
    pixels = pixels[: int(horizon_y) + 4]
    width = pixels.shape[1]
    count = int(rng.integers(0, 4))
    peak = rng.uniform(0.03, 0.34) * horizon_y
    for nth in range(count):
        near = (nth + 1) / (count + 1)
        line = _skyline(
            rng, width, horizon_y + 1, peak * rng.uniform(0.4, 1.0) * (1.1 - 0.5 * near), 0.45
        )
        colour = _tinted(_HILLS[int(rng.integers(len(_HILLS)))], light, 0.72 - 0.5 * near)
        texture = smooth_noise(rng, (width, pixels.shape[0]), (30, 26))[..., None]
        _lay_below(pixels, line, colour + 11 * near * texture)


def _bank(
    rng: np.random.Generator, pixels: Pixels, light: Light, horizon_y: float
) -> npt.NDArray[np.float32]:
    """Paint the far bank, from one side or right across; give the line that it stands on."""
    height, width = pixels.shape[:2]
    columns = np.arange(width, dtype=np.float32) / width
    kind = int(rng.integers(3))
    reach = rng.uniform(0.3, 0.7)
    rise = rng.uniform(0.03, 0.09) * height
    thickness = np.full(width, rise, np.float32)
    if kind == 0:
        thickness *= np.clip((reach - columns) * 4, 0, 1) ** 0.6
    elif kind == 1:
        thickness *= np.clip((columns - 1 + reach) * 4, 0, 1) ** 0.6
    ground = _GROUNDS[int(rng.integers(1, len(_GROUNDS)))]
    greens = _skyline(rng, width, 0.0, 1.0, 0.7)
    foot = horizon_y + thickness * 0.35
    crest = foot - thickness * (0.5 - 0.6 * greens)
    top, bottom = max(0, int(crest.min()) - 2), min(height, int(foot.max()) + 9)
    strip = pixels[top:bottom]
    texture = smooth_noise(rng, (width, bottom - top), (60, 12))[..., None]
    wood = _tinted((66, 92, 58) if chance(rng, 0.7) else (112, 108, 84), light, 0.16)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    present = thickness > 1.0
    for line, colour, grain in (
        (crest, wood, 20),
        (foot - thickness * 0.3, _tinted(ground, light, 0.08), 10),
    ):
        coverage = np.clip(rows - line + 0.5, 0, 1) * np.clip(foot - rows + 0.5, 0, 1)
        _lay(strip, colour + grain * texture, np.asarray(coverage * present, np.float32))
    shadow = np.clip(1 - np.abs(rows - foot - 3) / 4, 0, 1) * 0.4 * present
    _lay(strip, np.array(light.near, np.float32) * 0.6, np.asarray(shadow, np.float32))
    return np.where(thickness > rise * 0.5, foot - thickness * 0.15, np.nan).astype(np.float32)


def _front(rng: np.random.Generator, pixels: Pixels, light: Light, top: float) -> None:
    """Paint the ground in front: a beach with a wet edge, a lawn, a road or a quay."""
    height, width = pixels.shape[:2]
    colour = _tinted(_GROUNDS[int(rng.integers(len(_GROUNDS)))], light, 0.0)
    slope = rng.uniform(-0.05, 0.05) * height
    line = np.linspace(-slope, slope, width, dtype=np.float32) + np.float32(top * height)
    quay = chance(rng, 0.4)
    if not quay:
        wobble = smooth_noise(rng, (width, 1), (7, 1))[0]
        line = np.asarray(line + wobble * 0.02 * height, np.float32)
        _lay_below(
            pixels,
            line - 4,
            np.array((238, 240, 238), np.float32) * np.array(light.tint, np.float32),
        )
        _lay_below(pixels, line, colour * np.float32(0.72))
    grain = smooth_noise(rng, (width, height), (8, 6)) * 14 + smooth_noise(
        rng, (width, height), (width // 4, height // 4)
    ) * rng.uniform(3, 10)
    _lay_below(pixels, line + (0 if quay else 5), colour + grain[..., None])
    if quay:
        for offset, factor in ((0, 1.18), (4, 0.62), (7, 1.0)):
            _lay_below(pixels, line + offset, colour * np.float32(factor) + grain[..., None])


def _land(rng: np.random.Generator, pixels: Pixels, light: Light, horizon_y: float) -> float:
    """Paint fields up to the hills and a road across; give the road's middle as a fraction."""
    height, width = pixels.shape[:2]
    grain = smooth_noise(rng, (width, height), (9, 7)) * 12 + smooth_noise(
        rng, (width, height), (width // 4, height // 3)
    ) * np.float32(7)
    fields = int(rng.integers(2, 5))
    for nth in range(fields):
        top = horizon_y + (height - horizon_y) * (nth / fields) ** 1.5
        line = _skyline(rng, width, top + 0.02 * height, 0.03 * height, 0.5)
        colour = _tinted(_FIELDS[int(rng.integers(len(_FIELDS)))], light, 0.3 - 0.3 * nth / fields)
        _lay_below(pixels, line, colour + grain[..., None])
        # A hedge along the edge of the field.
        _lay_below(pixels, line, colour * np.float32(0.6) + grain[..., None])
        _lay_below(pixels, line + 2 + 5 * nth / fields, colour + grain[..., None])
    middle = rng.uniform(0.72, 0.9)
    verge = _tinted(_FIELDS[int(rng.integers(len(_FIELDS)))], light, 0.0)
    asphalt = _tinted((112, 112, 116), light, 0.0)
    edge = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(rng.uniform(-6, 6))
    for offset, colour in (
        (-0.07, asphalt * np.float32(0.8)),
        (-0.063, asphalt),
        (-0.006, asphalt * np.float32(1.5)),
        (0.006, asphalt),
        (0.08, verge),
    ):
        _lay_below(pixels, edge + np.float32((middle + offset) * height), colour + grain[..., None])
    return float(middle)


def paint(
    rng: np.random.Generator,
    wh: tuple[int, int],
    *,
    water: bool = True,
    front: bool = False,
    bank: bool = False,
) -> Backdrop:
    """Paint a backdrop.

    Args:
        rng: The random numbers that decide everything else.
        wh: Width and height in pixels.
        water: Paint a sea or a lake; land right up to the horizon otherwise.
        front: Leave a strip of ground in front of the water.
        bank: Give the water a far bank for houses and trees.
    """
    width, height = wh
    light = LIGHTS[int(rng.choice(len(LIGHTS), p=_OFTEN))]
    horizon = rng.uniform(0.24, 0.52)
    horizon_y = horizon * height
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:] = light.haze
    sun_x = float(rng.uniform(-0.45, 0.45))
    _sky(rng, pixels, light, horizon_y, sun_x)
    _hills(rng, pixels, light, horizon_y)
    stand = np.full(width, np.nan, np.float32)
    if not water:
        road = _land(rng, pixels, light, horizon_y)
        stand[:] = horizon_y + 0.06 * height
        return Backdrop(pixels, light, horizon, None, stand, (road - 0.03, road + 0.05))
    # The hills end where the water begins: the sea is painted over their feet.
    _sea(rng, pixels, light, horizon_y, sun_x)
    if bank:
        stand = _bank(rng, pixels, light, horizon_y)
    if not front:
        return Backdrop(pixels, light, horizon, 0.97, stand, None)
    shore = rng.uniform(0.78, 0.9)
    _front(rng, pixels, light, shore)
    return Backdrop(pixels, light, horizon, shore - 0.03, stand, (shore + 0.06, 0.97))
