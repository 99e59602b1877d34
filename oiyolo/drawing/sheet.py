"""Contact sheets: pictures in rows of equal width, with a title, captions and a legend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.drawing.marks import draw_box
from oiyolo.drawing.text import FAINT, INK, WHITE, font, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.drawing.marks import Style
    from oiyolo.drawing.text import Colour

_SAMPLE_WH: Final = (30, 20)
_SAMPLE_GROUND: Final = (120, 130, 138)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A picture on a contact sheet.

    Attributes:
        aspect: Width divided by height as shown.
        caption: Lines below it; every sheet has as many for each cell.
        draw: Gives the picture in the width and height that it gets; called when it is its turn,
            so that a sheet never holds more than one of its pictures.
        colours: Of the captions' lines; the first is dark and the others are faint without it.
    """

    aspect: float
    caption: tuple[str, ...]
    draw: Callable[[tuple[int, int]], Image.Image]
    colours: tuple[Colour, ...] = (INK, FAINT, FAINT)


@dataclasses.dataclass(frozen=True)
class Form:
    """Measures of a sheet, in pixels where it says so.

    Attributes:
        columns: Pictures in a row; on average, unless ``is_grid``.
        is_grid: Whether all rows have so many and the last one stays short, so that each picture
            of an aspect gets the same room; rows fill the width without it.
    """

    columns: int = 4
    is_grid: bool = False
    width_px: int = 1360
    title_font_px: int = 22
    legend_font_px: int = 15
    caption_font_px: int = 12
    gap_px: int = 10

    @property
    def caption_line_px(self) -> int:
        """Height of a caption's line."""
        return self.caption_font_px + 4

    @property
    def header_px(self) -> int:
        """Height of the title and the legend."""
        return self.title_font_px + 2 * self.gap_px + 6


def contact_sheet(
    cells: Sequence[Cell], *, title: str, legend: Sequence[Style], form: Form
) -> Image.Image:
    """Lay pictures out; each keeps its aspect, a row gets the height that fills it.

    Returns:
        An RGB image.
    """
    rows = [_lay_out(row, form, full=full) for row, full in _into_rows(cells, form)]
    caption_px = max(len(cell.caption) for cell in cells) * form.caption_line_px + 2
    height_px = form.header_px + sum(height + caption_px + form.gap_px for height, _ in rows)
    sheet = Image.new("RGB", (form.width_px, height_px), WHITE)
    draw = ImageDraw.Draw(sheet)
    legend_left = _draw_legend(draw, legend, form)
    write(
        draw,
        (form.gap_px, form.header_px / 2),
        title,
        size_px=form.title_font_px,
        width_px=legend_left - 3 * form.gap_px,
        anchor="lm",
    )
    top = form.header_px
    for height, row in rows:
        for left, width, cell in row:
            sheet.paste(cell.draw((width, height)), (left, top))
            for line, (text, colour) in enumerate(zip(cell.caption, cell.colours, strict=False)):
                write(
                    draw,
                    (left, top + height + 2 + line * form.caption_line_px),
                    text,
                    size_px=form.caption_font_px,
                    width_px=width,
                    colour=colour,
                )
        top += height + caption_px + form.gap_px
    return sheet


def _into_rows(cells: Sequence[Cell], form: Form) -> Iterator[tuple[Sequence[Cell], bool]]:
    """Cut a list of pictures into rows of about equal length, and tell which fill the width."""
    columns = form.columns
    if form.is_grid:
        for at in range(0, len(cells), columns):
            yield cells[at : at + columns], False
        return
    row_count = max(1, round(len(cells) / columns))
    if len(cells) < columns:
        yield cells, False
        return
    ends = np.cumsum([cell.aspect for cell in cells])
    rows = np.minimum(((ends - ends[0] / 2) / ends[-1] * row_count).astype(np.int64), row_count - 1)
    for row in np.unique(rows).tolist():
        yield [cells[place] for place in np.flatnonzero(rows == row).tolist()], True


def _lay_out(
    row: Sequence[Cell], form: Form, *, full: bool
) -> tuple[int, list[tuple[int, int, Cell]]]:
    """Give a row's height, and left edge and width of each of its pictures."""
    room = form.width_px - form.gap_px * (len(row) + 1)
    height = room / sum(cell.aspect for cell in row)
    if form.is_grid:
        height = min(
            height,
            (form.width_px - form.gap_px * (form.columns + 1))
            / form.columns
            / max(cell.aspect for cell in row),
        )
    elif not full:
        height = min(height, form.width_px / 4)
    height_px = round(height)
    placed = []
    left = form.gap_px
    for cell in row:
        width = max(1, round(height_px * cell.aspect))
        placed.append((left, width, cell))
        left += width + form.gap_px
    return height_px, placed


def _draw_legend(draw: ImageDraw.ImageDraw, styles: Sequence[Style], form: Form) -> float:
    """Draw a sample of each kind of box that is on the sheet; give the legend's left edge."""
    size_px = form.legend_font_px
    face = font(size_px)
    middle = form.header_px / 2
    widths = [_SAMPLE_WH[0] + 8 + face.getlength(style.name) + 22 for style in styles]
    start = left = form.width_px - form.gap_px - sum(widths) + (22 if styles else 0)
    for style, width in zip(styles, widths, strict=True):
        top = middle - _SAMPLE_WH[1] / 2
        ground = (left - 3, top - 3, left + _SAMPLE_WH[0] + 3, top + _SAMPLE_WH[1] + 3)
        draw.rectangle(ground, fill=_SAMPLE_GROUND)
        draw_box(draw, (left, top, left + _SAMPLE_WH[0], top + _SAMPLE_WH[1]), style)
        at = (left + _SAMPLE_WH[0] + 9, middle)
        write(draw, at, style.name, size_px=size_px, width_px=width, anchor="lm")
        left += width
    return start
