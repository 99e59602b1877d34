"""Scores of a part of the true boxes: those of one size, or those with an attribute.

The other true boxes, and the detections that match them, are neither right nor wrong. Sizes are
COCO's (https://cocodataset.org/#detection-eval), in pixels of the image that was evaluated; as
there, an unmatched detection counts where it has the size. An attribute belongs to true boxes only,
so that every unmatched detection counts with each attribute: recalls of attributes can be compared
with each other, their average precision only with that of the same attribute of another detector.
Group-of boxes, and boxes that are no labels because they are difficult, are regions: they have no
average precision, and one is found if a detection is in it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.boxes import area
from oiyolo.evaluation.average_precision import average_precision, class_curve, mean_over_classes
from oiyolo.evaluation.matching import UNMATCHED, regions_with_detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, Flags, Floats, GroundTruth

SIZES_PX: Final = {"small": (0, 32), "medium": (32, 96), "large": (96, math.inf)}
"""Sides of the squares between whose areas a box has the size: from the first, below the second."""


@dataclasses.dataclass(frozen=True)
class SliceScore:
    """The score of a part of the true boxes. Undefined values are NaN.

    Attributes:
        boxes: Number of true boxes in the part; group-of boxes are a part of their own.
        map50: Mean over the classes with such boxes, at IoU 0.5 by PASCAL VOC 2010's rules.
        recall: Share of the boxes that are matched at the score thresholds of their classes.
    """

    boxes: int
    map50: float
    recall: float


def score_by_size(
    detections: Detections, truth: GroundTruth, matches: Matches, thresholds: Sequence[float]
) -> dict[str, SliceScore]:
    """Return the score of each of ``SIZES_PX``; nothing without the sizes of the images.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        matches: What matches.
        thresholds: Score threshold of each class; NaN if it has none.
    """
    if truth.sizes_wh is None:
        return {}
    areas_px = truth.sizes_wh.prod(axis=1)
    counted = _flags_by_size(area(detections.xyxy) * areas_px[detections.image])
    return {
        name: score_slice(
            detections, truth, matches, thresholds, boxes=boxes, counted=counted[name]
        )
        for name, boxes in size_flags(truth).items()
    }


def size_flags(truth: GroundTruth) -> dict[str, Flags]:
    """Return which true boxes have each of ``SIZES_PX``; empty without the sizes of the images."""
    if truth.sizes_wh is None:
        return {}
    return _flags_by_size(area(truth.xyxy) * truth.sizes_wh.prod(axis=1)[truth.image])


def _flags_by_size(areas_px: Floats) -> dict[str, Flags]:
    return {
        name: (areas_px >= low**2) & (areas_px < high**2) for name, (low, high) in SIZES_PX.items()
    }


def score_by_attribute(
    detections: Detections, truth: GroundTruth, matches: Matches, thresholds: Sequence[float]
) -> dict[str, SliceScore]:
    """Return the score of the boxes with each attribute of ``truth``, and of its regions.

    Arguments are those of ``score_by_size``.
    """
    counted = np.ones(len(detections), dtype=np.bool_)
    scores = {
        name: score_slice(detections, truth, matches, thresholds, boxes=flags, counted=counted)
        for name, flags in truth.attributes.items()
    }
    shown = detections.where(_is_shown(detections, thresholds))
    found = regions_with_detections(shown, truth)
    for name, regions in truth.regions.items():
        if count := int(regions.sum()):
            scores[name] = SliceScore(count, math.nan, float((found & regions).sum() / count))
    return scores


def _is_shown(detections: Detections, thresholds: Sequence[float]) -> Flags:
    """Return which detections reach the score threshold of their class; none if it is NaN."""
    limits = np.array(thresholds, dtype=np.float64)[detections.class_id]
    return np.asarray(detections.score >= limits)


def score_slice(
    detections: Detections,
    truth: GroundTruth,
    matches: Matches,
    thresholds: Sequence[float],
    *,
    boxes: Flags,
    counted: Flags,
) -> SliceScore:
    """Return the score of some true boxes.

    Args:
        detections: Detections, with the same ``image_ids`` as ``truth``.
        truth: Ground truth.
        matches: What matches.
        thresholds: Score threshold of each class; NaN if it has none.
        boxes: Which true boxes are scored, shape (boxes,).
        counted: Which detections are false positives if unmatched, shape (detections,).
    """
    boxes = boxes & matches.counted
    matched = matches.box != UNMATCHED
    of_slice = np.zeros(len(detections), dtype=np.bool_)
    of_slice[matched] = boxes[matches.box[matched]]
    ignored = matches.ignored | np.where(matched, ~of_slice, ~counted)
    box = np.where(of_slice, matches.box, UNMATCHED)
    part = dataclasses.replace(matches, box=box, ignored=ignored, counted=boxes)
    curves = (class_curve(part, detections, truth, c) for c in range(len(thresholds)))
    values: Floats = np.array([average_precision(curve, count) for curve, count in curves])
    shown = _is_shown(detections, thresholds)
    count = int(boxes.sum())
    recall = float((of_slice & shown).sum() / count) if count else math.nan
    return SliceScore(count, mean_over_classes(values), recall)
