"""COCO's average precision, computed by faster-coco-eval.

It is the mean over IoU thresholds 0.50, 0.55 ... 0.95 of precision sampled at 101 recalls, for the
100 best detections per image and class (https://cocodataset.org/#detection-eval). Group-of boxes
are passed as ``iscrowd``: regions in which detections are ignored.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from oiyolo.evaluation.average_precision import mean_over_classes

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth

_ALL_AREAS = 0
_MAX_DETECTIONS = -1


@dataclasses.dataclass(frozen=True, eq=False)
class CocoScores:
    """Average precision by COCO's rules.

    Attributes:
        map50_95: Mean over the classes, IoU 0.50 to 0.95.
        map50: Mean over the classes, IoU 0.50.
        class_map50_95: Value of each class, shape (classes,); NaN for a class without true boxes.
        class_map50: The same at IoU 0.50.
    """

    map50_95: float
    map50: float
    class_map50_95: Floats
    class_map50: Floats


def coco_scores(detections: Detections, truth: GroundTruth, class_count: int) -> CocoScores:
    """Compute average precision by COCO's rules.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        class_count: Number of classes.

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # noqa: PLC0415  (slow to import)

    if detections.image_ids != truth.image_ids:
        raise ValueError("detections and truth must have the same image_ids: use reindex()")
    if not len(truth):
        undefined = np.full(class_count, np.nan)
        return CocoScores(float("nan"), float("nan"), undefined, undefined)
    true_boxes = COCO(_as_coco(truth, class_count))
    evaluation = COCOeval_faster(
        true_boxes, true_boxes.loadRes(_as_coco_results(detections)), "bbox", extra_calc=False
    )
    evaluation.evaluate()
    evaluation.accumulate()
    # Axes: IoU threshold, recall, class, area range, detections per image; -1 if no true box.
    precision = evaluation.eval["precision"][..., _ALL_AREAS, _MAX_DETECTIONS]
    by_class = np.where(precision < 0, np.nan, precision)
    class_map50_95 = np.asarray(by_class.mean(axis=(0, 1)))
    class_map50 = np.asarray(by_class[0].mean(axis=0))
    return CocoScores(
        mean_over_classes(class_map50_95),
        mean_over_classes(class_map50),
        class_map50_95,
        class_map50,
    )


def _as_coco(truth: GroundTruth, class_count: int) -> dict[str, Any]:
    """Return the ground truth as a COCO dictionary.

    Coordinates stay fractions: scaling width and height does not change the IoU, and the area
    ranges small, medium and large are not used.
    """
    xywh = _to_xywh(truth.xyxy)
    rows = zip(
        truth.image.tolist(), truth.class_id.tolist(), xywh, truth.group_of.tolist(), strict=True
    )
    return {
        "info": {},
        "images": [{"id": i, "width": 1, "height": 1} for i in range(len(truth.image_ids))],
        "categories": [{"id": c, "name": str(c)} for c in range(class_count)],
        # Numbered from 1, because 0 means "unmatched" in the evaluator.
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": class_id,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": int(group_of),
            }
            for number, (image, class_id, bbox, group_of) in enumerate(rows, start=1)
        ],
    }


def _as_coco_results(detections: Detections) -> list[dict[str, Any]]:
    """Return the detections as a list of COCO results."""
    rows = zip(
        detections.image.tolist(),
        detections.class_id.tolist(),
        _to_xywh(detections.xyxy),
        detections.score.tolist(),
        strict=True,
    )
    return [
        {"image_id": image, "category_id": class_id, "bbox": bbox, "score": score}
        for image, class_id, bbox, score in rows
    ]


def _to_xywh(xyxy: Floats) -> list[list[float]]:
    """Return left, top, width and height of each box."""
    rows: list[list[float]] = np.concatenate(
        (xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]), axis=1
    ).tolist()
    return rows
