"""How much each kind of error costs, by TIDE's definitions.

Bolya, Foley, Hays and Hoffman: TIDE: A General Toolbox for Identifying Object Detection Errors,
ECCV 2020 (https://arxiv.org/abs/2008.08115), sections 2.2 and 2.3; where the paper leaves a choice,
as its program ``tidecv`` decides (``tidecv/quantify.py``). Each unmatched detection has one error,
the first that applies:

- localisation: it overlaps a box of its class with an IoU of 0.1 to 0.5;
- class: it overlaps a box of another class with an IoU of at least 0.5;
- duplicate: it overlaps a box of its class with an IoU of at least 0.5, which another one matches;
- background: it overlaps no box with an IoU of more than 0.1;
- both: all others, which have the wrong class and the wrong place.

A true box is missed if no detection matches it and none would by a better place or class. The cost
of a kind is the average precision that is gained when all errors of the kind, and no others, are
corrected; costs therefore do not add up to what is lacking.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.evaluation.average_precision import precision_recall, sampled_average_precision
from oiyolo.evaluation.coco import MAX_DETECTIONS
from oiyolo.evaluation.matching import UNMATCHED, best_of_each, match_at, pairs_of_images

if TYPE_CHECKING:
    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth, Ints

LOCALISATION: Final = "localisation"
CLASS: Final = "class"
BOTH: Final = "both"
DUPLICATE: Final = "duplicate"
BACKGROUND: Final = "background"
MISSED: Final = "missed"
KINDS: Final = (LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED)

_RECALLS = np.arange(101) / 100
_FOREGROUND_IOU = 0.5
_BACKGROUND_IOU = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """The errors of a detector.

    Attributes:
        detections: The 100 best detections of each image.
        true_positive: Whether each of them matches a true box, shape (n,).
        ignored: Whether it is unmatched inside a group-of region, shape (n,).
        kind: The kind of each detection's error, empty if it has none, shape (n,).
        corrected: The box that each detection would match with a better place or class, or
            ``UNMATCHED``; of several detections the one with the highest score does, shape (n,).
        missed: Whether a true box is missed, shape (boxes,).
    """

    detections: Detections
    true_positive: Flags
    ignored: Flags
    kind: np.ndarray[tuple[int], np.dtype[np.str_]]
    corrected: Ints
    missed: Flags


def error_costs(detections: Detections, truth: GroundTruth, class_count: int) -> dict[str, float]:
    """Return what each kind of error costs in mAP at IoU 0.5, from 0 to 1.

    As in tidecv, precision is sampled at 101 recalls and an image has at most 100 detections. Other
    than there, classes without true boxes do not take part in the mean.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        class_count: Number of classes.

    Returns:
        The cost of each of ``KINDS``; NaN without true boxes.
    """
    errors = classify_errors(detections, truth)
    counted = ~truth.is_region
    if not counted.any():
        return dict.fromkeys(KINDS, float("nan"))
    has_boxes = np.bincount(truth.class_id[counted], minlength=class_count) > 0
    before = _mean_precision(errors, truth, "", has_boxes)
    after = {kind: _mean_precision(errors, truth, kind, has_boxes) for kind in KINDS}
    return {kind: max(value - before, 0.0) for kind, value in after.items()}


def classify_errors(detections: Detections, truth: GroundTruth) -> Errors:
    """Return the error of each detection, and the boxes that are missed.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
    """
    kept = best_of_each(detections, np.zeros(len(detections), dtype=np.int64), MAX_DETECTIONS)
    (matched,), (ignored,) = match_at(kept, truth, np.array([_FOREGROUND_IOU]))
    true_positive = matched != UNMATCHED
    used = np.zeros(len(truth), dtype=np.bool_)
    used[matched[true_positive]] = True
    kind, target = _kinds(kept, truth, used)
    kind[true_positive] = ""
    # A detection that is corrected matches its box, unless that is matched already.
    movable = np.flatnonzero(np.isin(kind, (LOCALISATION, CLASS)))
    movable = movable[~used[target[movable]]]
    movable = movable[np.argsort(-kept.score[movable], kind="stable")]
    boxes, first = np.unique(target[movable], return_index=True)
    corrected = np.full(len(kept), UNMATCHED, dtype=np.int64)
    corrected[movable[first]] = boxes
    missed = ~used & ~truth.is_region
    missed[boxes] = False
    return Errors(kept, true_positive, ignored, kind, corrected, missed)


def _kinds(
    detections: Detections, truth: GroundTruth, used: Flags
) -> tuple[np.ndarray[tuple[int], np.dtype[np.str_]], Ints]:
    """Return the kind of error of each detection as if none matched; the box it belongs to."""
    detection, box, overlap = pairs_of_images(detections, truth)
    best_first = np.lexsort((-overlap, detection))
    detection, box, overlap = detection[best_first], box[best_first], overlap[best_first]

    def best(chosen: Flags) -> tuple[Floats, Ints]:
        """Return the largest IoU of each detection in the chosen pairs, and its box."""
        rows, first = np.unique(detection[chosen], return_index=True)
        largest, of = np.zeros(len(detections)), np.full(len(detections), UNMATCHED)
        largest[rows], of[rows] = overlap[chosen][first], box[chosen][first]
        return largest, of

    is_own = detections.class_id[detection] == truth.class_id[box]
    own_iou, own_box = best(is_own)
    other_iou, other_box = best(~is_own)
    used_iou, _ = best(is_own & used[box])
    any_iou, _ = best(np.ones(len(box), dtype=np.bool_))
    is_near = (own_iou >= _BACKGROUND_IOU) & (own_iou <= _FOREGROUND_IOU)
    kind = np.select(
        [
            is_near,
            other_iou >= _FOREGROUND_IOU,
            used_iou >= _FOREGROUND_IOU,
            any_iou <= _BACKGROUND_IOU,
        ],
        [LOCALISATION, CLASS, DUPLICATE, BACKGROUND],
        default=BOTH,
    )
    return kind, np.where(is_near, own_box, other_box)


def _mean_precision(errors: Errors, truth: GroundTruth, kind: str, has_boxes: Flags) -> float:
    """Return mAP after the errors of a kind are corrected; of none if it is empty."""
    detections = errors.detections
    has_error = (errors.kind == kind) & (errors.kind != "")
    moved = has_error & (errors.corrected != UNMATCHED)
    class_id = detections.class_id.copy()
    class_id[moved] = truth.class_id[errors.corrected[moved]]
    shown = moved | (~errors.ignored & ~has_error)
    is_true = moved | errors.true_positive
    counted = ~truth.is_region & ~(errors.missed if kind == MISSED else False)
    values = []
    for number in np.flatnonzero(has_boxes):
        rows = shown & (class_id == number)
        box_count = int((counted & (truth.class_id == number)).sum())
        curve = precision_recall(detections.score[rows], is_true[rows], box_count)
        if box_count:
            values.append(sampled_average_precision(curve, _RECALLS))
        elif rows.any():  # all boxes were missed: what is left is wrong
            values.append(0.0)
    return float(np.mean(values)) if values else 1.0
