"""COCO's average precision, computed by faster-coco-eval.

It is the mean over IoU thresholds 0.50, 0.55 ... 0.95 of precision sampled at 101 recalls, for the
100 best detections per image and class (https://cocodataset.org/#detection-eval). Group-of boxes
are passed as ``iscrowd``: regions in which detections are ignored. The evaluator does not return
what it matched; ``matching.match_at`` applies the same rules where that is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
"""Per image and class; further ones, those of the lowest scores, are not evaluated."""
_ALL_AREAS = 0
_MOST_DETECTIONS = -1


def coco_precision(detections: Detections, truth: GroundTruth, class_count: int) -> Floats:
    """Return the sampled precision, whose mean is the average precision of a class.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        class_count: Number of classes.

    Returns:
        Precision by IoU threshold, recall and class, shape (10, 101, classes); NaN for a class
        without true boxes.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # noqa: PLC0415  (slow to import)

    if not len(truth):
        return np.full((len(IOU_THRESHOLDS), len(RECALLS), class_count), np.nan)
    true_boxes = COCO(
        {
            "info": {},
            # Coordinates stay fractions: scaling width and height does not change the IoU, and the
            # area ranges small, medium and large are not used.
            "images": [{"id": i, "width": 1, "height": 1} for i in range(len(truth.image_ids))],
            "categories": [{"id": c, "name": str(c)} for c in range(class_count)],
            "annotations": _annotations(truth, "iscrowd", truth.is_region.astype(int).tolist()),
        }
    )
    results = true_boxes.loadRes(_annotations(detections, "score", detections.score.tolist()))
    evaluation = COCOeval_faster(true_boxes, results, "bbox", extra_calc=False)
    evaluation.evaluate()
    evaluation.accumulate()
    # Axes: IoU threshold, recall, class, area range, detections per image; -1 if no true box.
    precision = evaluation.eval["precision"][..., _ALL_AREAS, _MOST_DETECTIONS]
    return np.where(precision < 0, np.nan, precision)


def _annotations(
    table: Detections | GroundTruth, key: str, values: list[float]
) -> list[dict[str, Any]]:
    """Return boxes as COCO annotations, with a further value for each."""
    xywh = np.concatenate((table.xyxy[:, :2], table.xyxy[:, 2:] - table.xyxy[:, :2]), axis=1)
    rows = zip(table.image.tolist(), table.class_id.tolist(), xywh.tolist(), values, strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": class_id,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            key: value,
        }
        # Numbered from 1, because 0 means "unmatched" in the evaluator.
        for number, (image, class_id, bbox, value) in enumerate(rows, start=1)
    ]
