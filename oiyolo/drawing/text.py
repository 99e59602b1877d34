"""Text on pictures: a font that has the letters, and a cut where there is no more room."""

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

_SYSTEM_FONTS: Final = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSans-Regular.ttf",
    "unifont.ttf",
)
"""Tried by name for letters that the fonts of the installed packages lack; most are absent."""

_NO_CHARACTER: Final = "\U0010ffff"
"""Never assigned (Unicode 16, section 23.7): a font draws it as it draws all that it lacks."""
_TRIED_AT_PX: Final = 16


def font(size_px: int, text: str = "") -> Font:
    """Give a font that has the letters of ``text``; the usual one where none has them all."""
    for place in range(len(_sources())):
        if _has_all(place, text):
            return _face(place, size_px)
    return _face(0, size_px)


def is_drawable(text: str) -> bool:
    """Tell whether some font here has every letter of ``text``."""
    return any(_has_all(place, text) for place in range(len(_sources())))


def is_drawable_in_charts(text: str) -> bool:
    """Tell whether matplotlib's own font has every letter of ``text``."""
    return all(_has(_CHARTS_FONT, character) for character in text if character.isprintable())


def shortened(text: str, face: Font, width_px: float) -> str:
    """Cut a text off so that it fits; what cannot be printed becomes a blank."""
    text = "".join(character if character.isprintable() else " " for character in text)
    if face.getlength(text) <= width_px:
        return text
    while text and face.getlength(text + "...") > width_px:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size_px: int,
    width_px: float,
    colour: Colour = INK,
    anchor: str = "la",
) -> float:
    """Write a line, cut off so that it fits.

    Args:
        draw: What to write on.
        at: The point of the text that ``anchor`` names.
        text: The line.
        size_px: Height of the letters.
        width_px: Room for the line.
        colour: Colour of the letters.
        anchor: As Pillow's: "la" is left and top, "lm" left and middle.

    Returns:
        The width of what was written, in pixels.
    """
    face = font(size_px, text)
    fitting = shortened(text, face, width_px)
    draw.text(at, fitting, colour, face, anchor=anchor)
    return face.getlength(fitting)


_CHARTS_FONT: Final = 1


@functools.cache
def _sources() -> tuple[str, ...]:
    """Give where fonts come from, the usual one first: "" is Pillow's own."""
    found = importlib.util.find_spec("matplotlib")  # looked for, not imported, which is slow
    home = Path(str(found.origin)).parent if found else Path()
    charts_font = home / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    named = [name for name in _SYSTEM_FONTS if _loads(name)]
    return ("", str(charts_font) if _loads(str(charts_font)) else "", *named)


def _loads(name: str) -> bool:
    try:
        ImageFont.truetype(name, _TRIED_AT_PX)
    except OSError:
        return False
    return True


@functools.cache
def _face(place: int, size_px: int) -> Font:
    source = _sources()[place]
    if source:
        return ImageFont.truetype(source, size_px)
    return ImageFont.load_default(size=size_px)


def _has_all(place: int, text: str) -> bool:
    return all(_has(place, character) for character in text if character.isprintable())


@functools.cache
def _has(place: int, character: str) -> bool:
    return _shape(place, character) != _shape(place, _NO_CHARACTER)


def _shape(place: int, character: str) -> tuple[tuple[int, int], bytes]:
    mask = _face(place, _TRIED_AT_PX).getmask(character)
    return mask.size, bytes(mask)
