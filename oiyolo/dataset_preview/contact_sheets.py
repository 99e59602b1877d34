"""Contact sheets of a dataset: a grid of each split, the rotated, extreme boxes, duplicates."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.core.results import count
from oiyolo.dataset_preview.sampling import in_two_splits
from oiyolo.drawing import marks, text
from oiyolo.drawing.sheet import Cell, Form, contact_sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.dataset_preview.facts import Facts, Pair
    from oiyolo.dataset_preview.sampling import Chosen

_FORM: Final = Form(
    columns=4,
    is_grid=True,  # so that an id has room below each picture
    width_px=1200,
    title_font_px=28,
    legend_font_px=20,
    caption_font_px=20,
    gap_px=12,
)
_PAIRS_FORM: Final = dataclasses.replace(_FORM, columns=2)
_ASPECT: Final = 4 / 3
"""Of a cell that shows an image; others stand in it with room at their sides."""
_CROWD: Final = 5
"""From more labels than that on, each class is named once: names would hide what they name."""
_LABEL_PX: Final = 19
_NAME_LETTERS: Final = 18
_CROP_SIDES: Final = 3.0
"""How many times as long as the box's longer side a crop is."""
_LEAST_CROP: Final = 0.08
"""A crop's least side as a share of the picture's shorter one: a box needs its surroundings."""
_PAIR_GAP_PX: Final = 4
_LEAST_PX: Final = 8
"""Of a picture like a ribbon, so that there is something to see."""
_BLANK: Final = (225, 228, 231)
_ROOM: Final = (243, 245, 247)

_DROPPED: Final = marks.Style("box that is no label", marks.GREY, 2, (4, 4))
_NEGATIVE: Final = marks.Style("negative", text.WHITE, 1)
_BY_CLASS: Final = tuple(
    marks.Style("label", colour, 3)
    for colour in (
        marks.SKY,
        marks.ORANGE,
        marks.YELLOW,
        marks.PURPLE,
        marks.GREEN,
        marks.VERMILION,
    )
)

_NO_ROWS: Final = np.array([], dtype=np.int64)

Region = tuple[float, float, float, float]
_WHOLE: Final[Region] = (0.0, 0.0, 1.0, 1.0)


class Sheet(NamedTuple):
    """A sheet to be drawn: its file's name without an ending, and what draws it."""

    name: str
    draw: Callable[[], Image.Image]


def sheets(facts: Facts, chosen: Chosen) -> Iterator[Sheet]:
    """Give all sheets that have something to show, each to be drawn when it is its turn."""
    for split, ids in chosen.grids.items():
        yield Sheet(split, functools.partial(_grid, facts, chosen, split, ids))
    for number, ids in enumerate(chosen.rotated, start=1):
        name = f"rotated-{number}"
        yield Sheet(name, functools.partial(_rotated, facts, chosen, number, ids))
    for name, rows in (("smallest", chosen.smallest), ("largest", chosen.largest)):
        if rows:
            yield Sheet(name, functools.partial(_extremes, facts, name, rows))
    if chosen.duplicates:
        yield Sheet("duplicates", functools.partial(_duplicates, facts, chosen.duplicates))


def _grid(facts: Facts, chosen: Chosen, split: str, ids: Sequence[str]) -> Image.Image:
    total = len(facts.ids_of[split])
    shown = "all" if len(ids) == total else f"{len(ids)} of"
    title = f"{split}: {shown} {count(total, 'image')}" + (", by lot" if len(ids) < total else "")
    cells = [_image_cell(facts, chosen, i, _objects(facts, i)) for i in ids]
    return contact_sheet(cells, title=title, legend=_legend(facts, chosen, ids), form=_FORM)


def _rotated(facts: Facts, chosen: Chosen, number: int, ids: Sequence[str]) -> Image.Image:
    title = f"turned upright: {count(chosen.rotated_total, 'image')}"
    if len(chosen.rotated) > 1:
        title += f", sheet {number} of {len(chosen.rotated)}"
    more = chosen.rotated_total - sum(map(len, chosen.rotated))
    if more and number == len(chosen.rotated):
        title += f"; {more:,} more are not shown"
    cells = [
        _image_cell(facts, chosen, i, f"{facts.split_by_id[i]} · turned {facts.rotation_by_id[i]}°")
        for i in ids
    ]
    return contact_sheet(cells, title=title, legend=_legend(facts, chosen, ids), form=_FORM)


