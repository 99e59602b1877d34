"""Precision, recall and average precision.

Average precision is that of PASCAL VOC since 2010: the exact area under the envelope of the curve,
where the precision at a recall is the maximum at that recall or a higher one (Everingham et al.,
The PASCAL Visual Object Classes Challenge 2010 Development Kit, section 3.4.1). VOC 2007 and COCO
sample the same envelope at 11 and 101 recalls instead.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall at every distinct threshold.

    Attributes:
        score: Thresholds in descending order, shape (k,). Detections with equal scores share one.
        precision: Fraction of true positives among the detections at or above the threshold, shape
            (k,).
        recall: Fraction of the true boxes that are matched, shape (k,); NaN without true boxes.
    """

    score: Floats
    precision: Floats
    recall: Floats

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall, shape (k,)."""
        total = self.precision + self.recall
        return np.divide(
            2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0
        )

    def downsampled(self, limit: int = 200) -> PrecisionRecall:
        """Return at most ``limit`` points that represent the same curve.

        Only thresholds at which recall rises are corners of the envelope; the long tail of false
        positives would not be visible in a chart.
        """
        corners = np.flatnonzero(np.diff(self.recall, prepend=0.0) > 0)
        if len(corners) > limit:
            corners = corners[np.linspace(0, len(corners) - 1, limit).round().astype(np.int64)]
        return PrecisionRecall(self.score[corners], self.precision[corners], self.recall[corners])


def precision_recall(score: Floats, true_positive: Flags, box_count: int) -> PrecisionRecall:
    """Compute precision and recall at every distinct score.

    Args:
        score: Scores of the detections that are not ignored, shape (n,), in any order.
        true_positive: Whether each of them is a true positive, shape (n,).
        box_count: Number of true boxes.

    Returns:
        The curve, with one point per distinct score.
    """
    order = np.argsort(-score, kind="stable")
    score = score[order]
    true_positives = np.cumsum(true_positive[order])
    last_of_score = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    true_positives = true_positives[last_of_score]
    recall = true_positives / box_count if box_count else np.full(len(true_positives), np.nan)
    return PrecisionRecall(score[last_of_score], true_positives / (last_of_score + 1), recall)


def class_curve(
    matches: Matches, detections: Detections, truth: GroundTruth, class_id: int
) -> tuple[PrecisionRecall, int]:
    """Return the curve of a class and its number of counted true boxes."""
    scored = (detections.class_id == class_id) & ~matches.ignored
    box_count = int((matches.counted & (truth.class_id == class_id)).sum())
    curve = precision_recall(detections.score[scored], matches.true_positive[scored], box_count)
    return curve, box_count


def average_precision(curve: PrecisionRecall, box_count: int) -> float:
    """Return the area under the envelope of precision over recall.

    Args:
        curve: The curve, which has no points if nothing was detected.
        box_count: Number of true boxes.

    Returns:
        A value from 0 to 1; NaN without true boxes, so that a mean over classes skips it.
    """
    if not box_count:
        return float("nan")
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * envelope))


def sampled_average_precision(curve: PrecisionRecall, recalls: Floats) -> float:
    """Return the mean of the envelope of precision at some recalls, 0 where none is reached.

    Args:
        curve: The curve of a class with true boxes.
        recalls: Recalls at which precision is sampled, ascending.
    """
    envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(curve.recall, recalls, side="left")].mean())


def average_precisions(
    matches: Matches, detections: Detections, truth: GroundTruth, class_count: int
) -> Floats:
    """Return the average precision of each class, NaN without true boxes, shape (classes,)."""
    curves = (class_curve(matches, detections, truth, class_id) for class_id in range(class_count))
    return np.array([average_precision(*curve) for curve in curves])


def best_threshold(curve: PrecisionRecall) -> float:
    """Return the score threshold with the highest F1; the highest of them if several have it.

    Returns:
        The threshold; NaN without detections or without true boxes.
    """
    if not len(curve.score) or np.isnan(curve.recall).any():
        return float("nan")
    return float(curve.score[np.argmax(curve.f1)])


def mean_over_classes(values: Floats) -> float:
    """Return the mean over the classes that have a value; NaN if none has."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
