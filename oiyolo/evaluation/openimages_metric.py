"""The Open Images V2 detection metric.

It differs from PASCAL VOC's in what it leaves out, because Open Images is not annotated for
every class in every image (https://storage.googleapis.com/openimages/web/evaluation.html):

- A detection of a class that nobody verified in the image, neither present nor absent, is
  dropped: it may well be right.
- A detection that found no box of its own and half of whose area or more lies in a group-of box
  of its class is dropped; group-of boxes themselves need not be found.
- A box counts for every class above its own, when the hierarchy is given.

The rules are those of the TensorFlow Object Detection API, research/object_detection/utils/
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
    """Give each class's average precision at IoU 0.5 by the Open Images V2 rules.

    Args:
        detections: What the detector claims; over the same ``image_ids`` as ``truth``. They are
            taken as they are: a detector that should be scored for a parent class must say so.
        truth: What is there, and what was verified.
        class_count: How many classes there are.
        ancestors: For a class id the ids of all classes above it. Leave it out when the boxes of
            descendants already bear the selected class's id.

    Returns:
        Shape (classes,); nan where a class has no box that is not group-of.

    Raises:
        ValueError: The tables are over different images.
    """
    if ancestors:
        truth = expand_hierarchy(truth, ancestors)
    detections = detections.where(truth.has_verified(detections.image, detections.class_id))
    matches = match(detections, truth)
    scored = ~matches.ignored
    result = np.full(class_count, np.nan)
    for class_id in range(class_count):
        mine = scored & (detections.class_id == class_id)
        box_count = int(np.sum(matches.counted & (truth.class_id == class_id)))
        curve = precision_recall(detections.score[mine], matches.true_positive[mine], box_count)
        result[class_id] = average_precision(curve, box_count)
    return result


def expand_hierarchy(truth: GroundTruth, ancestors: Mapping[int, Iterable[int]]) -> GroundTruth:
    """Say in the ground truth what the hierarchy implies.

    A box of a class is a box of every class above it. A class that is present makes every class
    above it present; a class that is absent makes every class below it absent.

    Args:
        truth: The ground truth as people gave it.
        ancestors: For a class id the ids of all classes above it, not only of its parents.

    Returns:
        The ground truth with the implied boxes and verifications added.
    """
    above = {child: sorted(set(classes) - {child}) for child, classes in ancestors.items()}
    source = np.array(
        [row for row, c in enumerate(truth.class_id.tolist()) for _ in above.get(c, ())],
        dtype=np.int64,
    )
    implied = np.array(
        [parent for c in truth.class_id.tolist() for parent in above.get(c, ())], dtype=np.int64
    )
    rows = np.concatenate((np.arange(len(truth)), source))
    return dataclasses.replace(
        truth,
        image=truth.image[rows],
        class_id=np.concatenate((truth.class_id, implied)),
        xyxy=truth.xyxy[rows],
        group_of=truth.group_of[rows],
        verified=None if truth.verified is None else _expand_verified(truth.verified, above),
    )


def _expand_verified(verified: Verified, above: Mapping[int, list[int]]) -> Verified:
    """Spread presence upwards and absence downwards; what people said themselves stays."""
    expanded: Verified = verified.copy()
    for child, parents in above.items():
        for parent in parents:
            if max(child, parent) >= verified.shape[1]:
                continue
            nobody_said = verified[:, [child, parent]] == UNKNOWN
            expanded[nobody_said[:, 0] & (verified[:, parent] == ABSENT), child] = ABSENT
            expanded[nobody_said[:, 1] & (verified[:, child] == PRESENT), parent] = PRESENT
    return expanded
