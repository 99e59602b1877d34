"""Pictures of true positives, false positives and false negatives.

``evaluate_images`` matches boxes, ``choose_panels`` chooses images, ``draw_detections`` draws in
memory, and only the functions that save read and write files. The colours are Okabe and Ito's,
which people with any colour vision can distinguish (https://jfly.uni-koeln.de/color/); the line
styles differ as well.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.core.files import atomic_write
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
from oiyolo.drawing.sheet import Cell, SheetLayout, contact_sheet
from oiyolo.drawing.text import WHITE
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.slices import size_flags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Boxes
    from oiyolo.drawing.marks import Corners
    from oiyolo.evaluation.tables import Detections, Flags, GroundTruth, Ints

OVERVIEW = "overview"
WORST = "worst"
BEST = "best"
CHECKPOINTS = "checkpoints.jpg"
"""Name of the file with the same images at several checkpoints of a training."""
_MAX_IMAGES = 12
"""Maximum number of images on a sheet."""
_MAX_CLASSES = 24
"""Maximum number of classes with a sheet of their own."""
_JPEG_SUFFIX, _PNG_SUFFIX = ".jpg", ".png"
_JPEG_QUALITY = 85

Pictures = Callable[[str], Image.Image]
"""Function that returns the picture of an image by its id: RGB, in the photograph's own aspect. It
raises InputFormError if it cannot be read."""

_TRUE_BOX = Style("ground truth", WHITE, 1)
_REGION = Style("group-of region", GREY, 1, (3, 4))
_TRUE_POSITIVE = Style("true positive (TP)", SKY, 3)
_FALSE_POSITIVE = Style("false positive (FP)", VERMILION, 3, (12, 5))
_FALSE_NEGATIVE = Style("false negative (FN)", YELLOW, 3, (4, 4))
_CAPTION_TERMS = {_TRUE_POSITIVE: "TP", _FALSE_POSITIVE: "FP", _FALSE_NEGATIVE: "FN"}
"""Short, because a portrait leaves its caption little room; the legend explains them."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledBoxes:
    """Boxes of one kind on an image.

    Attributes:
        xyxy: Boxes, shape (n, 4), fractions of the image.
        labels: Label of each box, length n; "" for none.
    """

    xyxy: Boxes
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageResult:
    """True and false positives and false negatives on an image, at fixed score thresholds.

    Attributes:
        image_id: Id of the image.
        classes: Ids of the classes that have a box in the image.
        sizes: The sizes of its true boxes, as in ``slices.SIZES_PX``; empty if they are not known.
        attributes: The attributes of its true boxes, "group_of" included.
        matched: True boxes that a detection matches.
        regions: Group-of boxes.
        true_positives: Detections that match a true box.
        false_positives: Detections that match none.
        false_negatives: True boxes that no detection matches.
    """

    image_id: str
    classes: frozenset[int]
    sizes: frozenset[str]
    attributes: frozenset[str]
    matched: LabelledBoxes
    regions: LabelledBoxes
    true_positives: LabelledBoxes
    false_positives: LabelledBoxes
    false_negatives: LabelledBoxes

    @property
    def error_count(self) -> int:
        """Number of false positives and false negatives."""
        return len(self.false_positives) + len(self.false_negatives)

    def __str__(self) -> str:
        counts = (
            f"{len(boxes)} {_CAPTION_TERMS[style]}"
            for boxes, style in _layers(self)
            if len(boxes) and style in _CAPTION_TERMS
        )
        nothing = "only a group-of region" if len(self.regions) else "no boxes, no detections"
        return ", ".join(counts) or nothing


def evaluate_images(
    detections: Detections,
    truth: GroundTruth,
    class_names: Sequence[str],
    score_thresholds: Sequence[float],
) -> tuple[ImageResult, ...]:
    """Sort the boxes of every image into true positives, false positives and false negatives.

    Args:
        detections: Detections.
        truth: Ground truth.
        class_names: Names of the classes.
        score_thresholds: Score threshold of each class, as in ``Evaluation.score_thresholds``;
            NaN drops all detections of a class.

    Returns:
        One result per image of ``truth``, in its order.
    """
    thresholds = np.asarray(score_thresholds, dtype=np.float64)
    detections = detections.where(detections.score >= thresholds[detections.class_id])
    matches = match(detections, truth)
    show_names = len(class_names) > 1
    scores = [
        f"{class_names[c]} {s:.2f}" if show_names else f"{s:.2f}"
        for c, s in zip(detections.class_id.tolist(), detections.score.tolist(), strict=True)
    ]
    names = [class_names[c] if show_names else "" for c in truth.class_id.tolist()]
    matched = matches.counted & ~matches.false_negative
    image_count = len(truth.image_ids)
    kinds = [
        _by_image(image_count, table.image, flags, table.xyxy, labels)
        for table, flags, labels in (
            (truth, matched, [""] * len(truth)),
            (truth, ~matches.counted, names),
            (detections, matches.true_positive, scores),
            (detections, matches.false_positive, scores),
            (truth, matches.false_negative, names),
        )
    ]
    classes: list[set[int]] = [set() for _ in range(image_count)]
    for image, class_id in zip(truth.image.tolist(), truth.class_id.tolist(), strict=True):
        classes[image].add(class_id)
    sizes = _names_by_image(truth, size_flags(truth))
    attributes = _names_by_image(truth, {**truth.attributes, **truth.regions})
    return tuple(
        ImageResult(
            image_id,
            frozenset(classes[position]),
            sizes[position],
            attributes[position],
            *(kind[position] for kind in kinds),
        )
        for position, image_id in enumerate(truth.image_ids)
    )


