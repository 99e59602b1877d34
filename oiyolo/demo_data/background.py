"""The backgrounds of the scenes: skies, seas, hills and shores.

Everything is painted directly at the size of the image, in float32 RGB arrays of shape
(height, width, 3) with values in 0..255. Edges between surfaces are blended over one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from oiyolo.demo_data.canvas import chance, palette

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.demo_data.canvas import RGB

Pixels = npt.NDArray[np.float32]

_TEXTURE_SIDE: Final = 512
_TEXTURE_SAMPLES: Final = 4
"""Texture samples per unit of length."""
_MIN_WHITECAP_CHOPPINESS: Final = 11.0


@dataclass(frozen=True)
class Lighting:
    """The colours of a time of day and its weather.

    Attributes:
        name: Descriptive name; nothing depends on it.
        zenith, haze: Colour of the sky at the top of the image and at the horizon.
        far_water, near_water: Colour of the water at the horizon and at the bottom of the image.
        tint: Factors by which the red, green and blue of objects and land are multiplied.
        cloud: Colour of the clouds.
        sun: Colour of the sun, or ``None`` if it is hidden or behind the camera.
    """

    name: str
    zenith: RGB
    haze: RGB
    far_water: RGB
    near_water: RGB
    tint: tuple[float, float, float]
    cloud: RGB
    sun: RGB | None


LIGHTINGS: Final = (
    Lighting("noon", (62, 122, 196), (182, 212, 232), (96, 152, 186), (28, 82, 122),
          (1.0, 1.0, 1.0), (250, 251, 252), None),
    Lighting("lagoon", (70, 150, 214), (206, 230, 236), (92, 190, 196), (28, 132, 150),
          (1.04, 1.03, 0.98), (252, 252, 250), None),
    Lighting("overcast", (152, 164, 178), (212, 216, 218), (150, 164, 170), (82, 104, 116),
          (0.93, 0.95, 0.97), (232, 234, 236), None),
    Lighting("haze", (150, 178, 200), (226, 224, 214), (176, 192, 194), (98, 130, 142),
          (0.96, 0.95, 0.92), (242, 240, 234), (255, 250, 232)),
    Lighting("morning", (112, 156, 206), (250, 222, 190), (196, 190, 184), (66, 98, 128),
          (1.04, 0.98, 0.9), (255, 236, 214), (255, 244, 214)),
    Lighting("sunset", (72, 78, 136), (250, 166, 96), (226, 150, 104), (62, 62, 96),
          (0.96, 0.78, 0.66), (246, 150, 116), (255, 226, 160)),
    Lighting("dusk", (42, 56, 108), (206, 150, 158), (140, 122, 154), (34, 46, 84),
          (0.68, 0.66, 0.78), (150, 116, 146), None),
    Lighting("storm", (92, 106, 124), (190, 198, 194), (134, 150, 150), (54, 84, 90),
          (0.88, 0.9, 0.92), (140, 146, 156), None),
)  # fmt: skip
_LIGHTING_PROBABILITIES: Final = (0.21, 0.2, 0.1, 0.12, 0.14, 0.11, 0.06, 0.06)


@dataclass(frozen=True)
class Background:
    """A painted background and the areas on which objects can be placed.

    Attributes:
        pixels: Array of shape (height, width, 3).
        lighting: Colours of the background's time of day and weather.
        horizon: Y of the horizon, at which the water begins, as a fraction of the height.
        water_bottom: Y of the lower edge of the water, as a fraction of the height; ``None`` if
            there is no water.
        bank_y: Y in pixels, by column, on which houses and trees stand: on the far bank or, without
            water, on the land below the horizon. NaN where there is no bank.
        foreground: Range of y, as fractions of the height, on which objects in the foreground
            stand; ``None`` if the foreground is water.
    """

    pixels: Pixels
    lighting: Lighting
    horizon: float
    water_bottom: float | None
    bank_y: npt.NDArray[np.float32]
    foreground: tuple[float, float] | None


def smooth_noise(
    rng: np.random.Generator, size_wh: tuple[int, int], cells_wh: tuple[int, int]
) -> Pixels:
    """Return smooth random values, roughly in -1..1, as an array of shape (height, width).

    Args:
        rng: Random number generator.
        size_wh: Width and height of the result, in pixels.
        cells_wh: Number of independent random values across and down.
    """
    coarse = rng.uniform(-1.0, 1.0, (cells_wh[1], cells_wh[0])).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC))


@lru_cache(maxsize=1)
def _texture() -> Pixels:
    """Return a tileable fractal texture with mean 0, standard deviation 1 and four samples a unit.

    Skies and seas use differently stretched parts of it. A new texture for each image would cost
    more than everything else together.
    """
    rng = np.random.default_rng(20)
    frequencies = np.fft.fftfreq(_TEXTURE_SIDE)
    radius = np.hypot(frequencies[:, None], frequencies[None, :])
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE))) * radius**-1.35
    spectrum[0, 0] = 0.0
    texture = np.fft.ifft2(spectrum).real
    # Upsampled, so that stretched parts show no steps. The margin wraps around, so that the
    # resampled texture is tileable, too.
    margin = 4
    coarse = np.pad((texture / texture.std()).astype(np.float32), margin, mode="wrap")
    side = (_TEXTURE_SIDE + 2 * margin) * _TEXTURE_SAMPLES
    fine = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    cut = margin * _TEXTURE_SAMPLES
    return np.ascontiguousarray(np.asarray(fine)[cut:-cut, cut:-cut])


def _sample_texture(x: Pixels, y: Pixels) -> Pixels:
    """Return the texture's values at positions in its own units; the two arrays are broadcast."""
    texture = _texture()
    samples = np.float32(_TEXTURE_SAMPLES)
    rows = (y * samples).astype(np.int32) % texture.shape[0]
    columns = (x * samples).astype(np.int32) % texture.shape[1]
    return np.asarray(texture[rows, columns])


