"""Contact sheets: the layout of the grid and the order of drawing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from oiyolo.drawing.sheet import Cell, SheetLayout, contact_sheet

LAYOUT = SheetLayout(columns=4, is_grid=True, width_px=800)


def plain(colour: tuple[int, int, int], aspect: float = 4 / 3) -> Cell:
    return Cell(aspect, ("id", "caption"), lambda size_wh: Image.new("RGB", size_wh, colour))


def extent(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels that have a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_images_in_a_grid_have_the_same_size(count: int) -> None:
    colours = [(10 + index, 200, 100) for index in range(count)]
    sheet = contact_sheet([plain(c) for c in colours], title="t", legend=(), layout=LAYOUT)
    extents = [extent(sheet, colour) for colour in colours]
    sizes = {(right - left, bottom - top) for left, top, right, bottom in extents}
    assert len(sizes) == 1
    assert [left for left, *_ in extents] == [extents[index % 4][0] for index in range(count)]
    assert len({top for _, top, *_ in extents}) == -(-count // 4)
    assert max(right for *_, right, _ in extents) < sheet.width == 800


def test_images_are_drawn_one_after_the_other() -> None:
    drawn: list[int] = []

    def cell(number: int) -> Cell:
        def draw(size_wh: tuple[int, int]) -> Image.Image:
            drawn.append(number)
            return Image.new("RGB", size_wh)

        return Cell(1.0, ("",), draw)

    cells = [cell(number) for number in range(6)]
    assert drawn == []
    contact_sheet(cells, title="t", legend=(), layout=LAYOUT)
    assert drawn == list(range(6))