def _names_by_image(truth: GroundTruth, flags: Mapping[str, Flags]) -> list[frozenset[str]]:
    """Return the names of the flags that any box of each image has."""
    names: list[set[str]] = [set() for _ in truth.image_ids]
    for name, boxes in flags.items():
        for image in truth.image[boxes].tolist():
            names[image].add(name)
    return list(map(frozenset, names))


def choose_overview(results: Iterable[ImageResult], limit: int = _MAX_IMAGES) -> list[ImageResult]:
    """Choose a reproducible random sample of images, alternating between classes.

    Images are ordered by a hash of their ids, so an image added to the test split replaces at most
    one. Images without true boxes fill at most a sixth of the sample, unless others are too few.

    Args:
        results: The images.
        limit: Maximum number of images to choose.
    """
    ordered = sorted(results, key=_sampling_key)
    next_rank: Counter[int] = Counter()
    ranked: list[tuple[int, int, ImageResult]] = []
    for result in ordered:
        for class_id in result.classes:
            ranked.append((next_rank[class_id], class_id, result))
            next_rank[class_id] += 1
    ranked.sort(key=operator.itemgetter(0, 1))
    with_boxes = list({result.image_id: result for _, _, result in ranked}.values())
    without_boxes = [result for result in ordered if not result.classes]
    chosen_without_boxes = without_boxes[: max(limit - len(with_boxes), limit // 6)]
    return with_boxes[: limit - len(chosen_without_boxes)] + chosen_without_boxes


def choose_worst(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Return the images with the most errors, in descending order; none without errors."""
    wrong = [result for result in results if result.error_count]
    wrong.sort(key=lambda result: (-result.error_count, _sampling_key(result)))
    return wrong[:_MAX_IMAGES]


def choose_best(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Return the images without errors that have the most true positives, in descending order."""
    right = [r for r in results if not r.error_count and len(r.true_positives)]
    right.sort(key=lambda result: (-len(result.true_positives), _sampling_key(result)))
    return right[:_MAX_IMAGES]


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """Images that are shown together.

    Attributes:
        name: Name of its file, without the suffix.
        title: What the images have in common.
        results: The images, at least one.
    """

    name: str
    title: str
    results: Sequence[ImageResult]

    @property
    def file_name(self) -> str:
        """Name of the contact sheet: PNG for the two that are always drawn, JPEG for the others."""
        return self.name + (_PNG_SUFFIX if self.name in {OVERVIEW, WORST} else _JPEG_SUFFIX)


def choose_panels(results: Sequence[ImageResult], class_names: Sequence[str]) -> list[Panel]:
    """Return the panels of a split: random, worst and best images, by class and by attribute.

    Panels without images are left out, and so are those of a single class.

    Args:
        results: Results of ``evaluate_images``.
        class_names: Names of the classes; the first have panels if there are many.
    """
    panels = [
        Panel(OVERVIEW, "Random sample of images", choose_overview(results)),
        Panel(WORST, "Most false positives and false negatives", choose_worst(results)),
        Panel(BEST, "Most true positives, without errors", choose_best(results)),
    ]
    ordered = sorted(results, key=_sampling_key)
    if len(class_names) > 1:
        for class_id, name in enumerate(class_names[:_MAX_CLASSES]):
            own = [result for result in ordered if class_id in result.classes]
            title = f"Images of the class {name}"
            panels.append(Panel(f"class-{class_id:02}", title, own[:_MAX_IMAGES]))
    for name in sorted({name for result in results for name in result.attributes}):
        own = [result for result in ordered if name in result.attributes]
        title = f"Images with a box marked as {name.replace('_', '-')}"
        panels.append(Panel(f"attribute-{name}", title, own[:_MAX_IMAGES]))
    return [panel for panel in panels if panel.results]


def draw_detections(
    image: Image.Image, result: ImageResult, size_wh: tuple[int, int]
) -> Image.Image:
    """Return an RGB image of the given size with the boxes of a result drawn on it."""
    shrinks = size_wh[0] < image.width
    resampling = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    canvas = image.convert("RGB").resize(size_wh, resampling)
    draw = ImageDraw.Draw(canvas, "RGBA")
    layers = [
        (to_pixels(labelled.xyxy, size_wh), labelled, style) for labelled, style in _layers(result)
    ]
    for corners, _, style in layers:
        for box in corners:
            draw_box(draw, box, style)
    occupied: list[Corners] = []
    # Errors are drawn last, on top, but their labels are placed first.
    for corners, labelled, style in reversed(layers):
        for box, label in zip(corners, labelled.labels, strict=True):
            if label:
                draw_label(draw, box, label, style, size_wh=size_wh, occupied=occupied)
    return canvas


def save_panels(
    folder: Path,
    panels: Sequence[Panel],
    pictures: Pictures,
) -> dict[str, Path]:
    """Write a contact sheet for each panel, and delete those of panels that are not given.

    Args:
        folder: Folder of the files.
        panels: The panels.
        pictures: Function that returns the picture of an image.

    Returns:
        Paths of the files, by name.

    Raises:
        InputFormError: An image cannot be read.
    """
    paths = {panel.file_name: folder / panel.file_name for panel in panels}
    for pattern in (OVERVIEW, WORST, BEST, "class-*", "attribute-*"):
        for path in folder.glob(f"{pattern}.*"):
            if path.name not in paths and path.suffix in {_JPEG_SUFFIX, _PNG_SUFFIX}:
                path.unlink()
    for panel in panels:
        cells = [
            _cell(result, pictures, (result.image_id, str(result))) for result in panel.results
        ]
        _save_sheet(paths[panel.file_name], cells, panel.title, panel.results, SheetLayout())
    return paths


def save_pairs(
    path: Path,
    *,
    title: str,
    names: tuple[str, str],
    pairs: Sequence[tuple[ImageResult, ImageResult]],
    pictures: Pictures,
) -> None:
    """Write a contact sheet of images as two detectors see them, side by side.

    Args:
        path: The file, a PNG.
        title: Title of the sheet.
        names: Names of the detectors.
        pairs: The results of both on each image, at least one.
        pictures: As for ``save_panels``.

    Raises:
        InputFormError: An image cannot be read.
    """
    cells = [
        _cell(result, pictures, (f"{name}: {result}", result.image_id))
        for pair in pairs
        for name, result in zip(names, pair, strict=True)
    ]
    shown = [result for pair in pairs for result in pair]
    _save_sheet(path, cells, title, shown, SheetLayout(is_grid=True))


def save_rows(
    path: Path,
    title: str,
    rows: Sequence[tuple[str, Sequence[ImageResult]]],
    pictures: Pictures,
) -> None:
    """Write a contact sheet of the same images in several rows.

    Args:
        path: The file.
        title: Title of the sheet.
        rows: Name of each row, at least one, and the results of its images.
        pictures: As for ``save_panels``.

    Raises:
        InputFormError: An image cannot be read.
    """
    cells = [
        _cell(result, pictures, (f"{name}: {result}", result.image_id))
        for name, results in rows
        for result in results
    ]
    shown = [result for _, results in rows for result in results]
    layout = SheetLayout(columns=len(rows[0][1]), is_grid=True)
    _save_sheet(path, cells, title, shown, layout)


def _cell(result: ImageResult, pictures: Pictures, caption: tuple[str, ...]) -> Cell:
    """Return an image of a contact sheet with the boxes of a result."""
    image = pictures(result.image_id)
    return Cell(
        image.width / image.height, caption, functools.partial(draw_detections, image, result)
    )


def _save_sheet(
    path: Path,
    cells: Sequence[Cell],
    title: str,
    results: Sequence[ImageResult],
    layout: SheetLayout,
) -> None:
    legend = [_TRUE_POSITIVE, _FALSE_POSITIVE, _FALSE_NEGATIVE, _TRUE_BOX]
    if any(len(result.regions) for result in results):
        legend.append(_REGION)
    sheet = contact_sheet(cells, title=title, legend=legend, layout=layout)
    with atomic_write(path) as part:
        if path.suffix == _JPEG_SUFFIX:
            sheet.save(part, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
        else:
            sheet.save(part, format="PNG")


def _layers(result: ImageResult) -> tuple[tuple[LabelledBoxes, Style], ...]:
    """Return the boxes of each kind in drawing order."""
    return (
        (result.regions, _REGION),
        (result.matched, _TRUE_BOX),
        (result.true_positives, _TRUE_POSITIVE),
        (result.false_negatives, _FALSE_NEGATIVE),
        (result.false_positives, _FALSE_POSITIVE),
    )


def _by_image(
    image_count: int, image: Ints, flags: Flags, xyxy: Boxes, labels: list[str]
) -> list[LabelledBoxes]:
    """Split the flagged boxes of a table by image."""
    rows: list[list[int]] = [[] for _ in range(image_count)]
    for row in np.flatnonzero(flags).tolist():
        rows[image[row]].append(row)
    return [LabelledBoxes(xyxy[indices], tuple(labels[row] for row in indices)) for indices in rows]


def _sampling_key(result: ImageResult) -> str:
    return hashlib.sha256(result.image_id.encode(errors="surrogateescape")).hexdigest()