def _extremes(facts: Facts, name: str, rows: Sequence[int]) -> Image.Image:
    width, height = facts.size_wh
    what = "the smallest boxes" if name == "smallest" else "the largest boxes"
    title = f"{what}, at most one of an image, in px of {width} x {height}"
    return contact_sheet(
        [_box_cell(facts, row) for row in rows], title=title, legend=(), form=_FORM
    )


def _duplicates(facts: Facts, pairs: Sequence[Pair]) -> Image.Image:
    total = len(facts.duplicates)
    title = "suspected duplicates: " + ("all " if len(pairs) == total else f"{len(pairs)} of ")
    title += count(total, "pair") + (", the least alike" if len(pairs) < total else "")
    cells = [_pair_cell(facts, pair) for pair in pairs]
    return contact_sheet(cells, title=title, legend=(), form=_PAIRS_FORM)


def _objects(facts: Facts, image_id: str) -> str:
    labels = int(facts.labels_in.get(image_id, 0))
    told = count(labels, "object") if labels else "negative: no object"
    turned = facts.rotation_by_id.get(image_id, 0)
    return f"{told} · turned {turned}°" if turned else told


def _legend(facts: Facts, chosen: Chosen, ids: Sequence[str]) -> list[marks.Style]:
    dropped = any((~facts.used[chosen.rows_of[i]]).any() for i in ids if i in chosen.rows_of)
    return [_DROPPED] if dropped else []


def _image_cell(facts: Facts, chosen: Chosen, image_id: str, told: str) -> Cell:
    def draw(size_wh: tuple[int, int]) -> Image.Image:
        inner_wh = _fitted(_aspect(facts, image_id), size_wh)
        picture = _picture(facts.image_path(image_id), inner_wh)
        _mark(picture, facts, chosen, image_id)
        return _framed(picture, size_wh)

    return Cell(_ASPECT, (image_id, told), draw)


def _mark(picture: Image.Image, facts: Facts, chosen: Chosen, image_id: str) -> None:
    """Draw all boxes of an image on it, and the names of those that are labels."""
    pen = ImageDraw.Draw(picture, "RGBA")
    rows = chosen.rows_of.get(image_id, _NO_ROWS)
    boxes = marks.to_pixels(facts.xyxy[rows], picture.size)
    class_ids = facts.boxes["class_id"].to_numpy()[rows].tolist()
    used = facts.used[rows].tolist()
    styles = [
        _style(class_id) if label else _DROPPED
        for class_id, label in zip(class_ids, used, strict=True)
    ]
    for box, style in zip(boxes, styles, strict=True):
        marks.draw_box(pen, box, style)
    taken: list[marks.Corners] = []
    named: set[int] = set()
    crowd = sum(used) > _CROWD
    for box, style, class_id, label in zip(boxes, styles, class_ids, used, strict=True):
        if not label or (crowd and class_id in named):
            continue
        # Each class is named once at any price, and again where there is room.
        if marks.draw_label(
            pen,
            box,
            _cut(legible_name(facts, class_id)),
            style,
            size_wh=picture.size,
            taken=taken,
            font_px=_LABEL_PX,
            at_any_price=class_id not in named,
        ):
            named.add(class_id)
    if image_id not in facts.labels_in.index:
        corner = (0.0, 0.0, picture.width - 1.0, picture.height - 1.0)
        marks.draw_label(
            pen, corner, "negative", _NEGATIVE, size_wh=picture.size, taken=taken, font_px=_LABEL_PX
        )


def legible_name(facts: Facts, class_id: int) -> str:
    """Give a class's name, or its number where no font here has the name's letters."""
    name = facts.class_name(class_id)
    return name if text.is_drawable(name) else f"class {class_id}"


def _cut(name: str) -> str:
    """Shorten a name that would lie across the whole picture."""
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 3] + "..."


def _style(class_id: int) -> marks.Style:
    return _BY_CLASS[class_id % len(_BY_CLASS)]


def _box_cell(facts: Facts, row: int) -> Cell:
    label = facts.labels.loc[[row]].to_dict("records")[0]
    image_id, class_id = label["image_id"], label["class_id"]
    xyxy = facts.xyxy[row : row + 1]
    aspect = _aspect(facts, image_id)
    region = crop_region(tuple(xyxy[0].tolist()), aspect)
    left, top, right, bottom = region

    shown_aspect = aspect * (right - left) / (bottom - top)

    def draw(size_wh: tuple[int, int]) -> Image.Image:
        inner_wh = _fitted(shown_aspect, size_wh)
        picture = _picture(facts.image_path(image_id), inner_wh, region)
        inside = (xyxy - [left, top, left, top]) / (
            [right - left, bottom - top, right - left, bottom - top]
        )
        (box,) = marks.to_pixels(inside, inner_wh)
        marks.draw_box(ImageDraw.Draw(picture, "RGBA"), box, _style(class_id))
        return _framed(picture, size_wh)

    size = f"{label['w_px']:.3g} x {label['h_px']:.3g} px · {label['area']:.2%}"
    name = legible_name(facts, class_id)
    caption = (size, image_id, f"{name} · {label['split']}")
    return Cell(1.0, caption, draw)


