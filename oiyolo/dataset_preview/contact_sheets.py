"""Draw contact sheets: samples of each split, rotated images, extreme boxes and duplicates."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.core.results import pluralize
from oiyolo.dataset_preview.sampling import Sample, extreme_boxes, in_two_splits, random_ids
from oiyolo.drawing import marks, text
from oiyolo.drawing.sheet import Cell, SheetLayout, contact_sheet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.dataset_preview.dataset import Pair, PreviewDataset

_LAYOUT: Final = SheetLayout(
    columns=4,
    is_grid=True,  # so that an id fits below each image
    width_px=1200,
    title_font_px=28,
    legend_font_px=20,
    caption_font_px=20,
    gap_px=12,
)
_PAIRS_LAYOUT: Final = dataclasses.replace(_LAYOUT, columns=2)
_ASPECT: Final = 4 / 3
"""Aspect of a cell that shows an image; images of another aspect leave a margin."""
_MAX_NAMED_LABELS: Final = 5
"""With more labels, each class is named only once, because names would hide the objects."""
_LABEL_PX: Final = 19
_MAX_NAME_CHARS: Final = 18
_CROP_FACTOR: Final = 3.0
"""Side of a crop, as a multiple of the longer side of the box."""
_MIN_CROP: Final = 0.08
"""Minimum side of a crop, as a share of the shorter side of the image: a box needs context."""
_PAIR_GAP_PX: Final = 4
_MIN_SIDE_PX: Final = 8
"""Minimum side of an image as shown, which matters for very narrow images."""
_PLACEHOLDER_COLOUR: Final = (225, 228, 231)
_FRAME_COLOUR: Final = (243, 245, 247)

_UNUSED: Final = marks.Style("box not used as label", marks.GREY, 2, (4, 4))
_NEGATIVE: Final = marks.Style("negative", text.WHITE, 1)
_CLASS_COLOURS: Final = (
    *(marks.SKY, marks.ORANGE, marks.YELLOW),
    *(marks.PURPLE, marks.GREEN, marks.VERMILION),
)

_NO_ROWS: Final = np.array([], dtype=np.int64)

SheetKind = Literal["random", "smallest", "largest"]
Region = tuple[float, float, float, float]
_WHOLE: Final[Region] = (0.0, 0.0, 1.0, 1.0)


def draw_sheets(dataset: PreviewDataset, sample: Sample) -> Iterator[tuple[str, Image.Image]]:
    """Draw the sheets that have something to show; yield the name of each and the sheet."""
    for split, ids in sample.grids.items():
        yield split, _draw_grid(dataset, sample, split, ids)
    for number, ids in enumerate(sample.rotated, start=1):
        yield f"rotated-{number}", _draw_rotated(dataset, sample, number, ids)
    for name, rows in (("smallest", sample.smallest), ("largest", sample.largest)):
        if rows:
            yield name, _draw_extremes(dataset, name, rows)
    if sample.duplicates:
        yield "duplicates", _draw_duplicates(dataset, sample.duplicates)


def draw_sheet(dataset: PreviewDataset, kind: SheetKind, count: int) -> Image.Image:
    """Draw one sheet of a dataset whose images need not be in splits.

    Args:
        dataset: The dataset, with at least one label.
        kind: Which images: "random", or those with the "smallest" or "largest" boxes.
        count: Maximum number of images.
    """
    if kind != "random":
        rows = extreme_boxes(dataset, count, largest=kind == "largest")
        return _draw_extremes(dataset, kind, rows)
    ids = random_ids(dataset.split_by_id, count)
    sample = Sample({}, [], 0, [], [], [], dataset.rows_by_id(ids))
    title = f"{len(ids):,} of {pluralize(len(dataset.split_by_id), 'prepared image')}"
    return _draw_images(dataset, sample, title, {i: _object_caption(dataset, i) for i in ids})


def _draw_grid(
    dataset: PreviewDataset, sample: Sample, split: str, ids: Sequence[str]
) -> Image.Image:
    total = len(dataset.ids_by_split[split])
    title = f"{split}: " + ("all" if len(ids) == total else f"{len(ids)} of")
    title += f" {pluralize(total, 'image')}" + (", chosen at random" if len(ids) < total else "")
    captions = {i: _object_caption(dataset, i) for i in ids}
    return _draw_images(dataset, sample, title, captions)


def _draw_rotated(
    dataset: PreviewDataset, sample: Sample, number: int, ids: Sequence[str]
) -> Image.Image:
    title = f"rotated: {pluralize(sample.rotated_total, 'image')}"
    if len(sample.rotated) > 1:
        title += f", sheet {number} of {len(sample.rotated)}"
    if sample.hidden_rotated and number == len(sample.rotated):
        title += f"; {sample.hidden_rotated:,} more not shown"
    captions = {i: f"{dataset.split_by_id[i]} · {_rotation_caption(dataset, i)}" for i in ids}
    return _draw_images(dataset, sample, title, captions)


def _draw_images(
    dataset: PreviewDataset, sample: Sample, title: str, captions: Mapping[str, str]
) -> Image.Image:
    """Draw a sheet of images with all of their boxes, each with a caption."""
    cells = [_image_cell(dataset, sample, i, caption) for i, caption in captions.items()]
    rows = [sample.rows_by_id.get(i, _NO_ROWS) for i in captions]
    legend = [] if dataset.used[np.concatenate(rows)].all() else [_UNUSED]
    return contact_sheet(cells, title=title, legend=legend, layout=_LAYOUT)


def _draw_extremes(dataset: PreviewDataset, name: str, rows: Sequence[int]) -> Image.Image:
    width, height = dataset.size_wh
    subject = "smallest boxes" if name == "smallest" else "largest boxes"
    title = f"{subject}, at most one per image, in px at {width} x {height}"
    return contact_sheet(
        [_box_cell(dataset, row) for row in rows], title=title, legend=(), layout=_LAYOUT
    )


def _draw_duplicates(dataset: PreviewDataset, pairs: Sequence[Pair]) -> Image.Image:
    total = len(dataset.duplicates)
    title = "suspected duplicates: " + ("all " if len(pairs) == total else f"{len(pairs)} of ")
    title += pluralize(total, "pair") + (", the least similar" if len(pairs) < total else "")
    cells = [_pair_cell(dataset, pair) for pair in pairs]
    return contact_sheet(cells, title=title, legend=(), layout=_PAIRS_LAYOUT)


def _object_caption(dataset: PreviewDataset, image_id: str) -> str:
    labels = int(dataset.label_count_by_id.get(image_id, 0))
    caption = pluralize(labels, "object") if labels else "negative"
    if dataset.rotation_by_id.get(image_id):
        caption += f" · {_rotation_caption(dataset, image_id)}"
    return caption


def _rotation_caption(dataset: PreviewDataset, image_id: str) -> str:
    return f"rotated {dataset.rotation_by_id[image_id]}°"


def _image_cell(dataset: PreviewDataset, sample: Sample, image_id: str, caption: str) -> Cell:
    def draw(size_wh: tuple[int, int]) -> Image.Image:
        inner_wh = _fit(_aspect(dataset, image_id), size_wh)
        image = _load_image(dataset.image_path(image_id), inner_wh)
        _draw_boxes(image, dataset, sample, image_id)
        return _paste_in_frame(image, size_wh)

    return Cell(_ASPECT, (image_id, caption), draw)


def _draw_boxes(image: Image.Image, dataset: PreviewDataset, sample: Sample, image_id: str) -> None:
    """Draw all boxes of an image on it, and the class names of those that are labels."""
    draw = ImageDraw.Draw(image, "RGBA")
    rows = sample.rows_by_id.get(image_id, _NO_ROWS)
    boxes = marks.to_pixels(dataset.xyxy[rows], image.size)
    class_ids = dataset.boxes["class_id"].to_numpy()[rows].tolist()
    used = dataset.used[rows].tolist()
    styles = [
        _style(class_id) if is_label else _UNUSED
        for class_id, is_label in zip(class_ids, used, strict=True)
    ]
    for box, style in zip(boxes, styles, strict=True):
        marks.draw_box(draw, box, style)
    occupied: list[marks.Corners] = []
    named_ids: set[int] = set()
    is_crowded = sum(used) > _MAX_NAMED_LABELS
    for box, style, class_id, is_label in zip(boxes, styles, class_ids, used, strict=True):
        if not is_label or (is_crowded and class_id in named_ids):
            continue
        # Each class is named at least once, and again where there is room.
        if marks.draw_label(
            draw,
            box,
            _shorten(legible_name(dataset, class_id)),
            style,
            size_wh=image.size,
            occupied=occupied,
            font_px=_LABEL_PX,
            force=class_id not in named_ids,
        ):
            named_ids.add(class_id)
    if image_id not in dataset.label_count_by_id.index:
        corners = (0.0, 0.0, image.width - 1.0, image.height - 1.0)
        marks.draw_label(
            draw,
            corners,
            "negative",
            _NEGATIVE,
            size_wh=image.size,
            occupied=occupied,
            font_px=_LABEL_PX,
        )


def legible_name(dataset: PreviewDataset, class_id: int) -> str:
    """Return a class's name; "class" and the id if no installed font can draw the name."""
    name = dataset.class_name(class_id)
    return name if text.is_drawable(name) else f"class {class_id}"


