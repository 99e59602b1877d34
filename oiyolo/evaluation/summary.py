"""Evaluation of a detector on a set of images: mean average precision and a row for each class.

``map50`` is what darknet users call mAP@0.5: the mean over the classes of PASCAL VOC 2010's average
precision at IoU 0.5. Group-of boxes are treated as regions, not as objects: a detector of single
boats cannot match one box around many boats with an IoU of 0.5, and each boat that it detects
inside should not be a false positive. ``map50_95`` is COCO's metric, ``openimages_map`` that of the
Open Images challenge; see ``coco`` and ``openimages_metric``. Each has a 95 % interval, see
``bootstrap``; what each kind of error costs is in ``error_costs``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from oiyolo.core.records import mismatch
from oiyolo.core.results import TERMINAL_WIDTH, format_table, pluralize, table_html, text_html
from oiyolo.evaluation.average_precision import (
    PrecisionRecall,
    average_precision,
    best_threshold,
    class_curve,
    mean_over_classes,
)
from oiyolo.evaluation.bootstrap import image_weights, resampled_scores
from oiyolo.evaluation.coco import coco_precision
from oiyolo.evaluation.confusion import confusion_matrix
from oiyolo.evaluation.error_costs import KINDS, error_costs
from oiyolo.evaluation.figures import (
    HEADLINES,
    UNDEFINED,
    format_figure,
    format_interval,
    from_json,
    interval_from_json,
    interval_to_json,
    to_json,
)
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.openimages_metric import openimages_average_precision
from oiyolo.evaluation.slices import SliceScore, score_by_attribute, score_by_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.evaluation.figures import Interval
    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, GroundTruth

_COLUMNS = (
    ("class", "name"),
    ("mAP@0.5", "map50"),
    ("95 % interval", "ap50_bounds"),
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
_SCORE_COLUMNS = (
    *("class", "mAP@0.5", "95 % interval", "mAP@0.5:0.95", "Open Images"),
    *("images", "boxes"),
)
_COUNT_COLUMNS = (
    "class",
    *("threshold", "true positives", "false positives", "false negatives"),
    *("precision", "recall", "F1", "average IoU"),
)
_SLICE_HEADING = ("boxes", "count", "mAP@0.5", "recall")
_SHORT_HEADINGS = {
    "mAP@0.5": "@0.5",
    "mAP@0.5:0.95": "@0.5:0.95",
    "true positives": "TP",
    "false positives": "FP",
    "false negatives": "FN",
    "average IoU": "IoU",
}
_INTERVALS = ("map50_interval", "map50_95_interval", "openimages_map_interval")
_SLICES = ("by_size", "by_attribute")
_LATER_KEYS = (
    "images_to_halve_intervals",
    "scored_with",
    "thresholds_from",
    "cross_check",
    "baseline",
)
"""Keys that are null in files of older versions."""
_CURVE_DECIMALS = 6
_MIN_SAMPLE = 100
"""With fewer images or boxes, the interval of a score says more than the score."""
_MAX_WIDTH = 0.1
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
    map50_interval: list[float] | None


class _ScoredWeights(TypedDict):
    path: str | None
    sha256: str | None
    iteration: int | None
    reason: str | None


class _CrossCheck(TypedDict):
    scored_with: str
    map50: float | None
    difference: float | None


class _OptionalForm(TypedDict, total=False):
    split: str


class _Form(_OptionalForm):
    """The form of ``evaluation.json`` in all versions."""

    classes: dict[str, dict[str, Any]]


class _SliceForm(TypedDict):
    boxes: int
    map50: float | None
    recall: float | None


class _BaselineDifference(TypedDict):
    map50: float | None
    interval: list[float] | None
    beyond_chance: bool


class _BaselineForm(TypedDict):
    name: str
    source: str
    sha256: str
    classes: dict[str, list[str]]
    nearest: list[str]
    map50: float | None
    map50_95: float | None
    openimages_map: float | None
    map50_interval: list[float] | None
    map50_95_interval: list[float] | None
    openimages_map_interval: list[float] | None
    class_map50: dict[str, float | None]
    difference: _BaselineDifference


class _CurrentForm(_Figures):
    """The form of ``evaluation.json`` in this version."""

    weights: _ScoredWeights
    scored_with: str | None
    thresholds_from: str | None
    cross_check: _CrossCheck | None
    baseline: _BaselineForm | None
    classes: dict[str, _ClassForm]
    map50_interval: list[float] | None
    map50_95_interval: list[float] | None
    openimages_map_interval: list[float] | None
    images_to_halve_intervals: int | None
    errors: dict[str, float | None]
    confusion: list[list[int]]
    by_size: dict[str, _SliceForm]
    by_attribute: dict[str, _SliceForm]


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
        score_threshold: Score threshold at which the values below are counted.
        true_positives: Number of detections that match a true box.
        false_positives: Number of detections that match none and are not ignored.
        false_negatives: Number of true boxes that no detection matches.
        precision: True positives divided by true and false positives.
        recall: True positives divided by true boxes.
        f1: Harmonic mean of precision and recall.
        average_iou: Mean IoU of the true positives with their true boxes.
        curve: Precision and recall at every threshold.
        map50_interval: 95 % interval of ``map50``; NaN with fewer than two images.
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
    map50_interval: Interval = UNDEFINED

    @property
    def ap50_bounds(self) -> str:
        """The interval of ``map50`` in words."""
        return format_interval(self.map50_interval)

    def to_json(self) -> dict[str, Any]:
        """Return the row for ``evaluation.json``: NaN as null, at most 200 points of the curve."""
        curve = self.curve.downsampled()
        points = {
            name: getattr(curve, name).round(_CURVE_DECIMALS).tolist()
            for name in ("score", "precision", "recall")
        }
        return {
            **_figures_to_json(self),
            "map50_interval": interval_to_json(self.map50_interval),
            "curve": points,
        }

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> ClassEvaluation:
        """Return a class from its row in ``evaluation.json``, with the downsampled curve."""
        curve = PrecisionRecall(
            **{key: np.array(values, dtype=np.float64) for key, values in row["curve"].items()}
        )
        interval = interval_from_json(row["map50_interval"])
        return cls(name=name, curve=curve, map50_interval=interval, **_figures_from_json(cls, row))


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
        map50_interval: 95 % interval of ``map50``; NaN with fewer than two images.
        map50_95_interval: The same of ``map50_95``.
        openimages_map_interval: The same of ``openimages_map``.
        errors: What each kind of error costs in mAP at IoU 0.5, by TIDE's definitions; empty if an
            older version evaluated.
        by_size: Scores of the small, medium and large boxes, if the sizes of the images are known.
        by_attribute: Scores of the boxes with each attribute that is known.
        confusion: Number of boxes by true and by detected class at the score thresholds; the last
            row and column are the background. Empty if an older version evaluated.
    """

    map50: float
    map50_95: float
    openimages_map: float
    images: int
    boxes: int
    group_of_boxes: int
    detections: int
    classes: tuple[ClassEvaluation, ...] = dataclasses.field(repr=False)
    map50_interval: Interval = UNDEFINED
    map50_95_interval: Interval = UNDEFINED
    openimages_map_interval: Interval = UNDEFINED
    errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    by_size: Mapping[str, SliceScore] = dataclasses.field(default_factory=dict)
    by_attribute: Mapping[str, SliceScore] = dataclasses.field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), repr=False)

    @property
    def is_small_sample(self) -> bool:
        """Whether the scores are so uncertain that their intervals say more than they do."""
        return is_small_sample(self.images, self.boxes, self.map50_interval)

    @property
    def images_to_halve(self) -> int:
        """Number of further images that would halve the intervals."""
        return images_to_halve(self.images)

    @property
    def score_thresholds(self) -> tuple[float, ...]:
        """Score threshold at which the detections of each class are counted; NaN for none."""
        return tuple(row.score_threshold for row in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``: NaN as null, classes by name."""
        return {
            **_figures_to_json(self),
            **{name: interval_to_json(getattr(self, name)) for name in _INTERVALS},
            "images_to_halve_intervals": self.images_to_halve if self.is_small_sample else None,
            "errors": {kind: to_json(cost) for kind, cost in self.errors.items()},
            **{key: _slices_to_json(getattr(self, key)) for key in _SLICES},
            "confusion": [list(row) for row in self.confusion],
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
        figures = _figures_from_json(cls, value)
        figures |= {name: interval_from_json(value[name]) for name in _INTERVALS}
        return cls(
            **figures,
            errors={kind: from_json(cost) for kind, cost in value["errors"].items()},
            by_size=_slices_from_json(value["by_size"]),
            by_attribute=_slices_from_json(value["by_attribute"]),
            confusion=tuple(tuple(row) for row in value["confusion"]),
            classes=tuple(rows),
        )

    def __str__(self) -> str:
        return (
            f"{self._headline()}\n\n{self._table(_SCORE_COLUMNS)}\n\n"
            "at the score threshold of the class (TP: true positives, FP: false positives,\n"
            "FN: false negatives, IoU: mean over the TP):\n"
            f"{self._table(_COUNT_COLUMNS)}{self._error_table()}"
            f"{self._slice_table()}"
        )

    def _slices(self) -> dict[str, SliceScore]:
        """Return the scores by size, and by the attributes that boxes have."""
        marked = {name: score for name, score in self.by_attribute.items() if score.boxes}
        return {**self.by_size, **marked}

    def _slice_table(self) -> str:
        """Return the scores by size and attribute as text; empty if there are none."""
        rows = self._slice_rows()
        if not rows:
            return ""
        table = format_table([_SLICE_HEADING, *rows])
        return (
            f"\n\nboxes by size (small < 32 x 32 pixels, medium < 96 x 96) and attribute:\n{table}"
        )

    def _slice_rows(self) -> list[list[str]]:
        return [
            [name, *map(format_figure, (score.boxes, score.map50, score.recall))]
            for name, score in self._slices().items()
        ]

    def _error_rows(self) -> list[list[str]]:
        return [[kind, format_figure(self.errors[kind])] for kind in KINDS if kind in self.errors]

    def _error_table(self) -> str:
        """Return what each kind of error costs as text; empty if it is not known."""
        if not self.errors:
            return ""
        costs = [["error", "mAP@0.5"], *self._error_rows()]
        rows = format_table(costs, max_width=TERMINAL_WIDTH)
        return f"\n\nmAP@0.5 gained if all errors of one kind were corrected:\n{rows}"

    def _table(self, headings: Sequence[str]) -> str:
        """Return some of the columns as text."""
        _, *rows = self._rows(headings)
        shown = [_SHORT_HEADINGS.get(heading, heading) for heading in headings]
        return format_table([shown, *rows], max_width=TERMINAL_WIDTH)

    def _repr_html_(self) -> str:
        scores = [(label, self._score_text(name)) for label, name in HEADLINES]
        return (
            text_html(*self._sample_lines())
            + table_html([("score", "value"), *scores], right=False)
            + table_html(self._rows(_SCORE_COLUMNS))
            + table_html(self._rows(_COUNT_COLUMNS))
            + table_html([("kind of error", "mAP@0.5 gained without it"), *self._error_rows()])
            + table_html([_SLICE_HEADING, *self._slice_rows()])
        )

    def _headline(self) -> str:
        """Return a line for each score; the interval comes first if the sample is small."""
        width = max(len(label) for label, _ in HEADLINES)
        lines = [f"{label:<{width}}  {self._score_text(name)}" for label, name in HEADLINES]
        return "\n".join([*lines, *self._sample_lines()])

    def _sample_lines(self) -> list[str]:
        """Return on what was scored, and whether that is enough, line by line."""
        lines = [f"on {pluralize(self.images, 'image')} with {pluralize(self.boxes, 'box')}"]
        if self.is_small_sample and not math.isnan(self.map50):
            lines.append(small_sample_note(self.map50_interval, self.images_to_halve))
        return lines

    def _score_text(self, name: str) -> str:
        """Return a score with its interval."""
        interval = getattr(self, f"{name}_interval")
        return format_score(getattr(self, name), interval, is_small_sample=self.is_small_sample)

    def _rows(self, headings: Sequence[str]) -> list[list[str]]:
        """Return some of the columns: their headings, and a row for each class."""
        names = dict(_COLUMNS)
        rows = [[format_figure(getattr(row, names[h])) for h in headings] for row in self.classes]
        return [list(headings), *rows]


def is_small_sample(images: int, boxes: int, map50_interval: Interval) -> bool:
    """Return whether scores are so uncertain that their intervals say more than they do."""
    low, high = map50_interval
    return min(images, boxes) < _MIN_SAMPLE or high - low > _MAX_WIDTH


def images_to_halve(images: int) -> int:
    """Return how many further images would halve the intervals of scores on some images.

    The width falls with the square root of the number of images: half takes four times as many.
    """
    return 3 * images


def small_sample_note(map50_interval: Interval, images: int) -> str:
    """Return what to think of scores of few images or boxes, in words.

    Args:
        map50_interval: 95 % interval of mAP@0.5.
        images: Number of further images that would halve the intervals.
    """
    low, high = map50_interval
    note = f"{pluralize(images, 'more image')} would halve the intervals"
    if low == high:  # a detector that finds nothing, or everything
        note = "every image scores the same, so the interval says little about other images"
    return f"few images or boxes: {note}"


def format_score(score: float, interval: Interval, *, is_small_sample: bool) -> str:
    """Format a score with its interval, which comes first if the sample is small."""
    text = format_figure(score)
    if math.isnan(interval[0]):
        return text
    if is_small_sample:
        return f"{format_interval(interval)} (95 % interval; estimate {text})"
    return f"{text} (95 % interval {format_interval(interval)})"


def with_current_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an ``evaluation.json`` of this or an older version in today's form.

    Older versions called some figures differently, and recorded only the name of the weights.

    Raises:
        ValueError: A value is missing or of the wrong type.
    """
    if problem := mismatch(value, _Form):
        raise ValueError(problem)
    classes = {
        name: {
            "map50_interval": None,
            **{_RENAMED_KEYS.get(key, key): figure for key, figure in row.items()},
        }
        for name, row in value["classes"].items()
    }
    weights = value.get("weights")
    if not isinstance(weights, dict):
        weights = {"path": weights, "sha256": None, "iteration": None}
    weights = {"reason": None, **weights}
    added: dict[str, Any] = dict.fromkeys((*_INTERVALS, *_LATER_KEYS))
    added_tables: dict[str, Any] = {name: {} for name in ("errors", *_SLICES)}
    added["confusion"] = []
    value = {**added, **added_tables, **value, "classes": classes, "weights": weights}
    if problem := mismatch(value, _CurrentForm):
        raise ValueError(problem)
    for row in (value, *classes.values(), value["baseline"] or {}):
        for name in _INTERVALS:
            if len(row.get(name) or UNDEFINED) != len(UNDEFINED):
                raise ValueError(f"two bounds are expected for {name}")
    return value


def choose_thresholds(
    detections: Detections, truth: GroundTruth, class_count: int
) -> tuple[float, ...]:
    """Return the score threshold with the highest F1 of each class.

    A class without true boxes gets the median of the other classes' thresholds; NaN if there are
    none.
    """
    matches = match(detections, truth)
    chosen = np.array(
        [
            best_threshold(class_curve(matches, detections, truth, class_id)[0])
            for class_id in range(class_count)
        ]
    )
    is_known = np.isfinite(chosen)
    if is_known.any():
        chosen[~is_known] = np.median(chosen[is_known])
    return tuple(chosen.tolist())


def evaluate_detections(
    detections: Detections,
    truth: GroundTruth,
    class_names: Sequence[str],
    score_thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """Evaluate a detector.

    Args:
        detections: Detections down to the lowest score, with the same ``image_ids`` as ``truth``:
            a threshold applied beforehand truncates the curve and lowers all metrics.
        truth: Ground truth of all images to evaluate.
        class_names: Names of the classes; ``class_id`` is a position in them.
        score_thresholds: Score threshold of each class at which detections are counted; by default
            the one with the highest F1 here, which is slightly favourable.

    Raises:
        ValueError: The tables have different ``image_ids``, or a class id is not in
            ``class_names``.
    """
    class_count = len(class_names)
    for name, ids in (("detections", detections.class_id), ("truth", truth.class_id)):
        if ids.max(initial=-1) >= class_count:
            raise ValueError(
                f"{name} contain class id {ids.max()}, but class_names has "
                f"{pluralize(class_count, 'name')}"
            )
    matches = match(detections, truth)
    coco = coco_precision(detections, truth, class_count).mean(axis=(0, 1))
    openimages = openimages_average_precision(detections, truth, class_count)
    resampled = resampled_scores(detections, truth, class_count, image_weights(truth.image_ids))
    rows = tuple(
        _evaluate_class(
            class_id,
            detections,
            truth,
            matches,
            name=name,
            map50_95=float(coco[class_id]),
            openimages_map=float(openimages[class_id]),
            threshold=None if score_thresholds is None else score_thresholds[class_id],
        )
        for class_id, name in enumerate(class_names)
    )
    rows = tuple(
        dataclasses.replace(row, map50_interval=resampled.map50_interval(class_id, row.map50))
        for class_id, row in enumerate(rows)
    )
    by_class = {
        "map50": np.array([row.map50 for row in rows]),
        "map50_95": coco,
        "openimages_map": openimages,
    }
    thresholds = [row.score_threshold for row in rows]
    scores: dict[str, Any] = {}
    for name, values in by_class.items():
        scores[name] = mean_over_classes(values)
        scores[f"{name}_interval"] = resampled.interval(name, scores[name])
    return Evaluation(
        **scores,
        errors=error_costs(detections, truth, class_count),
        confusion=tuple(
            map(tuple, confusion_matrix(detections, truth, matches, thresholds).tolist())
        ),
        by_size=score_by_size(detections, truth, matches, thresholds),
        by_attribute=score_by_attribute(detections, truth, matches, thresholds),
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
    threshold: float | None,
) -> ClassEvaluation:
    """Return the evaluation of a class from the matches of all classes."""
    of_class = detections.class_id == class_id
    true_of_class = truth.class_id == class_id
    curve, box_count = class_curve(matches, detections, truth, class_id)
    if threshold is None:
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
        group_of_boxes=int((true_of_class & truth.regions["group_of"]).sum()),
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
    others = {"name", "curve", "classes", "confusion", "errors", *_INTERVALS, *_SLICES}
    return [field.name for field in dataclasses.fields(kind) if field.name not in others]


def _figures_to_json(evaluation: ClassEvaluation | Evaluation) -> dict[str, Any]:
    """Return the numbers of an evaluation: NaN as None."""
    figures = {name: getattr(evaluation, name) for name in _figure_names(type(evaluation))}
    return {name: to_json(value) for name, value in figures.items()}


def _figures_from_json(
    kind: type[ClassEvaluation | Evaluation], value: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the numbers of an evaluation: None as NaN."""
    figures = {name: value[name] for name in _figure_names(kind)}
    return {name: from_json(figure) for name, figure in figures.items()}


def _slices_to_json(slices: Mapping[str, SliceScore]) -> dict[str, Any]:
    return {
        name: {key: to_json(value) for key, value in dataclasses.asdict(score).items()}
        for name, score in slices.items()
    }


def _slices_from_json(value: Mapping[str, Any]) -> dict[str, SliceScore]:
    return {
        name: SliceScore(row["boxes"], from_json(row["map50"]), from_json(row["recall"]))
        for name, row in value.items()
    }
