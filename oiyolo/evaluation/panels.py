"""Pictures of what a detector finds, takes for something else, and misses.

``judge_images`` decides; ``draw_detections`` and ``contact_sheet`` draw in memory;
``save_panels`` alone reads and writes files. The colours are Okabe and Ito's, which people with
any colour vision tell apart (https://jfly.uni-koeln.de/color/); the line of each kind differs too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from oiyolo.errors import InputFormError
from oiyolo.evaluation.matching import match
from oiyolo.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Boxes
    from oiyolo.evaluation.tables import Detections, Flags, GroundTruth, Ints

OVERVIEW = "overview.png"
WORST = "worst.png"

_Colour = tuple[int, int, int]
_Box = tuple[float, float, float, float]

_WHITE: _Colour = (255, 255, 255)
_INK: _Colour = (33, 37, 41)
_FAINT: _Colour = (110, 116, 122)


@dataclasses.dataclass(frozen=True)
class _Style:
    """How one kind of box is drawn: ``dash_px`` is a dash and the gap after it, 0 for none."""

    name: str
    colour: _Colour
    width_px: int
    dash_px: tuple[int, int] = (0, 0)


_TRUE = _Style("true box", _WHITE, 1)
_REGION = _Style("group-of region", (187, 187, 187), 1, (3, 4))
_HIT = _Style("found", (86, 180, 233), 3)
_FALSE_ALARM = _Style("false alarm", (230, 97, 0), 3, (12, 5))
_MISS = _Style("missed", (240, 228, 66), 3, (4, 4))

_GAP_PX = 10
_CAPTION_LINE_PX = 16
_LABEL_FONT_PX = 13
_CAPTION_FONT_PX = 12
_TITLE_FONT_PX = 22
_LEGEND_FONT_PX = 15
_DARK_TEXT_FROM = 140  # luma (ITU-R BT.601), 0 to 255


@dataclasses.dataclass(frozen=True, eq=False)
class Marks:
    """Boxes of one kind on one image.

    Attributes:
        xyxy: Boxes, shape (n, 4), fractions of the image.
        labels: What to write on each, length n; "" for nothing.
    """

    xyxy: Boxes
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What a detector got right and wrong on one image, at fixed score thresholds.

    Attributes:
        image_id: The image.
        classes: Ids of the classes that have a box in the image.
        true: The true boxes that were found.
        regions: Group-of boxes.
        hits: Detections that found a true box.
        false_alarms: Detections that found none.
        misses: True boxes that no detection found.
    """

    image_id: str
    classes: frozenset[int]
    true: Marks
    regions: Marks
    hits: Marks
    false_alarms: Marks
    misses: Marks

    @property
    def errors(self) -> int:
        """False alarms and misses together."""
        return len(self.false_alarms) + len(self.misses)

    def __str__(self) -> str:
        counts = (
            f"{len(marks)} {style.name}{'s' if style is _FALSE_ALARM and len(marks) > 1 else ''}"
            for marks, style in _layers(self)
            if len(marks) and style not in {_TRUE, _REGION}
        )
        nothing = "group-of region only" if len(self.regions) else "nothing there, nothing found"
        return ", ".join(counts) or nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture on a contact sheet.

    Attributes:
        image: The pixels that the detector was shown.
        verdict: What is drawn on them.
        aspect: Width divided by height of the original photograph, which preparation may have
            stretched; ``None`` for the image's own.
    """

    image: Image.Image
    verdict: Verdict
    aspect: float | None = None

    @property
    def shown_aspect(self) -> float:
        """Width divided by height as shown."""
        return self.aspect or self.image.width / self.image.height


def judge_images(
    detections: Detections,
    truth: GroundTruth,
    class_names: Sequence[str],
    score_thresholds: Sequence[float],
) -> tuple[Verdict, ...]:
    """Sort the boxes of every image into found, false alarm and missed.

    Args:
        detections: What the detector claims.
        truth: What is there.
        class_names: The classes.
        score_thresholds: The lowest score that is shown, for each class; nan shows none of it
            (``Evaluation.score_thresholds`` has them).

    Returns:
        One verdict per image of ``truth``, in its order.

    Raises:
        ValueError: A detection lies on an image that ``truth`` does not have.
    """
    detections = detections.over(truth.image_ids)
    thresholds = np.asarray(score_thresholds, dtype=np.float64)
    detections = detections.where(detections.score >= thresholds[detections.class_id])
    matches = match(detections, truth)
    named = len(class_names) > 1
    scores = [
        f"{class_names[c]} {s:.2f}" if named else f"{s:.2f}"
        for c, s in zip(detections.class_id.tolist(), detections.score.tolist(), strict=True)
    ]
    names = [class_names[c] if named else "" for c in truth.class_id.tolist()]
    found = matches.counted & ~matches.false_negative
    image_count = len(truth.image_ids)
    kinds = [
        _by_image(image_count, table.image, flags, table.xyxy, labels)
        for table, flags, labels in (
            (truth, found, [""] * len(truth)),
            (truth, ~matches.counted, names),
            (detections, matches.true_positive, scores),
            (detections, matches.false_positive, scores),
            (truth, matches.false_negative, names),
        )
    ]
    classes: list[set[int]] = [set() for _ in range(image_count)]
    for image, class_id in zip(truth.image.tolist(), truth.class_id.tolist(), strict=True):
        classes[image].add(class_id)
    return tuple(
        Verdict(image_id, frozenset(classes[place]), *(kind[place] for kind in kinds))
        for place, image_id in enumerate(truth.image_ids)
    )


def choose_overview(verdicts: Iterable[Verdict], count: int = 12) -> tuple[Verdict, ...]:
    """Draw images by lot, the same ones every time, each class in turn.

    The lot is a hash of the image's id, so an image added to the test split displaces one at
    most. Images without any true box take every sixth place at most.
    """
    queues: dict[int, list[Verdict]] = {}
    empty: list[Verdict] = []
    for verdict in sorted(verdicts, key=_lot):
        if not verdict.classes:
            empty.append(verdict)
        for class_id in sorted(verdict.classes):
            queues.setdefault(class_id, []).append(verdict)
    in_turn = (
        verdict
        for row in itertools.zip_longest(*(queues[class_id] for class_id in sorted(queues)))
        for verdict in row
        if verdict is not None
    )
    filled = list({verdict.image_id: verdict for verdict in in_turn}.values())
    room_for_empty = max(count - len(filled), count // 6)
    chosen_empty = empty[: min(room_for_empty, count)]
    return tuple(filled[: count - len(chosen_empty)] + chosen_empty)


def choose_worst(verdicts: Iterable[Verdict], count: int = 12) -> tuple[Verdict, ...]:
    """Give the images with the most false alarms and misses, the most first; none without any."""
    wrong = [verdict for verdict in verdicts if verdict.errors]
    return tuple(sorted(wrong, key=lambda verdict: (-verdict.errors, _lot(verdict)))[:count])


def draw_detections(
    image: Image.Image, verdict: Verdict, *, size_wh: tuple[int, int] | None = None
) -> Image.Image:
    """Draw the boxes of a verdict on a copy of an image.

    Args:
        image: The image that the boxes are fractions of.
        verdict: What to draw.
        size_wh: Width and height of the result in pixels; the image's own when left out, but
            320 wide at least: on fewer pixels no label can be read.

    Returns:
        An RGB image.
    """
    if size_wh is None:
        scale = max(1.0, 320 / image.width)
        size_wh = (round(image.width * scale), round(image.height * scale))
    smaller = size_wh[0] < image.width
    filtered = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    canvas = image.convert("RGB").resize(size_wh, filtered)
    draw = ImageDraw.Draw(canvas, "RGBA")
    layers = [(_to_pixels(marks.xyxy, size_wh), marks, style) for marks, style in _layers(verdict)]
    for boxes, _, style in layers:
        for box in boxes:
            _draw_box(draw, box, style)
    taken: list[_Box] = []
    # The surest and the wrong ones come last in the layers: they get their places first.
    for boxes, marks, style in reversed(layers):
        for box, label in zip(boxes, marks.labels, strict=True):
            if label:
                _draw_label(draw, box, label, style, size_wh=size_wh, taken=taken)
    return canvas


def contact_sheet(
    pictures: Sequence[Picture], *, title: str = "", columns: int = 4, width_px: int = 1360
) -> Image.Image:
    """Lay pictures out in rows of equal width, with a title, captions and a legend.

    Args:
        pictures: The pictures; each keeps its aspect, a row gets the height that fills it.
        title: A line above the pictures.
        columns: Pictures in a row on average.
        width_px: Width of the sheet.

    Returns:
        An RGB image.
    """
    rows = [_lay_out(row, width_px, full=full) for row, full in _into_rows(pictures, columns)]
    caption_px = 2 * _CAPTION_LINE_PX + 2
    header_px = _TITLE_FONT_PX + 2 * _GAP_PX + 6
    height_px = header_px + sum(height + caption_px + _GAP_PX for height, _ in rows)
    sheet = Image.new("RGB", (width_px, height_px), _WHITE)
    draw = ImageDraw.Draw(sheet)
    legend_left = _draw_legend(draw, pictures, right_px=width_px - _GAP_PX, middle_px=header_px / 2)
    title_font = _font(_TITLE_FONT_PX)
    title = _shortened(title, title_font, legend_left - 3 * _GAP_PX)
    draw.text((_GAP_PX, header_px / 2), title, _INK, title_font, anchor="lm")
    caption_font = _font(_CAPTION_FONT_PX)
    top = header_px
    for height, row in rows:
        for left, width, picture in row:
            drawn = draw_detections(picture.image, picture.verdict, size_wh=(width, height))
            sheet.paste(drawn, (left, top))
            caption = (picture.verdict.image_id, str(picture.verdict))
            for line, (text, colour) in enumerate(zip(caption, (_INK, _FAINT), strict=True)):
                draw.text(
                    (left, top + height + 2 + line * _CAPTION_LINE_PX),
                    _shortened(text, caption_font, width),
                    colour,
                    caption_font,
                )
        top += height + caption_px + _GAP_PX
    return sheet


def save_panels(
    folder: Path,
    *,
    image_paths: Mapping[str, Path],
    verdicts: Sequence[Verdict],
    original_sizes_wh: Mapping[str, tuple[int, int]] | None = None,
    count: int = 12,
) -> dict[str, Path]:
    """Write the contact sheets of a test: images drawn by lot, and those with the most errors.

    Args:
        folder: Where ``overview.png`` and ``worst.png`` go.
        image_paths: The files that the detector was shown, by image id.
        verdicts: What ``judge_images`` gave.
        original_sizes_wh: Width and height of the photographs, by image id, where preparation
            stretched them; leave it out where it kept their aspect.
        count: Pictures on a sheet.

    Returns:
        The files written, by name. ``worst.png`` is missing, and removed, when nothing is wrong.

    Raises:
        InputFormError: An image cannot be read.
    """
    written = {}
    sheets = (
        (OVERVIEW, "Test images, drawn by lot", choose_overview(verdicts, count)),
        (WORST, "Most false alarms and misses", choose_worst(verdicts, count)),
    )
    for name, title, chosen in sheets:
        path = folder / name
        if not chosen:
            path.unlink(missing_ok=True)
            continue
        pictures = [
            Picture(
                _load(image_paths[verdict.image_id]),
                verdict,
                _aspect((original_sizes_wh or {}).get(verdict.image_id)),
            )
            for verdict in chosen
        ]
        with whole_file(path) as part:
            contact_sheet(pictures, title=title).save(part, format="PNG")
        written[name] = path
    return written


def _layers(verdict: Verdict) -> tuple[tuple[Marks, _Style], ...]:
    """Give the kinds of boxes in the order in which they are drawn."""
    return (
        (verdict.regions, _REGION),
        (verdict.true, _TRUE),
        (verdict.hits, _HIT),
        (verdict.misses, _MISS),
        (verdict.false_alarms, _FALSE_ALARM),
    )


def _by_image(
    image_count: int, image: Ints, flags: Flags, xyxy: Boxes, labels: list[str]
) -> list[Marks]:
    """Split the flagged boxes of a table by image."""
    rows: list[list[int]] = [[] for _ in range(image_count)]
    for row in np.flatnonzero(flags).tolist():
        rows[image[row]].append(row)
    return [Marks(xyxy[mine], tuple(labels[row] for row in mine)) for mine in rows]


def _lot(verdict: Verdict) -> str:
    return hashlib.sha256(verdict.image_id.encode(errors="surrogateescape")).hexdigest()


def _aspect(size_wh: tuple[int, int] | None) -> float | None:
    return size_wh[0] / size_wh[1] if size_wh else None


def _load(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            pixels: Image.Image = image.convert("RGB")
            return pixels
    except (OSError, UnidentifiedImageError) as error:
        raise InputFormError(
            "a test image cannot be read",
            where=str(path),
            found=str(error),
            remedy="Prepare the dataset again",
        ) from error


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)


def _shortened(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float
) -> str:
    """Cut a text off so that it fits."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "...") > width_px:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _to_pixels(xyxy: Boxes, size_wh: tuple[int, int]) -> list[_Box]:
    """Give boxes in pixels of the drawing, at least a visible few wide."""
    w, h = size_wh
    boxes = []
    for x1, y1, x2, y2 in np.clip(xyxy, 0.0, 1.0).tolist():
        left, top = min(round(x1 * w), w - 6), min(round(y1 * h), h - 6)
        boxes.append((left, top, max(round(x2 * w) - 1, left + 5), max(round(y2 * h) - 1, top + 5)))
    return boxes


