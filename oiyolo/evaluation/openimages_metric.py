"""The Open Images V2 detection metric.

It differs from PASCAL VOC's because Open Images does not annotate every class in every image
(https://storage.googleapis.com/openimages/web/evaluation.html):

- A detection of a class whose presence or absence in the image was not verified is ignored,
  because it may be correct.
- An unmatched detection with at least half of its area in a group-of box of its class is ignored.
  An undetected group-of box is not a false negative.
- A box also counts for all ancestors of its class. This is left to the selection, which gives the
  boxes of descendants the class that the user has named.

The rules follow the TensorFlow Object Detection API, research/object_detection/utils/
per_image_evaluation.py, ``_compute_tp_fp_for_single_class`` with ``group_of_weight=0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oiyolo.evaluation.average_precision import average_precision, class_curve
from oiyolo.evaluation.matching import match

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth


def openimages_average_precision(
    detections: Detections, truth: GroundTruth, class_count: int
) -> Floats:
    """Return the average precision of each class at IoU 0.5 by the Open Images V2 rules.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth, with its verified labels.
        class_count: Number of classes.

    Returns:
        Shape (classes,); NaN for a class without boxes other than group-of boxes.

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    detections = detections.where(truth.is_verified(detections.image, detections.class_id))
    matches = match(detections, truth)
    curves = (class_curve(matches, detections, truth, c) for c in range(class_count))
    return np.array([average_precision(curve, box_count) for curve, box_count in curves])
