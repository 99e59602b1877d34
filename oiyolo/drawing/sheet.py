"""Contact sheets: images in rows of equal width, with a title, captions and a legend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.drawing.marks import draw_box
from oiyolo.drawing.text import FAINT, INK, WHITE, draw_text, font

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.drawing.marks import Style
    from oiyolo.drawing.text import Colour

_SAMPLE_WH: Final = (30, 20)
_SAMPLE_BACKGROUND: Final = (120, 130, 138)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """An image on a contact sheet.

    Attributes:
        aspect: Width of the image as shown, divided by its height.
        caption: Lines below the image; every cell has room for the longest caption of the sheet.
        draw: Returns the image in a given width and height. Images are drawn one after the other,
            so that only one is in memory.
        colours: Colours of the caption's lines.
    """

    aspect: float
    caption: tuple[str, ...]
    draw: Callable[[tuple[int, int]], Image.Image]
    colours: tuple[Colour, ...] = (INK, FAINT, FAINT)


@dataclasses.dataclass(frozen=True)
class SheetLayout:
    """Layout of a contact sheet.

    Attributes:
        columns: Number of images in a row; an average, unless ``is_grid``.
        is_grid: Whether each row has exactly ``columns`` images, except a shorter last one, so
            that images of the same aspect have the same size. Otherwise images are scaled so that
            rows fill the width.
        width_px: Width of the sheet.
        title_font_px: Font size of the title.
        legend_font_px: Font size of the legend.
        caption_font_px: Font size of the captions.
        gap_px: Distance between images, and to the edge of the sheet.
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
        """Height of a line of a caption."""
        return self.caption_font_px + 4

    @property
    def header_px(self) -> int:
        """Height of the header with title and legend."""
        return self.title_font_px + 2 * self.gap_px + 6


def contact_sheet(
    cells: Sequence[Cell], *, title: str, legend: Sequence[Style], layout: SheetLayout
) -> Image.Image:
    """Draw a contact sheet; images keep their aspect.

    Args:
        cells: The images, at least one.
        title: Title of the sheet.
        legend: Styles of the boxes to explain.
        layout: Layout of the sheet.

    Returns:
        An RGB image.
    """
    rows = [_layout_row(row, layout, limit_px) for row, limit_px in _split_rows(cells, layout)]
    caption_px = max(len(cell.caption) for cell in cells) * layout.caption_line_px + 2
    height_px = layout.header_px + sum(height + caption_px + layout.gap_px for height, _ in rows)
    sheet = Image.new("RGB", (layout.width_px, height_px), WHITE)
    draw = ImageDraw.Draw(sheet)
    legend_left = _draw_legend(draw, legend, layout)
    draw_text(
        draw,
        (layout.gap_px, layout.header_px / 2),
        title,
        size_px=layout.title_font_px,
        width_px=legend_left - 3 * layout.gap_px,
        anchor="lm",
    )
    top = layout.header_px
    for height, row in rows:
        for left, width, cell in row:
            sheet.paste(cell.draw((width, height)), (left, top))
            for line, (text, colour) in enumerate(zip(cell.caption, cell.colours, strict=False)):
                draw_text(
                    draw,
                    (left, top + height + 2 + line * layout.caption_line_px),
                    text,
                    size_px=layout.caption_font_px,
                    width_px=width,
                    colour=colour,
                )
        top += height + caption_px + layout.gap_px
    return sheet


def _split_rows(
    cells: Sequence[Cell], layout: SheetLayout
) -> Iterator[tuple[Sequence[Cell], float]]:
    """Yield rows of about equal length, and the maximum height of each in pixels."""
    columns = layout.columns
    if layout.is_grid:
        width_px = (layout.width_px - layout.gap_px * (columns + 1)) / columns
        for start in range(0, len(cells), columns):
            row = cells[start : start + columns]
            yield row, width_px / max(cell.aspect for cell in row)
    elif len(cells) < columns:
        yield cells, layout.width_px / 4
    else:
        ends = np.cumsum([cell.aspect for cell in cells])
        row_count = round(len(cells) / columns)
        numbers = ((ends - ends[0] / 2) / ends[-1] * row_count).astype(np.int64)
        numbers = np.minimum(numbers, row_count - 1)
        for number in np.unique(numbers):
            yield [cells[index] for index in np.flatnonzero(numbers == number).tolist()], np.inf


def _layout_row(
    row: Sequence[Cell], layout: SheetLayout, limit_px: float
) -> tuple[int, list[tuple[int, int, Cell]]]:
    """Return a row's height, and the left edge and width of each of its images."""
    available_px = layout.width_px - layout.gap_px * (len(row) + 1)
    height_px = round(min(available_px / sum(cell.aspect for cell in row), limit_px))
    positions = []
    left = layout.gap_px
    for cell in row:
        width = max(1, round(height_px * cell.aspect))
        positions.append((left, width, cell))
        left += width + layout.gap_px
    return height_px, positions


def _draw_legend(draw: ImageDraw.ImageDraw, styles: Sequence[Style], layout: SheetLayout) -> float:
    """Draw a sample of each style of box; return the left edge of the legend."""
    size_px = layout.legend_font_px
    face = font(size_px)
    middle = layout.header_px / 2
    widths = [_SAMPLE_WH[0] + 8 + face.getlength(style.name) + 22 for style in styles]
    start = left = layout.width_px - layout.gap_px - sum(widths) + (22 if styles else 0)
    for style, width in zip(styles, widths, strict=True):
        top = middle - _SAMPLE_WH[1] / 2
        background = (left - 3, top - 3, left + _SAMPLE_WH[0] + 3, top + _SAMPLE_WH[1] + 3)
        draw.rectangle(background, fill=_SAMPLE_BACKGROUND)
        draw_box(draw, (left, top, left + _SAMPLE_WH[0], top + _SAMPLE_WH[1]), style)
        position = (left + _SAMPLE_WH[0] + 9, middle)
        draw_text(draw, position, style.name, size_px=size_px, width_px=width, anchor="lm")
        left += width
    return start