def _draw_box(draw: ImageDraw.ImageDraw, box: _Box, style: _Style) -> None:
    """Draw a box with a dark rim, so that it shows on any ground."""
    left, top, right, bottom = box
    rim = (left - 1, top - 1, right + 1, bottom + 1)
    draw.rectangle(rim, outline=(0, 0, 0, 130), width=style.width_px + 2)
    if not style.dash_px[0]:
        draw.rectangle(box, outline=style.colour, width=style.width_px)
        return
    thick = style.width_px - 1
    for start, end in _dashes(left, right, style.dash_px):
        draw.rectangle((start, top, end, top + thick), fill=style.colour)
        draw.rectangle((start, bottom - thick, end, bottom), fill=style.colour)
    for start, end in _dashes(top, bottom, style.dash_px):
        draw.rectangle((left, start, left + thick, end), fill=style.colour)
        draw.rectangle((right - thick, start, right, end), fill=style.colour)


def _dashes(start: float, end: float, dash_px: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Give the dashes of a line, first and last pixel of each; the last one is cut off."""
    dash, gap = dash_px
    at = start
    while at <= end:
        yield at, min(at + dash - 1, end)
        at += dash + gap


def _draw_label(
    draw: ImageDraw.ImageDraw,
    box: _Box,
    label: str,
    style: _Style,
    *,
    size_wh: tuple[int, int],
    taken: list[_Box],
) -> None:
    """Write a label at its box, where it fits and covers no other label; else at its corner."""
    font = _font(_LABEL_FONT_PX)
    width, height = font.getlength(label) + 8, _LABEL_FONT_PX + 5
    left, top, right, bottom = box
    corners = (
        (left - 1, top - height),
        (left - 1, bottom + 1),
        (left, top),
        (right - width, top - height),
        (right - width, top),
        (right - width, bottom + 1),
        (left, bottom - height),
        (right - width, bottom - height),
    )
    places = [(x, y, x + width, y + height) for x, y in corners]
    fits = (
        place
        for place in places
        if place[0] >= -1
        and place[1] >= 0
        and place[2] <= size_wh[0]
        and place[3] <= size_wh[1]
        and not any(_touch(place, other) for other in taken)
    )
    fallback_left = min(max(left, 0), max(size_wh[0] - width, 0))
    fallback = (fallback_left, top, fallback_left + width, top + height)
    place = next(fits, fallback)
    taken.append(place)
    draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=style.colour)
    red, green, blue = style.colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue >= _DARK_TEXT_FROM
    draw.text(
        (place[0] + 4, (place[1] + place[3]) / 2),
        label,
        _INK if dark else _WHITE,
        font,
        anchor="lm",
    )


def _touch(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _into_rows(
    pictures: Sequence[Picture], columns: int
) -> Iterator[tuple[Sequence[Picture], bool]]:
    """Cut a list of pictures into rows of about equal length, and tell which fill the width."""
    row_count = max(1, round(len(pictures) / columns))
    if len(pictures) < columns:
        yield pictures, False
        return
    ends = np.cumsum([picture.shown_aspect for picture in pictures])
    rows = np.minimum(((ends - ends[0] / 2) / ends[-1] * row_count).astype(np.int64), row_count - 1)
    for row in np.unique(rows).tolist():
        yield [pictures[place] for place in np.flatnonzero(rows == row).tolist()], True


def _lay_out(
    row: Sequence[Picture], width_px: int, *, full: bool
) -> tuple[int, list[tuple[int, int, Picture]]]:
    """Give a row's height, and left edge and width of each of its pictures."""
    room = width_px - _GAP_PX * (len(row) + 1)
    height = room / sum(picture.shown_aspect for picture in row)
    height_px = round(height if full else min(height, width_px / 4))
    placed = []
    left = _GAP_PX
    for picture in row:
        width = max(1, round(height_px * picture.shown_aspect))
        placed.append((left, width, picture))
        left += width + _GAP_PX
    return height_px, placed


def _draw_legend(
    draw: ImageDraw.ImageDraw, pictures: Sequence[Picture], *, right_px: float, middle_px: float
) -> float:
    """Draw a sample of each kind of box that is on the sheet; give the legend's left edge."""
    font = _font(_LEGEND_FONT_PX)
    styles = [_HIT, _FALSE_ALARM, _MISS, _TRUE]
    if any(len(picture.verdict.regions) for picture in pictures):
        styles.append(_REGION)
    sample_wh = (30, 20)
    widths = [sample_wh[0] + 8 + font.getlength(style.name) + 22 for style in styles]
    start = left = right_px - sum(widths) + 22
    for style, width in zip(styles, widths, strict=True):
        top = middle_px - sample_wh[1] / 2
        ground = (left - 3, top - 3, left + sample_wh[0] + 3, top + sample_wh[1] + 3)
        draw.rectangle(ground, fill=(120, 130, 138))
        _draw_box(draw, (left, top, left + sample_wh[0], top + sample_wh[1]), style)
        draw.text((left + sample_wh[0] + 9, middle_px), style.name, _INK, font, anchor="lm")
        left += width
    return start
