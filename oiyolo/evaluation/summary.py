"""The evaluation of a detector on one set of images: three means and a row for each class.

``map50`` is what darknet users call mAP@0.5: the mean over the classes of PASCAL VOC 2010's
average precision at IoU 0.5. Group-of boxes are regions here, not objects: "many boats, drawn
as one box" can neither be found with an overlap of one half by a detector that sees single
boats, nor should each boat that it does see in there be a false alarm. ``map50_95`` is COCO's
figure, ``openimages_map`` that of the Open Images challenge; ``coco`` and ``openimages_metric``
say what is in them.
"""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from oiyolo.evaluation.average_precision import (
    PrecisionRecall,
    average_precision,
    best_threshold,
    mean_over_classes,
    precision_recall,
)
from oiyolo.evaluation.coco import coco_scores
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.openimages_metric import openimages_average_precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, GroundTruth

_COLUMNS = (
    ("class", "name"),
    ("mAP@0.5", "map50"),
    ("mAP@0.5:0.95", "map50_95"),
    ("Open Images", "openimages_map"),
    ("images", "images"),
    ("boxes", "boxes"),
    ("score from", "score_threshold"),
    ("found", "true_positives"),
    ("false alarms", "false_positives"),
    ("missed", "misses"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
    ("average IoU", "average_iou"),
)
_CURVE_DECIMALS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """One class's row. A figure that does not exist (nothing to be found) is nan.

    Attributes:
        name: The class.
        map50: Average precision at IoU 0.5, PASCAL VOC 2010's.
        map50_95: Average precision by COCO's rules.
        openimages_map: Average precision by the Open Images V2 rules.
        images: Images on which there is a box to be found.
        boxes: Boxes to be found: those that are not group-of.
        group_of_boxes: Boxes that are regions only.
        detections: Detections of any score, those that counted neither way too.
        score_threshold: The score at which F1 is highest; what follows holds at this threshold.
        true_positives: Boxes found.
        false_positives: False alarms.
        misses: Boxes not found.
        precision: True positives among the detections that count.
        recall: True positives among the boxes.
        f1: The harmonic mean of both.
        average_iou: Mean overlap of the boxes found with the detections that found them.
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
    misses: int
    precision: float
    recall: float
    f1: float
    average_iou: float
    curve: PrecisionRecall = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give the row for ``evaluation.json``: nan as null, the curve with at most 200 points."""
        figures = {
            field.name: _or_null(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in {"name", "curve"}
        }
        curve = self.curve.thinned()
        points = {
            name: getattr(curve, name).round(_CURVE_DECIMALS).tolist()
            for name in ("score", "precision", "recall")
        }
        return {**figures, "curve": points}

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> ClassEvaluation:
        """Read a row of ``evaluation.json``; the inverse of ``to_json`` but for the thinning."""
        curve = PrecisionRecall(
            **{key: np.array(values, dtype=np.float64) for key, values in row["curve"].items()}
        )
        own = {field.name for field in dataclasses.fields(cls)} - {"name", "curve"}
        figures = {key: _or_nan(value) for key, value in row.items() if key in own}
        return cls(name=name, curve=curve, **figures)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a detector is on one set of images.

    Attributes:
        map50: Mean over the classes that have boxes, PASCAL VOC 2010's at IoU 0.5.
        map50_95: The same by COCO's rules.
        openimages_map: The same by the Open Images V2 rules.
        images: Images scored, those without a box too.
        boxes: Boxes to be found.
        group_of_boxes: Boxes that are regions only.
        detections: Detections of any score.
        classes: A row for each class, in the order of ``obj.names``.
    """

    map50: float
    map50_95: float
    openimages_map: float
    images: int
    boxes: int
    group_of_boxes: int
    detections: int
    classes: tuple[ClassEvaluation, ...]

    @property
    def score_thresholds(self) -> tuple[float, ...]:
        """The threshold of the highest F1 for each class; nan where there is none."""
        return tuple(row.score_threshold for row in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Give what ``evaluation.json`` holds: nan as null, classes by name."""
        figures = {
            field.name: _or_null(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "classes"
        }
        return {**figures, "classes": {row.name: row.to_json() for row in self.classes}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """Read ``evaluation.json``; keys that others have added to it are passed over."""
        own = {field.name for field in dataclasses.fields(cls)} - {"classes"}
        figures = {key: _or_nan(figure) for key, figure in value.items() if key in own}
        rows = (ClassEvaluation.from_json(name, row) for name, row in value["classes"].items())
        return cls(**figures, classes=tuple(rows))

    def __str__(self) -> str:
        table = [[heading for heading, _ in _COLUMNS], *self._rows()]
        widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
        lines = (
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        )
        return "\n".join((self._headline(), "", *lines))

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
            f"mAP@0.5 {_shown(self.map50)}, mAP@0.5:0.95 {_shown(self.map50_95)}, "
            f"Open Images mAP {_shown(self.openimages_map)} "
            f"on {self.images} images with {self.boxes} boxes"
        )

    def _rows(self) -> list[list[str]]:
        return [[_shown(getattr(row, name)) for _, name in _COLUMNS] for row in self.classes]


def evaluate_detections(
    detections: Detections,
    truth: GroundTruth,
    class_names: Sequence[str],
    *,
    ancestors: Mapping[int, Iterable[int]] | None = None,
) -> Evaluation:
    """Score a detector.

    Args:
        detections: What it claims, at as low a score as it gives any: a threshold chosen
            beforehand cuts the curve off and lowers every figure.
        truth: What is there, on every image that is to be scored.
        class_names: The classes; a ``class_id`` is a position in them.
        ancestors: The hierarchy for ``openimages_map``; see ``openimages_average_precision``.

    Returns:
        The evaluation.

    Raises:
        ValueError: A detection lies on an image that ``truth`` does not have, or a class id is
            not in ``class_names``.
    """
    class_count = len(class_names)
    for name, ids in (("detections", detections.class_id), ("truth", truth.class_id)):
        if ids.size and ids.max() >= class_count:
            raise ValueError(f"{name} hold class {ids.max()} of {class_count} classes")
    detections = detections.over(truth.image_ids)
    matches = match(detections, truth)
    coco = coco_scores(detections, truth, class_count)
    openimages = openimages_average_precision(detections, truth, class_count, ancestors=ancestors)
    rows = tuple(
        _evaluate_class(
            class_id,
            name,
            detections,
            truth,
            matches,
            map50_95=float(coco.class_map50_95[class_id]),
            openimages_map=float(openimages[class_id]),
        )
        for class_id, name in enumerate(class_names)
    )
    return Evaluation(
        map50=mean_over_classes(np.array([row.map50 for row in rows])),
        map50_95=coco.map50_95,
        openimages_map=mean_over_classes(openimages),
        images=len(truth.image_ids),
        boxes=sum(row.boxes for row in rows),
        group_of_boxes=sum(row.group_of_boxes for row in rows),
        detections=len(detections),
        classes=rows,
    )


def _evaluate_class(
    class_id: int,
    name: str,
    detections: Detections,
    truth: GroundTruth,
    matches: Matches,
    *,
    map50_95: float,
    openimages_map: float,
) -> ClassEvaluation:
    """Fill one class's row from the verdicts on all classes."""
    mine = detections.class_id == class_id
    true = truth.class_id == class_id
    to_find = true & matches.counted
    box_count = int(to_find.sum())
    scored = mine & ~matches.ignored
    curve = precision_recall(detections.score[scored], matches.true_positive[scored], box_count)
    threshold = best_threshold(curve)
    # Without a threshold nothing is shown to anybody: comparing with nan keeps no detection.
    shown = mine & (detections.score >= threshold)
    found = int((shown & matches.true_positive).sum())
    false_alarms = int((shown & matches.false_positive).sum())
    return ClassEvaluation(
        name=name,
        map50=average_precision(curve, box_count),
        map50_95=map50_95,
        openimages_map=openimages_map,
        images=len(np.unique(truth.image[to_find])),
        boxes=box_count,
        group_of_boxes=int((true & ~matches.counted).sum()),
        detections=int(mine.sum()),
        score_threshold=threshold,
        true_positives=found,
        false_positives=false_alarms,
        misses=box_count - found,
        precision=_ratio(found, found + false_alarms),
        recall=_ratio(found, box_count),
        f1=_ratio(2 * found, found + false_alarms + box_count),
        average_iou=_ratio(float(matches.iou[shown & matches.true_positive].sum()), found),
        curve=curve,
    )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: Any) -> Any:  # noqa: ANN401  (JSON is what it is)
    return float("nan") if value is None else value


def _shown(value: float | str) -> str:
    """Write a cell: counts whole, figures with three digits, a dash for what does not exist."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)
