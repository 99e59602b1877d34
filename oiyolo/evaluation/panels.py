"""Pictures of true positives, false positives and false negatives.

``evaluate_images`` matches boxes, ``draw_detections`` draws in memory, and only ``save_panels``
reads and writes files. The colours are Okabe and Ito's, which people with any colour vision can
distinguish (https://jfly.uni-koeln.de/color/); the line styles differ as well.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from oiyolo.core.errors import InputFormError
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Boxes
    from oiyolo.drawing.marks import Corners
    from oiyolo.evaluation.tables import Detections, Flags, GroundTruth, Ints

OVERVIEW = "overview.png"
WORST = "worst.png"
_MAX_IMAGES = 12
"""Maximum number of images on a sheet."""

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
        matched: True boxes that a detection matches.
        regions: Group-of boxes.
        true_positives: Detections that match a true box.
        false_positives: Detections that match none.
        false_negatives: True boxes that no detection matches.
    """

    image_id: str
    classes: frozenset[int]
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
    return tuple(
        ImageResult(image_id, frozenset(classes[position]), *(kind[position] for kind in kinds))
        for position, image_id in enumerate(truth.image_ids)
    )


def choose_overview(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Choose a reproducible random sample of images, alternating between classes.

    Images are ordered by a hash of their ids, so an image added to the test split replaces at most
    one. Images without true boxes fill at most a sixth of the sample, unless others are too few.
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
    empty_count = max(_MAX_IMAGES - len(with_boxes), _MAX_IMAGES // 6)
    chosen_without_boxes = without_boxes[:empty_count]
    return with_boxes[: _MAX_IMAGES - len(chosen_without_boxes)] + chosen_without_boxes


def choose_worst(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Return the images with the most errors, in descending order; none without errors."""
    wrong = [result for result in results if result.error_count]
    wrong.sort(key=lambda result: (-result.error_count, _sampling_key(result)))
    return wrong[:_MAX_IMAGES]


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
    *,
    image_paths: Mapping[str, Path],
    results: Sequence[ImageResult],
    original_sizes_wh: Mapping[str, tuple[int, int]],
) -> dict[str, Path]:
    """Write two contact sheets: a random sample of images, and those with the most errors.

    Args:
        folder: Folder of ``overview.png`` and ``worst.png``.
        image_paths: Paths of the images that the detector processed, by image id.
        results: Results of ``evaluate_images``.
        original_sizes_wh: Width and height of the original photographs, by image id, if
            preparation stretched them; an image that is not listed keeps its aspect.

    Returns:
        Paths of the files, by name. Without any errors, ``worst.png`` is deleted and not included.

    Raises:
        InputFormError: An image cannot be read.
    """
    paths = {}
    selections = (
        (OVERVIEW, "Random sample of test images", choose_overview(results)),
        (WORST, "Most false positives and false negatives", choose_worst(results)),
    )
    for name, title, chosen in selections:
        path = folder / name
        if not chosen:
            path.unlink(missing_ok=True)
            continue
        cells = [
            _cell(result, image_paths, original_sizes_wh, (result.image_id, str(result)))
            for result in chosen
        ]
        _save_sheet(path, cells, title, chosen, SheetLayout())
        paths[name] = path
    return paths


def save_pairs(
    path: Path,
    *,
    title: str,
    names: tuple[str, str],
    pairs: Sequence[tuple[ImageResult, ImageResult]],
    image_paths: Mapping[str, Path],
    original_sizes_wh: Mapping[str, tuple[int, int]],
) -> None:
    """Write a contact sheet of images as two detectors see them, side by side.

    Args:
        path: The file, a PNG.
        title: Title of the sheet.
        names: Names of the detectors.
        pairs: The results of both on each image, at least one.
        image_paths: As for ``save_panels``.
        original_sizes_wh: As for ``save_panels``.

    Raises:
        InputFormError: An image cannot be read.
    """
    cells = [
        _cell(result, image_paths, original_sizes_wh, (f"{name}: {result}", result.image_id))
        for pair in pairs
        for name, result in zip(names, pair, strict=True)
    ]
    shown = [result for pair in pairs for result in pair]
    _save_sheet(path, cells, title, shown, SheetLayout(is_grid=True))


def _cell(
    result: ImageResult,
    image_paths: Mapping[str, Path],
    original_sizes_wh: Mapping[str, tuple[int, int]],
    caption: tuple[str, ...],
) -> Cell:
    """Return an image of a contact sheet with the boxes of a result, in its original aspect."""
    image = _read_image(image_paths[result.image_id])
    width, height = original_sizes_wh.get(result.image_id, image.size)
    return Cell(width / height, caption, functools.partial(draw_detections, image, result))


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
    with atomic_write(path) as part:
        contact_sheet(cells, title=title, legend=legend, layout=layout).save(part, format="PNG")


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


def _read_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            pixels: Image.Image = image.convert("RGB")
            return pixels
    except OSError as error:
        raise InputFormError(
            "a test image cannot be read",
            where=str(path),
            found=str(error),
            remedy="Prepare the dataset again",
        ) from error
