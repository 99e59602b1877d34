"""Letters on pictures."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops, ImageDraw

from oiyolo.drawing import text

NOBODY_HAS = "\U0001bc99"  # Duployan shorthand


@pytest.mark.parametrize("words", ["Boat", "", "Émile Çelik", "Лодка", "Βάρκα", "Boat · 90°"])
def test_letters_of_many_scripts_are_drawable(words: str) -> None:
    assert text.is_drawable(words)
    assert text.is_drawable_in_charts(words)


def test_a_letter_that_no_font_has_is_not_drawable() -> None:
    assert not text.is_drawable(f"Boat {NOBODY_HAS}")
    assert not text.is_drawable_in_charts("船")


def test_a_font_is_chosen_that_has_the_letters() -> None:
    assert text.font(20, "Boat") is text.font(20)
    assert text.font(20, "Лодка") is not text.font(20)
    assert text.font(20, NOBODY_HAS) is text.font(20)


@pytest.mark.parametrize("words", ["A rather long class name", "line\nbreak", "\udcff\x00"])
@pytest.mark.parametrize("width_px", [0, 5, 60, 400])
def test_a_line_never_takes_more_room_than_it_has(words: str, width_px: int) -> None:
    picture = Image.new("RGB", (420, 40), text.WHITE)
    draw = ImageDraw.Draw(picture)
    width = text.write(draw, (2, 2), words, size_px=20, width_px=width_px)
    assert width <= width_px
    drawn = ImageChops.invert(picture).getbbox()
    assert drawn is None or drawn[2] <= 2 + width_px + 2


def test_what_is_cut_off_says_so() -> None:
    face = text.font(20)
    cut = text.shortened("0123456789abcdef", face, face.getlength("01234567..."))
    assert cut == "01234567..."
    assert text.shortened("0123", face, 1000) == "0123"
