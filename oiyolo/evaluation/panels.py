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
from PIL import Image, ImageDraw, UnidentifiedImageError

from oiyolo.core.errors import InputFormError
from oiyolo.core.files import whole_file
from oiyolo.drawing import sheet as sheets
from oiyolo.drawing.marks import (
    GREY,
    SKY,
    VERMILION,
    YELLOW,
    Style,
    draw_box,
    draw_label,
    to_pixels,
)
from oiyolo.drawing.sheet import Cell, Form
from oiyolo.drawing.text import WHITE
from oiyolo.evaluation.matching import match

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Boxes
    from oiyolo.drawing.marks import Corners
    from oiyolo.evaluation.tables import Detections, Flags, GroundTruth, Ints

OVERVIEW = "overview.png"
WORST = "worst.png"

_TRUE = Style("true box", WHITE, 1)
_REGION = Style("group-of region", GREY, 1, (3, 4))
_HIT = Style("found", SKY, 3)
_FALSE_ALARM = Style("false alarm", VERMILION, 3, (12, 5))
_MISS = Style("missed", YELLOW, 3, (4, 4))


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
    layers = [(to_pixels(marks.xyxy, size_wh), marks, style) for marks, style in _layers(verdict)]
    for boxes, _, style in layers:
        for box in boxes:
            draw_box(draw, box, style)
    taken: list[Corners] = []
    # The surest and the wrong ones come last in the layers: they get their places first.
    for boxes, marks, style in reversed(layers):
        for box, label in zip(boxes, marks.labels, strict=True):
            if label:
                draw_label(draw, box, label, style, size_wh=size_wh, taken=taken)
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
    legend = [_HIT, _FALSE_ALARM, _MISS, _TRUE]
    if any(len(picture.verdict.regions) for picture in pictures):
        legend.append(_REGION)
    return sheets.contact_sheet(
        [_cell(picture) for picture in pictures],
        title=title,
        legend=legend,
        form=Form(columns=columns, width_px=width_px),
    )


def _cell(picture: Picture) -> Cell:
    def draw(size_wh: tuple[int, int]) -> Image.Image:
        return draw_detections(picture.image, picture.verdict, size_wh=size_wh)

    return Cell(picture.shown_aspect, (picture.verdict.image_id, str(picture.verdict)), draw)


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


def _layers(verdict: Verdict) -> tuple[tuple[Marks, Style], ...]:
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
