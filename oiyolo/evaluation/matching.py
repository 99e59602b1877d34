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
    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth, Ints

UNMATCHED = -1
_MIN_IOU = 0.5
"""Smallest intersection over union of a match."""
_MIN_IOA = 0.5
"""Smallest share of its area with which a detection lies in a group-of region."""


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


def match(detections: Detections, truth: GroundTruth) -> Matches:
    """Match detections to true boxes of the same image and class.

    A detection may match only the box that it overlaps most. If that is matched already, it is a
    false positive, as for PASCAL VOC (``VOCevaldet.m`` in its development kit), Open Images and
    darknet's ``map``; for COCO (``pycocotools``), it may match another one.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.

    Raises:
        ValueError: The tables have different ``image_ids``.
    """
    if detections.image_ids != truth.image_ids:
        raise ValueError("detections and truth must have the same image_ids")
    order = _order_by_score(detections)
    rank, box, overlap = _best_boxes(detections, truth, order)
    # Ranks ascend, so that the first detection of each box has the highest score.
    first = np.unique(box, return_index=True)[1]
    detection, box = order[rank[first]], box[first]
    matched_box = np.full(len(detections), UNMATCHED, dtype=np.int64)
    matched_iou = np.zeros(len(detections))
    matched_detection = np.full(len(truth), UNMATCHED, dtype=np.int64)
    matched_box[detection], matched_iou[detection] = box, overlap[first]
    matched_detection[box] = detection
    ignored = (matched_box == UNMATCHED) & _in_regions(detections, truth, order, _MIN_IOA)
    return Matches(matched_box, matched_iou, ignored, matched_detection, ~truth.is_region)


def match_at(detections: Detections, truth: GroundTruth, min_ious: Floats) -> tuple[Ints, Flags]:
    """Match detections to true boxes of the same image and class by COCO's rules.

    A detection matches the box that it overlaps most among those that no detection of a higher
    score has matched (``evaluateImg`` in ``pycocotools/cocoeval.py``), at each IoU separately.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        min_ious: Smallest IoU of a match, and smallest share of its area with which a detection
            lies in a group-of region, shape (t,).

    Returns:
        Index of the true box that each detection matches, or ``UNMATCHED``, and whether it is
        ignored; both of shape (t, detections).
    """
    order = _order_by_score(detections)
    rank, box = _pairs(detections, truth, order, np.flatnonzero(~truth.is_region))
    overlap = iou(detections.xyxy[order[rank]], truth.xyxy[box])
    by_rank = np.lexsort((-overlap, rank))
    rank, box, overlap = rank[by_rank], box[by_rank], overlap[by_rank]
    matched = np.full((len(min_ious), len(detections)), UNMATCHED, dtype=np.int64)
    ignored = np.zeros(matched.shape, dtype=np.bool_)
    for row, min_iou in enumerate(min_ious):
        close = overlap >= min_iou
        ranks, boxes = first_come(rank[close], box[close])
        matched[row, order[ranks]] = boxes
        in_region = _in_regions(detections, truth, order, min_iou)
        ignored[row] = (matched[row] == UNMATCHED) & in_region
    return matched, ignored


def first_come(rank: Ints, box: Ints) -> tuple[Ints, Ints]:
    """Assign to each rank, in ascending order, the first box of its pairs that is still free.

    Args:
        rank: Rank of each pair, ascending, shape (pairs,).
        box: Box of each pair, by descending preference of the rank, shape (pairs,).

    Returns:
        The ranks that have a box, and their boxes.
    """
    while True:
        # Every rank asks for the first box left to it, and the lowest rank gets it; the others
        # lose that box for good. This ends where serving the ranks one by one ends.
        asked = np.unique(rank, return_index=True)[1]
        granted = asked[np.unique(box[asked], return_index=True)[1]]
        if len(granted) == len(asked):
            return rank[granted], box[granted]
        lost = np.setdiff1d(asked, granted, assume_unique=True)
        rank, box = np.delete(rank, lost), np.delete(box, lost)