def _vertical_gradient(first: RGB, last: RGB, positions: Pixels, width: int) -> Pixels:
    """Return an image whose rows are mixtures of two colours; the positions are 0 to 1."""
    a, b = np.array(first, np.float32), np.array(last, np.float32)
    colours = a + positions[:, None] * (b - a)
    return np.array(np.broadcast_to(colours[:, None], (len(positions), width, 3)))


def _blend(pixels: Pixels, paint: Pixels, alpha: Pixels) -> None:
    """Blend a colour or image into ``pixels``; ``alpha`` has shape (height, width)."""
    change = paint - pixels
    change *= alpha[..., None]
    pixels += change


def _blend_below(pixels: Pixels, edge_y: Pixels, paint: Pixels) -> None:
    """Blend ``paint`` into everything below ``edge_y``, a y in pixels for each column."""
    top = min(max(0, int(edge_y.min()) - 1), pixels.shape[0] - 1)
    rows = np.arange(top, pixels.shape[0], dtype=np.float32)
    alpha = np.clip(rows[:, None] - edge_y[None, :] + 0.5, 0.0, 1.0)
    part = paint if paint.ndim == 1 else paint[top:]
    _blend(pixels[top:], part, alpha)


def _skyline(
    rng: np.random.Generator, width: int, base_y: float, height: float, roughness: float
) -> Pixels:
    """Return the y, in pixels for each column, of a hilly skyline."""
    line = np.zeros(width, np.float32)
    size = 1.0
    for cells in (3, 6, 12, 26, 60):
        values = rng.uniform(-0.3, 1.0, cells + 1)
        line += np.float32(size) * np.interp(
            np.linspace(0, cells, width), np.arange(cells + 1), values
        ).astype(np.float32)
        size *= roughness
    return np.asarray(base_y - height * np.maximum(line, 0.02), dtype=np.float32)


_HILLS = palette("#566854 #686e60 #486042 #786a54 #586070")
_GROUNDS = palette("#d6be92 #beac8c #969490 #687e46 #7e705c")
_FIELDS = palette("#748c48 #969c52 #c4b268 #627a42 #8a7450")


