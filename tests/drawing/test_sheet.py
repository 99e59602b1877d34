"""Contact sheets, whatever is on them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from oiyolo.drawing.sheet import Cell, Form, contact_sheet

FORM = Form(columns=4, is_grid=True, width_px=800)


def plain(colour: tuple[int, int, int], aspect: float = 4 / 3) -> Cell:
    return Cell(aspect, ("id", "told"), lambda size_wh: Image.new("RGB", size_wh, colour))


def extent(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_in_a_grid_every_picture_gets_the_same_room(count: int) -> None:
    colours = [(10 + place, 200, 100) for place in range(count)]
    sheet = contact_sheet([plain(c) for c in colours], title="t", legend=(), form=FORM)
    found = [extent(sheet, colour) for colour in colours]
    sizes = {(right - left, bottom - top) for left, top, right, bottom in found}
    assert len(sizes) == 1
    assert [left for left, *_ in found] == [found[place % 4][0] for place in range(count)]
    assert len({top for _, top, *_ in found}) == -(-count // 4)
    assert max(right for *_, right, _ in found) < sheet.width == 800


def test_pictures_are_drawn_one_after_the_other() -> None:
    drawn: list[int] = []

    def cell(number: int) -> Cell:
        def draw(size_wh: tuple[int, int]) -> Image.Image:
            drawn.append(number)
            return Image.new("RGB", size_wh)

        return Cell(1.0, ("",), draw)

    cells = [cell(number) for number in range(6)]
    assert drawn == []
    contact_sheet(cells, title="t", legend=(), form=FORM)
    assert drawn == list(range(6))
