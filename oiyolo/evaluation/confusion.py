"""The confusion matrix of a detector, with the background as a further class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oiyolo.evaluation.matching import first_come, pairs_of_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, GroundTruth, Ints

_MIN_IOU = 0.5


def confusion_matrix(
    detections: Detections, truth: GroundTruth, matches: Matches, thresholds: Sequence[float]
) -> Ints:
    """Return how many boxes of each class were detected as each class.

    Boxes are matched within their class first, as everywhere. Of what is left, the detection with
    the highest score takes the box of another class that it overlaps most, with an IoU of at least
    0.5. A box that is left then was taken for background, and a detection for which none is left
    was background. Detections that are ignored, and group-of boxes, are not counted.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        matches: What matches within the classes.
        thresholds: Score threshold of each class; NaN if no detection of it is counted.

    Returns:
        Counts by true and by detected class, shape (classes + 1, classes + 1); the last row and
        column are the background.
    """
    background = len(thresholds)
    limits = np.array(thresholds, dtype=np.float64)
    # If a threshold is NaN, the comparison is false for every detection.
    shown = (detections.score >= limits[detections.class_id]) & ~matches.ignored
    is_right = shown & matches.true_positive
    found = np.zeros(len(truth), dtype=np.bool_)
    found[matches.box[is_right]] = True
    rest = np.flatnonzero(shown & ~is_right)
    rest = rest[np.argsort(-detections.score[rest], kind="stable")]
    detection, box, overlap = pairs_of_images(detections, truth)
    rank = np.full(len(detections), len(rest))
    rank[rest] = np.arange(len(rest))
    other = detections.class_id[detection] != truth.class_id[box]
    free = (rank[detection] < len(rest)) & ~found[box] & other & (overlap >= _MIN_IOU)
    order = np.lexsort((-overlap[free], rank[detection][free]))
    ranks, taken = first_come(rank[detection][free][order], box[free][order])
    true_class = np.full(len(detections), background)
    true_class[is_right] = truth.class_id[matches.box[is_right]]
    true_class[rest[ranks]] = truth.class_id[taken]
    found[taken] = True
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    np.add.at(matrix, (true_class[shown], detections.class_id[shown]), 1)
    missed = truth.class_id[matches.counted & ~found]
    matrix[:, background] += np.bincount(missed, minlength=background + 1)
    return matrix
