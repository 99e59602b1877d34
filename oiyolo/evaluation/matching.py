"""Matching of detections to true boxes.

The detections of a class in an image are matched in descending order of score, as in the PASCAL VOC
and COCO evaluations. A true box is matched at most once; a further detection of it is a false
positive. Group-of boxes are regions: unmatched detections inside them are ignored. All functions
are pure, and the result does not depend on the order of the input.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.boxes import ioa, iou

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth, Ints

UNMATCHED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """The result of matching, in the order of the matched tables.

    Attributes:
        box: Index of the true box that each detection matches, or ``UNMATCHED``, shape
            (detections,).
        iou: IoU of each detection with that box, 0 if unmatched, shape (detections,).
        ignored: Whether a detection is neither a true nor a false positive, shape (detections,).
        detection: Index of the detection that matches each true box, or ``UNMATCHED``, shape
            (boxes,).
        counted: Whether a true box is a false negative if unmatched, shape (boxes,).
    """

    box: Ints
    iou: Floats
    ignored: Flags
    detection: Ints
    counted: Flags

    @property
    def true_positive(self) -> Flags:
        """Whether a detection matches a true box, shape (detections,)."""
        return np.asarray(self.box != UNMATCHED)

    @property
    def false_positive(self) -> Flags:
        """Whether a detection is unmatched and not ignored, shape (detections,)."""
        return np.asarray((self.box == UNMATCHED) & ~self.ignored)

    @property
    def false_negative(self) -> Flags:
        """Whether a counted true box is unmatched, shape (boxes,)."""
        return np.asarray((self.detection == UNMATCHED) & self.counted)


def match(
    detections: Detections,
    truth: GroundTruth,
    *,
    iou_threshold: float = 0.5,
    ioa_threshold: float = 0.5,
    group_of_as_regions: bool = True,
    second_choice: bool = False,
) -> Matches:
    """Match detections to true boxes of the same image and class.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        iou_threshold: Smallest intersection over union of a match, above 0.
        ioa_threshold: Smallest intersection over the area of a detection for it to lie in a
            group-of region.
        group_of_as_regions: Whether group-of boxes are regions; otherwise they are ordinary boxes.
        second_choice: Whether a detection whose best box is already matched may match another
            one. It may for COCO (``pycocotools``); for PASCAL VOC (``VOCevaldet.m`` in its
            development kit), Open Images and darknet's ``map`` it is a false positive.

    Raises:
        ValueError: The tables have different ``image_ids``, or ``iou_threshold`` is not above 0.
    """
    if detections.image_ids != truth.image_ids:
        raise ValueError("detections and truth must have the same image_ids: use reindex()")
    if not iou_threshold > 0:
        raise ValueError(f"iou_threshold must be above 0, not {iou_threshold}")
    regions = truth.group_of if group_of_as_regions else np.zeros_like(truth.group_of)
    order = _order_by_score(detections)
    matched_box = np.full(len(detections), UNMATCHED, dtype=np.int64)
    matched_iou = np.zeros(len(detections))
    matched_detection = np.full(len(truth), UNMATCHED, dtype=np.int64)
    # There are only a few candidates per true box, so a loop is fast enough.
    for detection, box, overlap in _candidates(
        detections,
        truth,
        order,
        np.flatnonzero(~regions),
        iou_threshold,
        second_choice=second_choice,
    ):
        if matched_box[detection] == UNMATCHED and matched_detection[box] == UNMATCHED:
            matched_box[detection] = box
            matched_iou[detection] = overlap
            matched_detection[box] = detection
    in_region = _in_regions(detections, truth, order, np.flatnonzero(regions), ioa_threshold)
    return Matches(
        matched_box,
        matched_iou,
        (matched_box == UNMATCHED) & in_region,
        matched_detection,
        ~regions,
    )


def _order_by_score(detections: Detections) -> Ints:
    """Return indices of the detections by descending score; ties are broken by their values."""
    _, name_rank = np.unique(np.array(detections.image_ids, dtype=str), return_inverse=True)
    image = name_rank[detections.image] if len(name_rank) else detections.image
    ties = (*detections.xyxy.T, detections.class_id, image)
    return np.lexsort((*ties, -detections.score)).astype(np.int64)


def _pairs(
    detections: Detections, truth: GroundTruth, order: Ints, boxes: Ints
) -> tuple[Ints, Ints]:
    """Pair every detection with the boxes of its image and class.

    Args:
        detections: The detections.
        truth: The true boxes.
        order: Indices of the detections in descending order of score.
        boxes: Indices of the boxes to pair with.

    Returns:
        For each pair the detection's rank (position in ``order``) and the index of the box, sorted
        by rank, then by the values of the box.
    """
    classes = 1 + max(detections.class_id.max(initial=0), truth.class_id.max(initial=0))
    detection_keys = (detections.image * classes + detections.class_id)[order]
    box_keys = (truth.image * classes + truth.class_id)[boxes]
    by_key = np.lexsort((*truth.xyxy[boxes].T, box_keys))
    first = np.searchsorted(box_keys[by_key], detection_keys, side="left")
    count = np.searchsorted(box_keys[by_key], detection_keys, side="right") - first
    rank = np.repeat(np.arange(len(order)), count)
    within = np.arange(len(rank)) - np.repeat(np.cumsum(count) - count, count)
    return rank, boxes[by_key][np.repeat(first, count) + within]


def _candidates(
    detections: Detections,
    truth: GroundTruth,
    order: Ints,
    boxes: Ints,
    iou_threshold: float,
    *,
    second_choice: bool,
) -> Iterator[tuple[int, int, float]]:
    """Return detection, box and IoU of each pair that may match, in descending order of score."""
    rank, box = _pairs(detections, truth, order, boxes)
    overlap = iou(detections.xyxy[order[rank]], truth.xyxy[box])
    # lexsort is stable: boxes of equal IoU stay sorted by their values.
    best_first = np.lexsort((-overlap, rank))
    if not second_choice:
        best_first = best_first[np.unique(rank[best_first], return_index=True)[1]]
    chosen = best_first[overlap[best_first] >= iou_threshold]
    return zip(
        order[rank[chosen]].tolist(), box[chosen].tolist(), overlap[chosen].tolist(), strict=True
    )


def _in_regions(
    detections: Detections, truth: GroundTruth, order: Ints, regions: Ints, ioa_threshold: float
) -> Flags:
    """Return whether each detection lies in a region of its class, shape (detections,)."""
    rank, region = _pairs(detections, truth, order, regions)
    overlap = ioa(detections.xyxy[order[rank]], truth.xyxy[region])
    is_inside = (overlap > 0) & (overlap >= ioa_threshold)
    inside = np.zeros(len(detections), dtype=np.bool_)
    inside[order[rank[is_inside]]] = True
    return inside