def _shorten(name: str) -> str:
    """Shorten a name that would cover much of the image."""
    return name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 3] + "..."


def _style(class_id: int) -> marks.Style:
    return marks.Style("label", _CLASS_COLOURS[class_id % len(_CLASS_COLOURS)], 3)


def _box_cell(dataset: PreviewDataset, row: int) -> Cell:
    label = dataset.labels.loc[[row]].to_dict("records")[0]
    image_id, class_id = label["image_id"], label["class_id"]
    xyxy = dataset.xyxy[row : row + 1]
    aspect = _aspect(dataset, image_id)
    region = crop_region(tuple(xyxy[0].tolist()), aspect)
    left, top, right, bottom = region

    shown_aspect = aspect * (right - left) / (bottom - top)

    def draw(size_wh: tuple[int, int]) -> Image.Image:
        inner_wh = _fit(shown_aspect, size_wh)
        image = _load_image(dataset.image_path(image_id), inner_wh, region)
        xyxy_in_region = (xyxy - [left, top, left, top]) / (
            [right - left, bottom - top, right - left, bottom - top]
        )
        (box,) = marks.to_pixels(xyxy_in_region, inner_wh)
        marks.draw_box(ImageDraw.Draw(image, "RGBA"), box, _style(class_id))
        return _paste_in_frame(image, size_wh)

    size = f"{label['w_px']:.3g} x {label['h_px']:.3g} px · {label['area']:.2%}"
    name = legible_name(dataset, class_id)
    caption = (size, image_id, f"{name} · {label['split']}")
    return Cell(1.0, caption, draw)


