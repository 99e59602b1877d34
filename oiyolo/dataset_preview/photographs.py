"""Draw photographs as they were fetched, with the boxes that Open Images has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Picture, pluralize
from oiyolo.dataset_preview.sampling import random_ids
from oiyolo.drawing import marks
from oiyolo.drawing.sheet import Cell, SheetLayout, contact_sheet
from oiyolo.openimages.selection import CORNERS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.boxes import Boxes

_LAYOUT: Final = SheetLayout(columns=4, width_px=1100, title_font_px=20, caption_font_px=13)
_BOX: Final = marks.Style("box", marks.ORANGE, 3)
_GROUP: Final = marks.Style("group-of box", marks.PURPLE, 3, (8, 5))


def draw_photographs(boxes: pd.DataFrame, folder: Path, count: int) -> Picture:
    """Return a contact sheet of photographs with all of their boxes.

    Neither EXIF nor Open Images' rotation is applied, because the corners refer to the stored
    pixels.

    Args:
        boxes: The boxes, as in ``data/selection/boxes.csv``.
        folder: The folder of the photographs, ``<ImageID>.jpg``.
        count: Maximum number of photographs.

    Raises:
        UsageError: There are no photographs of these boxes.
    """
    present = {path.stem for path in folder.glob("*.jpg")}
    cells: list[Cell] = []
    for image_id in random_ids(present.intersection(boxes["ImageID"]), len(present)):
        if len(cells) == count:
            break
        rows = boxes[boxes["ImageID"] == image_id]
        groups = (rows["IsGroupOf"] == 1).to_numpy(dtype=bool)
        xyxy = rows[list(CORNERS)].to_numpy(dtype=np.float64)
        if cell := _cell(folder / f"{image_id}.jpg", xyxy, groups):
            cells.append(cell)
    if not cells:
        raise UsageError(
            "no selected image with boxes has been fetched",
            where=str(folder),
            remedy="Run `oiyolo fetch` first",
        )
    title = f"{pluralize(len(cells), 'photograph')} as fetched"
    sheet = contact_sheet(cells, title=title, legend=(_BOX, _GROUP), layout=_LAYOUT)
    return Picture(sheet, title)


def _cell(path: Path, xyxy: Boxes, groups: npt.NDArray[np.bool_]) -> Cell | None:
    """Return a photograph for the contact sheet; ``None`` if it cannot be decoded."""

    def draw(size_wh: tuple[int, int]) -> Image.Image:
        with Image.open(path) as image:
            image.draft("RGB", size_wh)  # libjpeg scales while it decodes
            shown = image.convert("RGB").resize(size_wh)
        pen = ImageDraw.Draw(shown, "RGBA")
        for box, is_group in zip(marks.to_pixels(xyxy, size_wh), groups, strict=True):
            marks.draw_box(pen, box, _GROUP if is_group else _BOX)
        return shown

    try:
        with Image.open(path) as image:
            width, height = image.size
            image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return Cell(width / height, (path.stem, pluralize(len(xyxy), "box")), draw)
