"""Precision, recall, and the area under them.

Average precision is PASCAL VOC's since 2010: precision at a recall is the best that any
threshold reaches at that recall or more, and the area below it is summed exactly, at every step
of recall (Everingham et al., The PASCAL Visual Object Classes Challenge 2010 Development Kit,
section 3.4.1). VOC 2007 and COCO take samples of the same envelope instead, at 11 and 101 recalls.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Flags, Floats


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall at every threshold that makes a difference.

    Attributes:
        score: The thresholds, falling, shape (k,). Detections of equal score pass together.
        precision: True positives among the detections at or above the threshold, shape (k,).
        recall: True positives among the true boxes, shape (k,); nan where there is no true box.
    """

    score: Floats
    precision: Floats
    recall: Floats

    @property
    def f1(self) -> Floats:
        """The harmonic mean of precision and recall, shape (k,)."""
        total = self.precision + self.recall
        return np.divide(
            2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0
        )

    def thinned(self, limit: int = 200) -> PrecisionRecall:
        """Give at most ``limit`` points that show the same curve.

        Only thresholds at which recall rises are corners of the envelope; the long tail of
        false alarms adds nothing that a chart could show.
        """
        corners = np.flatnonzero(np.diff(self.recall, prepend=0.0) > 0)
        if len(corners) > limit:
            corners = corners[np.linspace(0, len(corners) - 1, limit).round().astype(np.int64)]
        return PrecisionRecall(self.score[corners], self.precision[corners], self.recall[corners])


def precision_recall(score: Floats, true_positive: Flags, box_count: int) -> PrecisionRecall:
    """Lower the threshold past every detection.

    Args:
        score: Scores of the detections that count, shape (n,), in any order.
        true_positive: Which of them found a box, shape (n,).
        box_count: How many boxes there were to be found.

    Returns:
        The curve, with k different scores.
    """
    order = np.argsort(-score, kind="stable")
    score = score[order]
    found = np.cumsum(true_positive[order])
    last_of_its_score = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    found = found[last_of_its_score]
    recall = found / box_count if box_count else np.full(len(found), np.nan)
    return PrecisionRecall(score[last_of_its_score], found / (last_of_its_score + 1), recall)


def average_precision(curve: PrecisionRecall, box_count: int) -> float:
    """Give the area under the envelope of precision over recall.

    Args:
        curve: The curve; without a point when nothing was detected.
        box_count: How many boxes there were to be found.

    Returns:
        From 0 to 1; nan where there was nothing to be found, so that no mean counts it.
    """
    if not box_count:
        return float("nan")
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * envelope))


def best_threshold(curve: PrecisionRecall) -> float:
    """Give the score threshold of the highest F1, the higher threshold where two are equal.

    Returns:
        The threshold; nan where nothing was detected or there was nothing to be found.
    """
    if not len(curve.score) or np.isnan(curve.recall).any():
        return float("nan")
    return float(curve.score[np.argmax(curve.f1)])


def mean_over_classes(values: Floats) -> float:
    """Give the mean over the classes that have a value; nan when none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