def best_of_each(detections: Detections, group: Ints, limit: int) -> Detections:
    """Return the detections of the highest scores in each image and group.

    Args:
        detections: The detections.
        group: A number of each detection; those of an image with the same one compete, shape (n,).
        limit: Number of detections to keep.
    """
    order = _order_by_score(detections)
    by_group = order[np.lexsort((group[order], detections.image[order]))]
    key = np.stack((detections.image, group))[:, by_group]
    is_first = np.append(True, (key[:, 1:] != key[:, :-1]).any(axis=0))[: len(by_group)]
    start = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    keep = np.zeros(len(detections), dtype=np.bool_)
    keep[by_group[np.arange(len(by_group)) - start < limit]] = True
    return detections.where(keep)


def _order_by_score(detections: Detections) -> Ints:
    """Return indices of the detections by descending score; ties are broken by their values."""
    order = np.argsort(-detections.score, kind="stable").astype(np.int64)
    score = detections.score[order]
    equal = np.zeros(len(order) + 1, dtype=np.bool_)
    equal[1:-1] = score[1:] == score[:-1]
    tied = np.flatnonzero(equal[1:] | equal[:-1])
    # Sorting by all values is slow, and few scores are equal.
    rows = order[tied]
    _, name_rank = np.unique(np.array(detections.image_ids, dtype=str), return_inverse=True)
    image = name_rank[detections.image[rows]] if len(name_rank) else detections.image[rows]
    ties = (*detections.xyxy[rows].T, detections.class_id[rows], image)
    order[tied] = rows[np.lexsort((*ties, -score[tied]))]
    return order


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


def pairs_of_images(detections: Detections, truth: GroundTruth) -> tuple[Ints, Ints, Floats]:
    """Pair every detection with the boxes of its image, of any class, without group-of boxes.

    Returns:
        For each pair the index of the detection, ascending, the index of the box, and their IoU.
    """
    of_any_class = (
        dataclasses.replace(detections, class_id=np.zeros_like(detections.class_id)),
        dataclasses.replace(truth, class_id=np.zeros_like(truth.class_id)),
    )
    everything = np.arange(len(detections))
    detection, box = _pairs(*of_any_class, everything, np.flatnonzero(~truth.is_region))
    return detection, box, iou(detections.xyxy[detection], truth.xyxy[box])


def _best_boxes(
    detections: Detections, truth: GroundTruth, order: Ints
) -> tuple[Ints, Ints, Floats]:
    """Return the rank, the best box and its IoU of each detection that may match, by rank."""
    rank, box = _pairs(detections, truth, order, np.flatnonzero(~truth.is_region))
    overlap = iou(detections.xyxy[order[rank]], truth.xyxy[box])
    # lexsort is stable: boxes of equal IoU stay sorted by their values.
    best_first = np.lexsort((-overlap, rank))
    best = best_first[np.unique(rank[best_first], return_index=True)[1]]
    best = best[overlap[best] >= _MIN_IOU]
    return rank[best], box[best], overlap[best]


def _region_pairs(
    detections: Detections, truth: GroundTruth, order: Ints, min_ioa: float
) -> tuple[Ints, Ints]:
    """Return the rank of each detection that lies in a region of its class, and the region."""
    rank, region = _pairs(detections, truth, order, np.flatnonzero(truth.is_region))
    inside = ioa(detections.xyxy[order[rank]], truth.xyxy[region]) >= min_ioa
    return rank[inside], region[inside]


def _in_regions(detections: Detections, truth: GroundTruth, order: Ints, min_ioa: float) -> Flags:
    """Return whether each detection lies in a region of its class, shape (detections,)."""
    inside = np.zeros(len(detections), dtype=np.bool_)
    inside[order[_region_pairs(detections, truth, order, min_ioa)[0]]] = True
    return inside


def regions_with_detections(detections: Detections, truth: GroundTruth) -> Flags:
    """Return which group-of boxes contain a detection of their class, shape (boxes,).

    A detection lies in a region if at least half of its area does, as for ``Matches.ignored``.
    """
    found = np.zeros(len(truth), dtype=np.bool_)
    everything = np.arange(len(detections))
    found[_region_pairs(detections, truth, everything, _MIN_IOA)[1]] = True
    return found
