"""The Open Images V2 detection metric.

It differs from PASCAL VOC's because Open Images does not annotate every class in every image
(https://storage.googleapis.com/openimages/web/evaluation.html):

- A detection of a class whose presence or absence in the image was not verified is ignored,
  because it may be correct.
- An unmatched detection with at least half of its area in a group-of box of its class is ignored.
  An undetected group-of box is not a false negative.
- A box also counts for all ancestors of its class, if the hierarchy is given.

The rules follow the TensorFlow Object Detection API, research/object_detection/utils/
per_image_evaluation.py, ``_compute_tp_fp_for_single_class`` with ``group_of_weight=0``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.evaluation.average_precision import average_precision, precision_recall
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.tables import ABSENT, PRESENT, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth, Verified


def openimages_average_precision(
    detections: Detections,
    truth: GroundTruth,
    class_count: int,
    *,
    ancestors: Mapping[int, Iterable[int]] | None = None,
) -> Floats:
    """Return the average precision of each class at IoU 0.5 by the Open Images V2 rules.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``. They are not expanded: a
            detector must itself detect ancestor classes.
        truth: Ground truth, with its verified labels.
        class_count: Number of classes.
        ancestors: Ids of all ancestors of each class id; ``None`` if the boxes of descendants
            already have the id of the selected class.

    Returns:
        Shape (classes,); NaN for a class without boxes other than group-of boxes.

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    if ancestors:
        truth = expand_hierarchy(truth, ancestors)
    detections = detections.where(truth.is_verified(detections.image, detections.class_id))
    matches = match(detections, truth)
    scored = ~matches.ignored
    result = np.full(class_count, np.nan)
    for class_id in range(class_count):
        of_class = scored & (detections.class_id == class_id)
        box_count = int(np.sum(matches.counted & (truth.class_id == class_id)))
        curve = precision_recall(
            detections.score[of_class], matches.true_positive[of_class], box_count
        )
        result[class_id] = average_precision(curve, box_count)
    return result


def expand_hierarchy(truth: GroundTruth, ancestors: Mapping[int, Iterable[int]]) -> GroundTruth:
    """Add what the class hierarchy implies to the ground truth.

    A box of a class is also a box of each ancestor. If a class is present, so are its ancestors; if
    a class is absent, so are its descendants.

    Args:
        truth: Ground truth as annotated.
        ancestors: Ids of all ancestors of each class id, not only of its parents.

    Returns:
        The ground truth with the implied boxes and verified labels.
    """
    ancestor_ids = {child: sorted(set(classes) - {child}) for child, classes in ancestors.items()}
    source = np.array(
        [row for row, c in enumerate(truth.class_id.tolist()) for _ in ancestor_ids.get(c, ())],
        dtype=np.int64,
    )
    implied = np.array(
        [parent for c in truth.class_id.tolist() for parent in ancestor_ids.get(c, ())],
        dtype=np.int64,
    )
    rows = np.concatenate((np.arange(len(truth)), source))
    return dataclasses.replace(
        truth,
        image=truth.image[rows],
        class_id=np.concatenate((truth.class_id, implied)),
        xyxy=truth.xyxy[rows],
        group_of=truth.group_of[rows],
        verified=None if truth.verified is None else _expand_verified(truth.verified, ancestor_ids),
    )


def _expand_verified(verified: Verified, ancestor_ids: Mapping[int, list[int]]) -> Verified:
    """Propagate presence to ancestors and absence to descendants; explicit labels are kept."""
    expanded: Verified = verified.copy()
    for child, parents in ancestor_ids.items():
        for parent in parents:
            if max(child, parent) >= verified.shape[1]:
                continue
            unknown = verified[:, [child, parent]] == UNKNOWN
            expanded[unknown[:, 0] & (verified[:, parent] == ABSENT), child] = ABSENT
            expanded[unknown[:, 1] & (verified[:, child] == PRESENT), parent] = PRESENT
    return expanded
