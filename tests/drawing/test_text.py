"""Text on images: the choice of a font, and truncation."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops, ImageDraw

from oiyolo.drawing import text

IN_NO_FONT = "\U0001bc99"  # Duployan shorthand


@pytest.mark.parametrize("words", ["Boat", "", "Émile Çelik", "Лодка", "Βάρκα", "Boat · 90°"])
def test_characters_of_many_scripts_are_drawable(words: str) -> None:
    assert text.is_drawable(words)
    assert text.is_drawable_in_charts(words)


def test_a_character_that_no_font_has_is_not_drawable() -> None:
    assert not text.is_drawable(f"Boat {IN_NO_FONT}")
    assert not text.is_drawable_in_charts("船")


def test_the_font_is_one_that_has_the_characters() -> None:
    assert text.font(20, "Boat") is text.font(20)
    assert text.font(20, "Лодка") is not text.font(20)
    assert text.font(20, IN_NO_FONT) is text.font(20)


@pytest.mark.parametrize("words", ["A rather long class name", "line\nbreak", "\udcff\x00"])
@pytest.mark.parametrize("width_px", [0, 5, 60, 400])
def test_a_line_is_never_wider_than_the_available_width(words: str, width_px: int) -> None:
    image = Image.new("RGB", (420, 40), text.WHITE)
    draw = ImageDraw.Draw(image)
    width = text.draw_text(draw, (2, 2), words, size_px=20, width_px=width_px)
    assert width <= width_px
    drawn = ImageChops.invert(image).getbbox()
    assert drawn is None or drawn[2] <= 2 + width_px + 2


def test_truncated_text_ends_in_an_ellipsis() -> None:
    face = text.font(20)
    truncated = text.truncate("0123456789abcdef", face, face.getlength("01234567..."))
    assert truncated == "01234567..."
    assert text.truncate("0123", face, 1000) == "0123"
