"""Draw text on images in a font that has all its characters, truncated to the available width."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import ImageFont

if TYPE_CHECKING:
    from PIL import ImageDraw

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

WHITE: Final[Colour] = (255, 255, 255)
INK: Final[Colour] = (33, 37, 41)
FAINT: Final[Colour] = (110, 116, 122)

_DEFAULT: Final = ""
"""Pillow's own font."""
_SYSTEM_FONTS: Final = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSans-Regular.ttf",
    "unifont.ttf",
)
"""System fonts to try for characters that the packages' fonts do not have; most are missing."""

_UNASSIGNED: Final = "\U0010ffff"
"""A noncharacter (Unicode 16, section 23.7), drawn like any character that a font does not have."""
_PROBE_PX: Final = 16


def font(size_px: int, text: str = "") -> Font:
    """Return a font that has all characters of ``text``; the default font if there is none."""
    return _load(next((f for f in _fonts() if _has_all(f, text)), _DEFAULT), size_px)


def is_drawable(text: str) -> bool:
    """Return whether an installed font has all characters of ``text``."""
    return any(_has_all(name, text) for name in _fonts())


def is_drawable_in_charts(text: str) -> bool:
    """Return whether matplotlib's default font has all characters of ``text``."""
    return _has_all(_chart_font(), text)


def truncate(text: str, face: Font, width_px: float) -> str:
    """Return the text, shortened to fit ``width_px``; unprintable characters become blanks."""
    text = "".join(character if character.isprintable() else " " for character in text)
    if face.getlength(text) <= width_px:
        return text
    while text and face.getlength(text + "...") > width_px:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def draw_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    *,
    size_px: int,
    width_px: float,
    colour: Colour = INK,
    anchor: str = "la",
) -> float:
    """Draw a line of text, truncated to the available width.

    Args:
        draw: The drawing.
        position: Position of the text's anchor, in pixels.
        text: The line.
        size_px: Height of the letters.
        width_px: Available width.
        colour: Colour of the letters.
        anchor: Pillow's text anchor: "la" is left and top, "lm" left and middle.

    Returns:
        The width of the drawn text in pixels.
    """
    face = font(size_px, text)
    fitting = truncate(text, face, width_px)
    draw.text(position, fitting, colour, face, anchor=anchor)
    return face.getlength(fitting)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Return names or paths of fonts, the default first."""
    return (_DEFAULT, _chart_font(), *filter(_is_loadable, _SYSTEM_FONTS))


@functools.cache
def _chart_font() -> str:
    spec = importlib.util.find_spec("matplotlib")  # not imported, which would be slow
    package = Path(str(spec.origin)).parent if spec else Path()
    path = str(package / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
    return path if _is_loadable(path) else _DEFAULT


def _is_loadable(name: str) -> bool:
    try:
        _load(name, _PROBE_PX)
    except OSError:
        return False
    return True


@functools.cache
def _load(name: str, size_px: int) -> Font:
    if name == _DEFAULT:
        return ImageFont.load_default(size=size_px)
    return ImageFont.truetype(name, size_px)


def _has_all(name: str, text: str) -> bool:
    return all(_has(name, character) for character in text if character.isprintable())


@functools.cache
def _has(name: str, character: str) -> bool:
    return _bitmap(name, character) != _bitmap(name, _UNASSIGNED)


def _bitmap(name: str, character: str) -> tuple[tuple[int, int], bytes]:
    mask = _load(name, _PROBE_PX).getmask(character)
    return mask.size, bytes(mask)