class _Painter:
    """Paints the parts of a background; the later ones cover the earlier ones.

    Attributes:
        pixels: Array of shape (height, width, 3).
        horizon: Y of the horizon as a fraction of the height.
    """

    def __init__(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> None:
        self._rng = rng
        self._width, self._height = size_wh
        self.lighting = LIGHTINGS[int(rng.choice(len(LIGHTINGS), p=_LIGHTING_PROBABILITIES))]
        self.horizon = rng.uniform(0.24, 0.52)
        self._horizon_y = self.horizon * self._height
        self.pixels = np.empty((self._height, self._width, 3), np.float32)
        self.pixels[:] = self.lighting.haze
        # X of the sun and of each column, relative to the middle, as fractions of the width.
        self._sun_x = float(rng.uniform(-0.45, 0.45))
        self._across = np.linspace(-0.5, 0.5, self._width, dtype=np.float32)

    def paint_sky(self) -> None:
        """Paint the sky with the sun and clouds."""
        rng, lighting, across = self._rng, self.lighting, self._across
        below = max(2, int(self._horizon_y) + 2)
        rows = np.linspace(0.0, 1.0, below, dtype=np.float32)
        sky = _vertical_gradient(lighting.zenith, lighting.haze, rows**1.3, self._width)
        vanishing = np.float32(rng.uniform(-0.5, 0.5))
        sun_y = rng.uniform(0.1, 0.85)
        if lighting.sun is not None:
            distance = np.hypot(
                (across - self._sun_x)[None, :], (rows - sun_y)[:, None] * below / self._width
            )
            sun = np.array(lighting.sun, np.float32)
            _blend(sky, sun, np.exp(-(distance / 0.16)) * 0.75)
            _blend(sky, sun, np.clip((0.03 - distance) * 200, 0, 1))
        else:
            # Even without a visible sun, one side of the sky is brighter than the other.
            sky *= 1.0 + np.float32(0.4 * self._sun_x) * across[None, :, None]
        # Clouds are seen from below: towards the horizon they get denser and flatter, the more so
        # the wider the angle of view.
        depth = 1.0 / (1.12 - rows)
        zoom = rng.uniform(18, 60)
        spread = depth ** np.float32(rng.uniform(0.05, 0.7))
        offset = rng.uniform(0, _TEXTURE_SIDE, 2).astype(np.float32)
        field = _sample_texture(
            offset[0] + (across - vanishing)[None, :] * np.float32(zoom * 3.6) * spread[:, None],
            offset[1] + np.float32(zoom) * depth[:, None],
        )
        field += np.float32(rng.uniform(0.9, 2.0)) * smooth_noise(rng, (self._width, below), (6, 4))
        field -= np.float32(rng.uniform(-0.9, 1.2))
        density, most = rng.uniform(0.5, 1.1), rng.uniform(0.75, 0.97)
        alpha = np.clip(field * np.float32(density), 0.0, np.float32(most))
        lit = np.array(lighting.cloud, np.float32)
        shadow = 0.74 * lit + 0.1 * np.array(lighting.zenith, np.float32)
        thick = np.clip((field - np.float32(0.7)) * np.float32(0.6), 0.0, 1.0)[..., None]
        _blend(sky, lit + thick * (shadow - lit), alpha)
        self.pixels[:below] = sky[: min(below, self._height)]

    def paint_hills(self) -> None:
        """Paint up to three ranges of hills on the horizon."""
        rng, width, horizon_y = self._rng, self._width, self._horizon_y
        # All but a few pixels of what lies below the horizon is painted over later.
        pixels = self.pixels[: int(horizon_y) + 4]
        count = int(rng.integers(0, 4))
        peak = rng.uniform(0.03, 0.34) * horizon_y
        for nth in range(count):
            near = (nth + 1) / (count + 1)
            height = peak * rng.uniform(0.4, 1.0) * (1.1 - 0.5 * near)
            line = _skyline(rng, width, horizon_y + 1, height, 0.45)
            colour = self._random_lit(_HILLS, 0.72 - 0.5 * near)
            texture = smooth_noise(rng, (width, pixels.shape[0]), (30, 26))[..., None]
            _blend_below(pixels, line, colour + 11 * near * texture)

    def paint_sea(self) -> None:
        """Paint a sea or lake below the horizon, with waves and reflected light."""
        rng, lighting = self._rng, self.lighting
        across = self._across[None, :]
        top = int(self._horizon_y)
        rows = np.linspace(0.0, 1.0, self._height - top, dtype=np.float32)
        far, near_colour = lighting.far_water, lighting.near_water
        sea = _vertical_gradient(far, near_colour, rows**0.7, self._width)
        # Wind leaves broad patches on the water, which also reflects the clouds.
        shine = smooth_noise(rng, (self._width, len(rows)), (5, 6))
        shine = shine * np.float32(rng.uniform(10, 34))
        near = rows[:, None] + np.float32(0.06)
        choppiness = rng.uniform(4, 17)
        waves = np.zeros_like(shine)
        for zoom, strength in ((26.0, 1.0), (61.0, 0.6)):
            offset = rng.uniform(0, _TEXTURE_SIDE, 2).astype(np.float32)
            waves += np.float32(strength) * _sample_texture(
                offset[0] + across * np.float32(zoom) / near,
                offset[1] - np.float32(zoom * 2.6) / (near + np.float32(0.05)),
            )
        shine += waves * (np.float32(choppiness) * (np.float32(0.35) + rows[:, None]))
        sea += shine[..., None]
        if lighting.sun is not None:
            # The sun's reflection on the water is below the sun and widens towards the viewer.
            width = np.float32(0.05) + np.float32(0.1) * near
            offset_x = (across - np.float32(self._sun_x)) / width
            glitter = (np.clip(waves, 0.2, 1.8) - np.float32(0.2)) * np.exp(-(offset_x * offset_x))
            alpha = np.minimum(glitter * np.float32(0.7), np.float32(0.9))
            _blend(sea, np.array(lighting.sun, np.float32), alpha)
        elif choppiness > _MIN_WHITECAP_CHOPPINESS:
            caps = np.clip((waves - np.float32(2.6)) * np.float32(0.5), 0.0, 0.8)
            _blend(sea, np.array((244, 247, 248), np.float32), caps)
        self.pixels[top:] = sea

    def paint_bank(self) -> Pixels:
        """Paint a far bank, from one side or across the image; return its y in pixels by column."""
        rng, width, height = self._rng, self._width, self._height
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
        foot = self._horizon_y + thickness * 0.35
        crest = foot - thickness * (0.5 - 0.6 * greens)
        top, bottom = max(0, int(crest.min()) - 2), min(height, int(foot.max()) + 9)
        strip = self.pixels[top:bottom]
        texture = smooth_noise(rng, (width, bottom - top), (60, 12))[..., None]
        wood = self._lit((66, 92, 58) if chance(rng, 0.7) else (112, 108, 84), 0.16)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        present = thickness > 1.0
        for line, colour, grain in (
            (crest, wood, 20),
            (foot - thickness * 0.3, self._lit(ground, 0.08), 10),
        ):
            alpha = np.clip(rows - line + 0.5, 0, 1) * np.clip(foot - rows + 0.5, 0, 1)
            _blend(strip, colour + grain * texture, np.asarray(alpha * present, np.float32))
        shadow = np.clip(1 - np.abs(rows - foot - 3) / 4, 0, 1) * 0.4 * present
        water = np.array(self.lighting.near_water, np.float32) * 0.6
        _blend(strip, water, np.asarray(shadow, np.float32))
        return np.where(thickness > rise * 0.5, foot - thickness * 0.15, np.nan).astype(np.float32)

    def paint_foreground(self, top: float) -> None:
        """Paint the ground in the foreground: a beach with a wet edge, a lawn, a road or a quay."""
        rng, pixels, width, height = self._rng, self.pixels, self._width, self._height
        colour = self._random_lit(_GROUNDS, 0.0)
        slope = rng.uniform(-0.05, 0.05) * height
        line = np.linspace(-slope, slope, width, dtype=np.float32) + np.float32(top * height)
        quay = chance(rng, 0.4)
        if not quay:
            wobble = smooth_noise(rng, (width, 1), (7, 1))[0]
            line = np.asarray(line + wobble * 0.02 * height, np.float32)
            foam = np.array((238, 240, 238), np.float32) * np.array(self.lighting.tint, np.float32)
            _blend_below(pixels, line - 4, foam)
            _blend_below(pixels, line, colour * np.float32(0.72))
        coarse = smooth_noise(rng, (width, height), (8, 6)) * 14
        fine = smooth_noise(rng, (width, height), (width // 4, height // 4))
        grain = (coarse + fine * rng.uniform(3, 10))[..., None]
        _blend_below(pixels, line + (0 if quay else 5), colour + grain)
        if quay:
            for offset, factor in ((0, 1.18), (4, 0.62), (7, 1.0)):
                _blend_below(pixels, line + offset, colour * np.float32(factor) + grain)

    def paint_land(self) -> float:
        """Paint fields and a road; return the y of its middle as a fraction of the height."""
        rng, pixels, width, height = self._rng, self.pixels, self._width, self._height
        coarse = smooth_noise(rng, (width, height), (9, 7)) * 12
        fine = smooth_noise(rng, (width, height), (width // 4, height // 3)) * np.float32(7)
        grain = (coarse + fine)[..., None]
        fields = int(rng.integers(2, 5))
        for nth in range(fields):
            top = self._horizon_y + (height - self._horizon_y) * (nth / fields) ** 1.5
            line = _skyline(rng, width, top + 0.02 * height, 0.03 * height, 0.5)
            colour = self._random_lit(_FIELDS, 0.3 - 0.3 * nth / fields)
            _blend_below(pixels, line, colour + grain)
            # A hedge along the edge of the field.
            _blend_below(pixels, line, colour * np.float32(0.6) + grain)
            _blend_below(pixels, line + 2 + 5 * nth / fields, colour + grain)
        middle = rng.uniform(0.72, 0.9)
        verge = self._random_lit(_FIELDS, 0.0)
        asphalt = self._lit((112, 112, 116), 0.0)
        edge = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(rng.uniform(-6, 6))
        for offset, colour in (
            (-0.07, asphalt * np.float32(0.8)),
            (-0.063, asphalt),
            (-0.006, asphalt * np.float32(1.5)),
            (0.006, asphalt),
            (0.08, verge),
        ):
            _blend_below(pixels, edge + np.float32((middle + offset) * height), colour + grain)
        return float(middle)

    def _random_lit(self, colours: Sequence[RGB], haze: float) -> Pixels:
        return self._lit(colours[int(self._rng.integers(len(colours)))], haze)

    def _lit(self, colour: RGB, haze: float) -> Pixels:
        """Return a colour as it appears in the lighting and through haze (0: none, 1: only)."""
        lit = np.array(colour, np.float32) * np.array(self.lighting.tint, np.float32)
        hazy = lit * (1 - haze) + np.array(self.lighting.haze, np.float32) * haze
        return np.asarray(hazy, np.float32)


def paint_background(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    *,
    water: bool = True,
    foreground: bool = False,
    bank: bool = False,
) -> Background:
    """Return a newly painted background.

    Args:
        rng: Random number generator, which determines everything else.
        size_wh: Width and height in pixels.
        water: Whether to paint a sea or lake rather than land that extends to the horizon.
        foreground: Whether to paint a strip of ground in front of the water.
        bank: Whether to paint a far bank, on which houses and trees can stand.
    """
    painter = _Painter(rng, size_wh)
    painter.paint_sky()
    painter.paint_hills()
    pixels, lighting, horizon = painter.pixels, painter.lighting, painter.horizon
    width, height = size_wh
    bank_y = np.full(width, np.nan, np.float32)
    if not water:
        road = painter.paint_land()
        bank_y[:] = horizon * height + 0.06 * height
        return Background(pixels, lighting, horizon, None, bank_y, (road - 0.03, road + 0.05))
    # The sea is painted over the feet of the hills.
    painter.paint_sea()
    if bank:
        bank_y = painter.paint_bank()
    if not foreground:
        return Background(pixels, lighting, horizon, 0.97, bank_y, None)
    shore = rng.uniform(0.78, 0.9)
    painter.paint_foreground(shore)
    return Background(pixels, lighting, horizon, shore - 0.03, bank_y, (shore + 0.06, 0.97))
