"""Evaluation of a detector on a set of images: mean average precision and a row for each class.

``map50`` is what darknet users call mAP@0.5: the mean over the classes of PASCAL VOC 2010's average
precision at IoU 0.5. Group-of boxes are treated as regions, not as objects: a detector of single
boats cannot match one box around many boats with an IoU of 0.5, and each boat that it detects
inside should not be a false positive. ``map50_95`` is COCO's metric, ``openimages_map`` that of the
Open Images challenge; see ``coco`` and ``openimages_metric``.
"""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from oiyolo.core.records import mismatch
from oiyolo.core.results import TERMINAL_WIDTH, format_table, pluralize
from oiyolo.evaluation.average_precision import (
    PrecisionRecall,
    average_precision,
    best_threshold,
    class_curve,
    mean_over_classes,
)
from oiyolo.evaluation.coco import coco_precision
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.openimages_metric import openimages_average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, GroundTruth

_COLUMNS = (
    ("class", "name"),
    ("mAP@0.5", "map50"),
    ("mAP@0.5:0.95", "map50_95"),
    ("Open Images", "openimages_map"),
    ("images", "images"),
    ("boxes", "boxes"),
    ("threshold", "score_threshold"),
    ("true positives", "true_positives"),
    ("false positives", "false_positives"),
    ("false negatives", "false_negatives"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
    ("average IoU", "average_iou"),
)
_SCORE_COLUMNS = ("class", "mAP@0.5", "mAP@0.5:0.95", "Open Images", "images", "boxes")
_COUNT_COLUMNS = (
    "class",
    *("threshold", "true positives", "false positives", "false negatives"),
    *("precision", "recall", "F1", "average IoU"),
)
_SHORT_HEADINGS = {
    "true positives": "TP",
    "false positives": "FP",
    "false negatives": "FN",
    "average IoU": "IoU",
}
_CURVE_DECIMALS = 6
_RENAMED_KEYS = {"misses": "false_negatives"}


class _Figures(TypedDict):
    map50: float | None
    map50_95: float | None
    openimages_map: float | None
    images: int
    boxes: int
    group_of_boxes: int
    detections: int


class _ClassForm(_Figures):
    score_threshold: float | None
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_iou: float | None
    curve: dict[str, list[float]]


class _ScoredWeights(TypedDict):
    path: str | None
    sha256: str | None
    iteration: int | None


class _OptionalForm(TypedDict, total=False):
    split: str


class _Form(_OptionalForm):
    """The form of ``evaluation.json`` in all versions."""

    classes: dict[str, dict[str, Any]]


class _CurrentForm(_Figures):
    """The form of ``evaluation.json`` in this version."""

    weights: _ScoredWeights
    classes: dict[str, _ClassForm]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """The evaluation of a class. Undefined values (without true boxes, for example) are NaN.

    Attributes:
        name: Name of the class.
        map50: Average precision at IoU 0.5, by PASCAL VOC 2010's rules.
        map50_95: Average precision by COCO's rules.
        openimages_map: Average precision by the Open Images V2 rules.
        images: Number of images with at least one true box.
        boxes: Number of true boxes, without group-of boxes.
        group_of_boxes: Number of group-of boxes.
        detections: Number of detections of any score, including ignored ones.
        score_threshold: Score threshold with the highest F1; the values below are for it.
        true_positives: Number of detections that match a true box.
        false_positives: Number of detections that match none and are not ignored.
        false_negatives: Number of true boxes that no detection matches.
        precision: True positives divided by true and false positives.
        recall: True positives divided by true boxes.
        f1: Harmonic mean of precision and recall.
        average_iou: Mean IoU of the true positives with their true boxes.
        curve: Precision and recall at every threshold.
    """

    name: str
    map50: float
    map50_95: float
    openimages_map: float
    images: int
    boxes: int
    group_of_boxes: int
    detections: int
    score_threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float
    recall: float
    f1: float
    average_iou: float
    curve: PrecisionRecall = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the row for ``evaluation.json``: NaN as null, at most 200 points of the curve."""
        curve = self.curve.downsampled()
        points = {
            name: getattr(curve, name).round(_CURVE_DECIMALS).tolist()
            for name in ("score", "precision", "recall")
        }
        return {**_figures_to_json(self), "curve": points}

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> ClassEvaluation:
        """Return a class from its row in ``evaluation.json``, with the downsampled curve."""
        curve = PrecisionRecall(
            **{key: np.array(values, dtype=np.float64) for key, values in row["curve"].items()}
        )
        return cls(name=name, curve=curve, **_figures_from_json(cls, row))


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of a detector on a set of images.

    Attributes:
        map50: Mean over the classes with true boxes, at IoU 0.5 by PASCAL VOC 2010's rules.
        map50_95: The same by COCO's rules.
        openimages_map: The same by the Open Images V2 rules.
        images: Number of images, including those without boxes.
        boxes: Number of true boxes, without group-of boxes.
        group_of_boxes: Number of group-of boxes.
        detections: Number of detections of any score.
        classes: Evaluation of each class, in the order of ``obj.names``.
    """

    map50: float
    map50_95: float
    openimages_map: float
    images: int
    boxes: int
    group_of_boxes: int
    detections: int
    classes: tuple[ClassEvaluation, ...] = dataclasses.field(repr=False)

    @property
    def score_thresholds(self) -> tuple[float, ...]:
        """Score threshold with the highest F1 of each class; NaN if it has none."""
        return tuple(row.score_threshold for row in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``: NaN as null, classes by name."""
        return {
            **_figures_to_json(self),
            "classes": {row.name: row.to_json() for row in self.classes},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation in an ``evaluation.json`` of this or an older version.

        Unknown keys are ignored.

        Raises:
            ValueError: A value is missing or of the wrong type.
        """
        value = with_current_keys(value)
        rows = (ClassEvaluation.from_json(name, row) for name, row in value["classes"].items())
        return cls(**_figures_from_json(cls, value), classes=tuple(rows))

    def __str__(self) -> str:
        return (
            f"{self._headline()}\n\n{self._table(_SCORE_COLUMNS)}\n\n"
            "at the score threshold with the highest F1 (TP: true positives, FP: false\n"
            "positives, FN: false negatives, IoU: mean over the TP):\n"
            f"{self._table(_COUNT_COLUMNS)}"
        )

    def _table(self, headings: Sequence[str]) -> str:
        """Return some of the columns as text."""
        names = dict(_COLUMNS)
        rows = [[_format_cell(getattr(row, names[h])) for h in headings] for row in self.classes]
        shown = [_SHORT_HEADINGS.get(heading, heading) for heading in headings]
        return format_table([shown, *rows], max_width=TERMINAL_WIDTH)

    def _repr_html_(self) -> str:
        heading = "".join(f"<th>{html.escape(text)}</th>" for text, _ in _COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return (
            f"<p>{html.escape(self._headline())}</p>"
            f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _headline(self) -> str:
        return (
            f"mAP@0.5 {_format_cell(self.map50)}, mAP@0.5:0.95 {_format_cell(self.map50_95)}, "
            f"Open Images mAP {_format_cell(self.openimages_map)}\n"
            f"on {pluralize(self.images, 'image')} with {pluralize(self.boxes, 'box')}"
        )

    def _rows(self) -> list[list[str]]:
        return [[_format_cell(getattr(row, name)) for _, name in _COLUMNS] for row in self.classes]


def with_current_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an ``evaluation.json`` of this or an older version in today's form.

    Older versions called some figures differently, and recorded only the name of the weights.

    Raises:
        ValueError: A value is missing or of the wrong type.
    """
    if problem := mismatch(value, _Form):
        raise ValueError(problem)
    classes = {
        name: {_RENAMED_KEYS.get(key, key): figure for key, figure in row.items()}
        for name, row in value["classes"].items()
    }
    weights = value.get("weights")
    if not isinstance(weights, dict):
        weights = {"path": weights, "sha256": None, "iteration": None}
    value = {**value, "classes": classes, "weights": weights}
    if problem := mismatch(value, _CurrentForm):
        raise ValueError(problem)
    return value


def evaluate_detections(
    detections: Detections, truth: GroundTruth, class_names: Sequence[str]
) -> Evaluation:
    """Evaluate a detector.

    Args:
        detections: Detections down to the lowest score, with the same ``image_ids`` as ``truth``:
            a threshold applied beforehand truncates the curve and lowers all metrics.
        truth: Ground truth of all images to evaluate.
        class_names: Names of the classes; ``class_id`` is a position in them.

    Raises:
        ValueError: The tables have different ``image_ids``, or a class id is not in
            ``class_names``.
    """
    class_count = len(class_names)
    for name, ids in (("detections", detections.class_id), ("truth", truth.class_id)):
        if ids.max(initial=-1) >= class_count:
            raise ValueError(
                f"{name} contain class id {ids.max()}, but there are {class_count} classes"
            )
    matches = match(detections, truth)
    coco = coco_precision(detections, truth, class_count).mean(axis=(0, 1))
    openimages = openimages_average_precision(detections, truth, class_count)
    rows = tuple(
        _evaluate_class(
            class_id,
            detections,
            truth,
            matches,
            name=name,
            map50_95=float(coco[class_id]),
            openimages_map=float(openimages[class_id]),
        )
        for class_id, name in enumerate(class_names)
    )
    return Evaluation(
        map50=mean_over_classes(np.array([row.map50 for row in rows])),
        map50_95=mean_over_classes(coco),
        openimages_map=mean_over_classes(openimages),
        images=len(truth.image_ids),
        boxes=sum(row.boxes for row in rows),
        group_of_boxes=sum(row.group_of_boxes for row in rows),
        detections=len(detections),
        classes=rows,
    )


def _evaluate_class(
    class_id: int,
    detections: Detections,
    truth: GroundTruth,
    matches: Matches,
    *,
    name: str,
    map50_95: float,
    openimages_map: float,
) -> ClassEvaluation:
    """Return the evaluation of a class from the matches of all classes."""
    of_class = detections.class_id == class_id
    true_of_class = truth.class_id == class_id
    curve, box_count = class_curve(matches, detections, truth, class_id)
    threshold = best_threshold(curve)
    # If the threshold is NaN, the comparison is false for every detection.
    above_threshold = of_class & (detections.score >= threshold)
    is_matched = above_threshold & matches.true_positive
    true_positives = int(is_matched.sum())
    false_positives = int((above_threshold & matches.false_positive).sum())
    return ClassEvaluation(
        name=name,
        map50=average_precision(curve, box_count),
        map50_95=map50_95,
        openimages_map=openimages_map,
        images=len(np.unique(truth.image[true_of_class & matches.counted])),
        boxes=box_count,
        group_of_boxes=int((true_of_class & ~matches.counted).sum()),
        detections=int(of_class.sum()),
        score_threshold=threshold,
        true_positives=true_positives,
        false_positives=false_positives,
        false_negatives=box_count - true_positives,
        precision=_ratio(true_positives, true_positives + false_positives),
        recall=_ratio(true_positives, box_count),
        f1=_ratio(2 * true_positives, true_positives + false_positives + box_count),
        average_iou=_ratio(float(matches.iou[is_matched].sum()), true_positives),
        curve=curve,
    )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")


def _figure_names(kind: type[ClassEvaluation | Evaluation]) -> list[str]:
    """Return the fields that hold a number, in order."""
    others = {"name", "curve", "classes"}
    return [field.name for field in dataclasses.fields(kind) if field.name not in others]


def _figures_to_json(evaluation: ClassEvaluation | Evaluation) -> dict[str, Any]:
    """Return the numbers of an evaluation: NaN as None."""
    figures = {name: getattr(evaluation, name) for name in _figure_names(type(evaluation))}
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _figures_from_json(
    kind: type[ClassEvaluation | Evaluation], value: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the numbers of an evaluation: None as NaN."""
    figures = {name: value[name] for name in _figure_names(kind)}
    return {name: math.nan if figure is None else figure for name, figure in figures.items()}


def _format_cell(value: float | str) -> str:
    """Format a cell: integers as they are, floats with three digits, NaN as a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)