def crop_region(xyxy: Region, aspect: float) -> Region:
    """Give what to show of a picture so that a box is seen among its surroundings.

    Args:
        xyxy: The box, fractions of the picture.
        aspect: Width divided by height of the picture as shown.

    Returns:
        A part of the picture that holds the box, fractions; square as shown where the picture
        allows it.
    """
    x1, y1, x2, y2 = xyxy
    # In heights of the picture as shown, in which a square is a square.
    longer = max((x2 - x1) * aspect, y2 - y1)
    side = max(_CROP_SIDES * longer, _LEAST_CROP * min(aspect, 1.0))
    width, height = min(side / aspect, 1.0), min(side, 1.0)
    left = min(max((x1 + x2 - width) / 2, 0.0), 1.0 - width)
    top = min(max((y1 + y2 - height) / 2, 0.0), 1.0 - height)
    return left, top, left + width, top + height


def _pair_cell(facts: Facts, pair: Pair) -> Cell:
    ids = (pair.first, pair.second)

    def draw(size_wh: tuple[int, int]) -> Image.Image:
        half_wh = ((size_wh[0] - _PAIR_GAP_PX) // 2, size_wh[1])
        both = Image.new("RGB", size_wh, text.WHITE)
        for image_id, left in zip(ids, (0, half_wh[0] + _PAIR_GAP_PX), strict=True):
            inner_wh = _fitted(_aspect(facts, image_id), half_wh)
            picture = _picture(facts.image_path(image_id), inner_wh)
            both.paste(_framed(picture, half_wh), (left, 0))
        return both

    splits = [facts.split_by_id.get(i, "in no split") for i in ids]
    leak = in_two_splits(facts, pair)
    caption = (
        f"distance {pair.distance}" + (": IN TWO SPLITS" if leak else ""),
        f"left: {ids[0]} · {splits[0]}",
        f"right: {ids[1]} · {splits[1]}",
    )
    colours = (marks.VERMILION if leak else text.INK, text.FAINT, text.FAINT)
    return Cell(2 * _ASPECT, caption, draw, colours)


def _aspect(facts: Facts, image_id: str) -> float:
    """Give width divided by height of a picture as shown; of one that cannot be read, 4:3."""
    size_wh = facts.original_sizes_wh.get(image_id) or _size_of(facts.image_path(image_id))
    return size_wh[0] / size_wh[1]


def _fitted(aspect: float, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Give the largest width and height of an aspect in a frame."""
    width, height = size_wh
    return (
        max(_LEAST_PX, min(width, round(height * aspect))),
        max(_LEAST_PX, min(height, round(width / aspect))),
    )


def _framed(picture: Image.Image, size_wh: tuple[int, int]) -> Image.Image:
    """Put a picture at the left of a frame (its caption begins there), half-way down."""
    framed = Image.new("RGB", size_wh, _ROOM)
    framed.paste(picture, (0, (size_wh[1] - picture.height) // 2))
    return framed


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 4, 3


def _picture(path: Path, size_wh: tuple[int, int], region: Region = _WHOLE) -> Image.Image:
    """Decode a part of a picture at a size; a grey one that says so where that cannot be done."""
    x1, y1, x2, y2 = region
    try:
        with Image.open(path) as image:
            needed = (math.ceil(size_wh[0] / (x2 - x1)), math.ceil(size_wh[1] / (y2 - y1)))
            # libjpeg scales while it decodes, never below what is asked for.
            image.draft("RGB", needed)
            w, h = image.size
            smaller = size_wh[0] < (x2 - x1) * w
            way = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
            return image.convert("RGB").resize(size_wh, way, box=(x1 * w, y1 * h, x2 * w, y2 * h))
    except FileNotFoundError:
        return _blank(size_wh, "no file")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _blank(size_wh, "cannot be read")


def _blank(size_wh: tuple[int, int], told: str) -> Image.Image:
    picture = Image.new("RGB", size_wh, _BLANK)
    text.write(
        ImageDraw.Draw(picture),
        (size_wh[0] / 2, size_wh[1] / 2),
        told,
        size_px=_LABEL_PX,
        width_px=size_wh[0],
        colour=text.FAINT,
        anchor="mm",
    )
    return picture
