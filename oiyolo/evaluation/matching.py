"""Which detection found which true box.

The detections of one class in one image take their turn from the highest score down, as in the
PASCAL VOC and COCO evaluations. A true box can be found once; whatever finds it again is a false
alarm. Group-of boxes are regions in which a detection that found no box of its own counts
neither for nor against the detector. All functions are pure; equal input in another order gives
the same verdicts.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.boxes import ioa, iou

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth, Ints

NOBODY = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """The verdicts, in the order of the tables that were matched.

    Attributes:
        box: For each detection the true box that it found, ``NOBODY`` where it found none,
            shape (detections,).
        iou: For each detection its overlap with that box, 0 where it found none, shape
            (detections,).
        ignored: Whether a detection counts neither way, shape (detections,).
        detection: For each true box the detection that found it, or ``NOBODY``, shape (boxes,).
        counted: Whether a true box had to be found, shape (boxes,).
    """

    box: Ints
    iou: Floats
    ignored: Flags
    detection: Ints
    counted: Flags

    @property
    def true_positive(self) -> Flags:
        """Whether a detection found a box, shape (detections,)."""
        return np.asarray(self.box != NOBODY)

    @property
    def false_positive(self) -> Flags:
        """Whether a detection is a false alarm, shape (detections,)."""
        return np.asarray((self.box == NOBODY) & ~self.ignored)

    @property
    def false_negative(self) -> Flags:
        """Whether a true box had to be found and was not, shape (boxes,)."""
        return np.asarray((self.detection == NOBODY) & self.counted)


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
        detections: What the detector claims; over the same ``image_ids`` as ``truth``.
        truth: What is there.
        iou_threshold: The intersection over union from which on a box is found, above 0.
        ioa_threshold: The intersection over the detection's own area from which on a detection
            lies in a group-of region.
        group_of_as_regions: Take group-of boxes as regions; otherwise they are boxes like others.
        second_choice: What a detection does whose best box is taken already. PASCAL VOC (the
            ``VOCevaldet.m`` of its development kit), Open Images and darknet's ``map`` call it a
            false alarm; COCO (``pycocotools``) lets it take the best box that is still free.

    Returns:
        The verdicts.

    Raises:
        ValueError: The tables are over different images, or the threshold is not above 0.
    """
    if detections.image_ids != truth.image_ids:
        raise ValueError("detections and truth must be over the same image_ids: use over()")
    if not iou_threshold > 0:
        raise ValueError(f"iou_threshold must be above 0, not {iou_threshold}")
    regions = truth.group_of if group_of_as_regions else np.zeros_like(truth.group_of)
    order = _from_best_to_worst(detections)
    found_box = np.full(len(detections), NOBODY, dtype=np.int64)
    found_iou = np.zeros(len(detections))
    found_by = np.full(len(truth), NOBODY, dtype=np.int64)
    # Only pairs over the threshold come back, a few for each true box: a loop is quick enough.
    for detection, box, overlap in _choices(
        detections, truth, order, np.flatnonzero(~regions), iou_threshold, second=second_choice
    ):
        if found_box[detection] == NOBODY and found_by[box] == NOBODY:
            found_box[detection] = box
            found_iou[detection] = overlap
            found_by[box] = detection
    inside = _inside(detections, truth, order, np.flatnonzero(regions), ioa_threshold)
    return Matches(found_box, found_iou, (found_box == NOBODY) & inside, found_by, ~regions)


def _from_best_to_worst(detections: Detections) -> Ints:
    """Give the detections' turns: by score, then by what they are, never by where they stand."""
    _, by_name = np.unique(np.array(detections.image_ids, dtype=str), return_inverse=True)
    image = by_name[detections.image] if len(by_name) else detections.image
    ties = (*detections.xyxy.T, detections.class_id, image)
    return np.lexsort((*ties, -detections.score)).astype(np.int64)


def _pairs(
    detections: Detections, truth: GroundTruth, order: Ints, boxes: Ints
) -> tuple[Ints, Ints]:
    """Pair every detection with the boxes of its image and class.

    Args:
        detections: The detections.
        truth: The true boxes.
        order: The detections from best to worst; a place in it is a turn.
        boxes: Positions of the boxes to pair with.

    Returns:
        For each pair the detection's turn and the box's position, ordered by turn, then by what
        the box is.
    """
    classes = 1 + max(detections.class_id.max(initial=0), truth.class_id.max(initial=0))
    wanted = (detections.image * classes + detections.class_id)[order]
    there = (truth.image * classes + truth.class_id)[boxes]
    by_key = np.lexsort((*truth.xyxy[boxes].T, there))
    first = np.searchsorted(there[by_key], wanted, side="left")
    count = np.searchsorted(there[by_key], wanted, side="right") - first
    turn = np.repeat(np.arange(len(order)), count)
    within = np.arange(len(turn)) - np.repeat(np.cumsum(count) - count, count)
    return turn, boxes[by_key][np.repeat(first, count) + within]


def _choices(
    detections: Detections,
    truth: GroundTruth,
    order: Ints,
    boxes: Ints,
    iou_threshold: float,
    *,
    second: bool,
) -> Iterator[tuple[int, int, float]]:
    """Give detection, box and overlap of each pair that may match, in the order of the turns."""
    turn, box = _pairs(detections, truth, order, boxes)
    overlap = iou(detections.xyxy[order[turn]], truth.xyxy[box])
    # lexsort is stable: boxes of equal overlap stay in the order of what they are.
    best_first = np.lexsort((-overlap, turn))
    if not second:
        best_first = best_first[np.unique(turn[best_first], return_index=True)[1]]
    kept = best_first[overlap[best_first] >= iou_threshold]
    return zip(order[turn[kept]].tolist(), box[kept].tolist(), overlap[kept].tolist(), strict=True)


def _inside(
    detections: Detections, truth: GroundTruth, order: Ints, regions: Ints, ioa_threshold: float
) -> Flags:
    """Tell which detections lie in a region of their class, shape (detections,)."""
    turn, region = _pairs(detections, truth, order, regions)
    share = ioa(detections.xyxy[order[turn]], truth.xyxy[region])
    lies = (share > 0) & (share >= ioa_threshold)
    inside = np.zeros(len(detections), dtype=np.bool_)
    inside[order[turn[lies]]] = True
    return inside