def crop_region(xyxy: Region, aspect: float) -> Region:
    """Return the part of an image that shows a box with its surroundings.

    Args:
        xyxy: The box as fractions of the image.
        aspect: Width divided by height of the image as shown.

    Returns:
        The left, top, right and bottom edges of the part, which contains the box, as fractions. The
        part is square as shown if the image is large enough.
    """
    x1, y1, x2, y2 = xyxy
    # In units of the height as shown, in which a square has equal sides.
    longer_side = max((x2 - x1) * aspect, y2 - y1)
    side = max(_CROP_FACTOR * longer_side, _MIN_CROP * min(aspect, 1.0))
    width, height = min(side / aspect, 1.0), min(side, 1.0)
    left = min(max((x1 + x2 - width) / 2, 0.0), 1.0 - width)
    top = min(max((y1 + y2 - height) / 2, 0.0), 1.0 - height)
    return left, top, left + width, top + height


def _pair_cell(dataset: PreviewDataset, pair: Pair) -> Cell:
    ids = (pair.first, pair.second)

    def draw(size_wh: tuple[int, int]) -> Image.Image:
        half_wh = ((size_wh[0] - _PAIR_GAP_PX) // 2, size_wh[1])
        both = Image.new("RGB", size_wh, text.WHITE)
        for image_id, left in zip(ids, (0, half_wh[0] + _PAIR_GAP_PX), strict=True):
            inner_wh = _fit(_aspect(dataset, image_id), half_wh)
            image = _load_image(dataset.image_path(image_id), inner_wh)
            both.paste(_paste_in_frame(image, half_wh), (left, 0))
        return both

    splits = [dataset.split_by_id.get(i, "in no split") for i in ids]
    is_leak = in_two_splits(dataset, pair)
    caption = (
        f"distance {pair.distance}" + (": IN TWO SPLITS" if is_leak else ""),
        f"left: {ids[0]} · {splits[0]}",
        f"right: {ids[1]} · {splits[1]}",
    )
    colours = (marks.VERMILION if is_leak else text.INK, text.FAINT, text.FAINT)
    return Cell(2 * _ASPECT, caption, draw, colours)


def shown_size_wh(dataset: PreviewDataset, image_id: str) -> tuple[int, int]:
    """Return a width and height in the aspect of an image as shown; 4:3 if it cannot be read."""
    return dataset.original_sizes_wh.get(image_id) or _size_of(dataset.image_path(image_id))


def _aspect(dataset: PreviewDataset, image_id: str) -> float:
    width, height = shown_size_wh(dataset, image_id)
    return width / height


def _fit(aspect: float, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height of an aspect that fit in a frame."""
    width, height = size_wh
    return (
        max(_MIN_SIDE_PX, min(width, round(height * aspect))),
        max(_MIN_SIDE_PX, min(height, round(width / aspect))),
    )


def _paste_in_frame(image: Image.Image, size_wh: tuple[int, int]) -> Image.Image:
    """Return a frame with an image at its left edge, where captions begin, in the middle."""
    frame = Image.new("RGB", size_wh, _FRAME_COLOUR)
    frame.paste(image, (0, (size_wh[1] - image.height) // 2))
    return frame


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 4, 3


def _load_image(path: Path, size_wh: tuple[int, int], region: Region = _WHOLE) -> Image.Image:
    """Decode a part of an image at a size; return a placeholder if it cannot be read."""
    x1, y1, x2, y2 = region
    try:
        with Image.open(path) as image:
            needed_wh = (math.ceil(size_wh[0] / (x2 - x1)), math.ceil(size_wh[1] / (y2 - y1)))
            # libjpeg scales while it decodes, never below the requested size.
            image.draft("RGB", needed_wh)
            w, h = image.size
            is_reduced = size_wh[0] < (x2 - x1) * w
            resampling = Image.Resampling.LANCZOS if is_reduced else Image.Resampling.BICUBIC
            return image.convert("RGB").resize(
                size_wh, resampling, box=(x1 * w, y1 * h, x2 * w, y2 * h)
            )
    except FileNotFoundError:
        return _placeholder(size_wh, "file is missing")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _placeholder(size_wh, "cannot be read")


def _placeholder(size_wh: tuple[int, int], message: str) -> Image.Image:
    image = Image.new("RGB", size_wh, _PLACEHOLDER_COLOUR)
    text.draw_text(
        ImageDraw.Draw(image),
        (size_wh[0] / 2, size_wh[1] / 2),
        message,
        size_px=_LABEL_PX,
        width_px=size_wh[0],
        colour=text.FAINT,
        anchor="mm",
    )
    return image
