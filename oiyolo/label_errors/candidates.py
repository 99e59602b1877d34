"""Suspected label errors: where a detector and the labels of images contradict each other.

The idea is that of ObjectLab (Tkachenko, Thyagarajan and Mueller, 2023,
https://arxiv.org/abs/2309.00832): an object that was overlooked, a box that is placed badly and a
class that was swapped each have a score of their own. Here the scores of all kinds can be compared:
each is near 1 if the detector would hardly err so. A confidence counts by its rank among those of
the class's true positives, because confidences of different classes mean different things, and
every score is weighted with the average precision of the class.

All functions are pure. Boxes are fractions of the prepared image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from oiyolo.boxes import area, corners, ioa, iou
from oiyolo.evaluation.average_precision import average_precision, class_curve
from oiyolo.evaluation.matching import UNMATCHED, match
from oiyolo.evaluation.tables import ABSENT, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.boxes import Boxes, Corners
    from oiyolo.evaluation.matching import Matches
    from oiyolo.evaluation.tables import Detections, Floats, GroundTruth, Ints

Kind = Literal["missing", "spurious", "location", "wrong_class", "duplicate", "group_of"]

KIND_WORDS: Final[Mapping[str, str]] = {
    "missing": "object without a box",
    "spurious": "box without an object",
    "location": "badly placed box",
    "wrong_class": "wrong class",
    "duplicate": "duplicate box",
    "group_of": "several objects in one box",
    "": "your own",
}
"""What may be wrong, by kind, in words; the last is for rows that a user added."""

_SAME_OBJECT_IOU: Final = 0.5
_NEAR_IOU: Final = 0.1
"""An unmatched detection that overlaps an unmatched box of its class less shows another object."""
_DUPLICATE_IOU: Final = 0.9
_INSIDE: Final = 0.8
"""Share of a detection's area that is inside a box that may contain a group."""
_GROUP_MIN: Final = 3
_ABSENT_WEIGHT: Final = 0.5
"""An annotator looked for the class in the image and found none."""
_SPURIOUS_WEIGHT: Final = 0.5
"""A detector that misses an object is more likely to be wrong than one that is confident of it."""
_MIN_SCORE: Final = 0.05
"""Below it, the doubts of a detector say nothing about a label."""
_SIZES: Final = 4
"""Number of groups of boxes by area, within which the recall of a class is measured."""


@dataclass(frozen=True)
class Candidate:
    """A suspected label error.

    Attributes:
        image_id: Id of the image.
        kind: What may be wrong: an object without a box ("missing"), a box without an object
            ("spurious"), a box in the wrong place ("location") or with the wrong class
            ("wrong_class"), two boxes of one object ("duplicate"), or one box of several objects
            ("group_of").
        class_id: Class of the box in question, or of the missing one.
        box: Row of the box in the table of true boxes; ``None`` if it is missing.
        score: How certain it is, 0 to 1.
        reason: The figures behind it, in words.
        new_class_id: The class that the box should have; ``None`` if the kind suggests none.
        new_xyxy: Where the box should be; ``None`` if the kind suggests nothing.
    """

    image_id: str
    kind: Kind
    class_id: int
    box: int | None
    score: float
    reason: str
    new_class_id: int | None = None
    new_xyxy: Corners | None = None


def find_candidates(
    detections: Detections, truth: GroundTruth, class_names: Sequence[str]
) -> list[Candidate]:
    """Return the suspected label errors of images, the most certain first.

    A box has at most one candidate, and so has a detection: the most certain one.

    Args:
        detections: What a detector that has not been trained on the images finds, down to the
            lowest score, with the same ``image_ids`` as ``truth``.
        truth: The labels of the images.
        class_names: Names of the classes.
    """
    facts = _Facts.of(detections, truth, len(class_names))
    found = [
        *_unmatched_detections(facts, class_names),
        *_spurious(facts),
        *_duplicates(facts),
        *_groups(facts),
    ]
    found.sort(key=lambda pair: (-pair[0].score, pair[0].image_id, pair[0].kind, pair[0].box or -1))
    boxes, used = set[int](), set[int]()
    candidates = []
    for candidate, detection in found:
        if candidate.score < _MIN_SCORE or candidate.box in boxes or detection in used:
            continue
        candidates.append(candidate)
        boxes |= {candidate.box} if candidate.box is not None else set()
        used |= {detection} if detection is not None else set()
    return candidates


_Found = tuple[Candidate, int | None]
"""A candidate and the detection behind it, if there is one."""


@dataclass(frozen=True, eq=False)
class _Facts:
    """The tables, and what was computed from them.

    Attributes:
        detections, truth: The tables.
        matches: What matches what.
        rank: For each detection the share of the true positives of its class with a lower score,
            weighted with the class's average precision, shape (detections,).
        recall: For each true box how many boxes of its class and size are found, weighted in the
            same way, shape (boxes,).
        detections_in, boxes_in: Rows of the detections, and of the true boxes, of each image.
    """

    detections: Detections
    truth: GroundTruth
    matches: Matches
    rank: Floats
    recall: Floats
    detections_in: Sequence[Ints]
    boxes_in: Sequence[Ints]

    @classmethod
    def of(cls, detections: Detections, truth: GroundTruth, class_count: int) -> _Facts:
        matches = match(detections, truth)
        rank, recall = np.zeros(len(detections)), np.zeros(len(truth))
        for class_id in range(class_count):
            curve, box_count = class_curve(matches, detections, truth, class_id)
            weight = np.nan_to_num(average_precision(curve, box_count))
            own = detections.class_id == class_id
            right = np.sort(detections.score[own & matches.true_positive])
            places = np.searchsorted(right, detections.score[own], side="right")
            rank[own] = weight * places / (len(right) + 1)
            boxes = np.flatnonzero((truth.class_id == class_id) & matches.counted)
            recall[boxes] = weight * _recall_by_size(truth.xyxy[boxes], matches.detection[boxes])
        count = len(truth.image_ids)
        rows = (_rows_by_image(table.image, count) for table in (detections, truth))
        return cls(detections, truth, matches, rank, recall, *rows)


def _recall_by_size(xyxy: Boxes, detection: Ints) -> Floats:
    """Return the share of found boxes among those of about the same size, for each box."""
    shares = np.zeros(len(xyxy))
    for part in np.array_split(np.argsort(area(xyxy), kind="stable"), _SIZES):
        if len(part):
            shares[part] = float((detection[part] != UNMATCHED).sum()) / (len(part) + 1)
    return shares


def _unmatched_detections(facts: _Facts, class_names: Sequence[str]) -> Iterator[_Found]:
    """Yield what unmatched detections suggest: another class, another place, or a missing box."""
    is_sure = facts.rank >= _MIN_SCORE  # no score is above the rank, and most detections are weak
    for row in np.flatnonzero(facts.matches.false_positive & is_sure).tolist():
        boxes = facts.boxes_in[int(facts.detections.image[row])]
        candidate = _contradiction(facts, row, boxes[facts.matches.counted[boxes]], class_names)
        if candidate is not None:
            yield candidate, row


def _contradiction(
    facts: _Facts, row: int, boxes: Ints, class_names: Sequence[str]
) -> Candidate | None:
    """Return what an unmatched detection suggests; ``None`` if it repeats another, for example.

    Args:
        facts: The tables.
        row: Row of the detection.
        boxes: Rows of the true boxes of its image.
        class_names: Names of the classes.
    """
    detections, truth = facts.detections, facts.truth
    class_id, xyxy = int(detections.class_id[row]), detections.xyxy[row]
    image_id, rank = truth.image_ids[int(detections.image[row])], float(facts.rank[row])
    overlap = iou(np.tile(xyxy, (len(boxes), 1)), truth.xyxy[boxes])
    same = truth.class_id[boxes] == class_id
    if (same & (overlap >= _SAME_OBJECT_IOU)).any():
        return None
    seen = f"with confidence {detections.score[row]:.2f}"
    free = facts.matches.detection[boxes] == UNMATCHED
    if (others := ~same & (overlap >= _SAME_OBJECT_IOU)).any():
        box = int(boxes[others][overlap[others].argmax()])
        labelled = int(truth.class_id[box])
        reason = f"labelled {class_names[labelled]}, detected as {class_names[class_id]} {seen}"
        new = class_id, corners(truth.xyxy[box])
        # Detectors often report an object as both classes, one of them with little confidence.
        matched = int(facts.matches.detection[box])
        evidence = 0.0 if matched == UNMATCHED else float(detections.score[matched])
        score = rank * (1 - evidence)
        return Candidate(image_id, "wrong_class", labelled, box, score, reason, *new)
    new = class_id, corners(xyxy)
    if (near := same & free & (overlap >= _NEAR_IOU)).any():
        at = int(overlap[near].argmax())
        shared = float(overlap[near][at])
        reason = f"detected elsewhere {seen} (IoU {shared:.2f})"
        score = rank * (1 - shared)
        return Candidate(image_id, "location", class_id, int(boxes[near][at]), score, reason, *new)
    weight = _verified_weight(truth, int(detections.image[row]), class_id)
    if not weight:
        return None
    # The more it overlaps a labelled box, the more likely it shows the same object.
    new_object = 1 - float(overlap[same].max(initial=0.0)) / _SAME_OBJECT_IOU
    reason = f"detected {seen}, without a box"
    return Candidate(image_id, "missing", class_id, None, rank * weight * new_object, reason, *new)


def _verified_weight(truth: GroundTruth, image: int, class_id: int) -> float:
    """Return how much a missing box counts: not at all where nobody looked for the class."""
    if truth.verified is None:
        return 1.0
    state = int(truth.verified[image, class_id])
    return {UNKNOWN: 0.0, ABSENT: _ABSENT_WEIGHT}.get(state, 1.0)


def _spurious(facts: _Facts) -> Iterator[_Found]:
    """Yield the boxes that the detector does not find, although it finds others of their size."""
    detections, truth, matches = facts.detections, facts.truth, facts.matches
    for box in np.flatnonzero(matches.false_negative).tolist():
        rows = facts.detections_in[int(truth.image[box])]
        rows = rows[detections.class_id[rows] == truth.class_id[box]]
        overlap = iou(detections.xyxy[rows], np.tile(truth.xyxy[box], (len(rows), 1)))
        # A weak or displaced detection is some evidence that there is an object.
        evidence = float((detections.score[rows] * overlap).max(initial=0.0))
        score = float(facts.recall[box]) * _SPURIOUS_WEIGHT * (1 - evidence)
        image_id, class_id = _place_of(truth, box)
        reason = f"not detected, although {facts.recall[box]:.0%} of boxes of its size are"
        yield Candidate(image_id, "spurious", class_id, box, score, reason), None


def _duplicates(facts: _Facts) -> Iterator[_Found]:
    """Yield boxes that repeat an earlier box of their class; regions are no labels."""
    truth, counted = facts.truth, facts.matches.counted
    for all_rows in facts.boxes_in:
        rows = all_rows[counted[all_rows]]
        for position, box in enumerate(rows.tolist()):
            earlier = rows[:position]
            earlier = earlier[truth.class_id[earlier] == truth.class_id[box]]
            shared = iou(np.tile(truth.xyxy[box], (len(earlier), 1)), truth.xyxy[earlier])
            if shared.max(initial=0.0) > _DUPLICATE_IOU:
                image_id, class_id = _place_of(truth, box)
                score = float(shared.max())
                reason = f"nearly the same as another box (IoU {score:.2f})"
                yield Candidate(image_id, "duplicate", class_id, box, score, reason), None


def _groups(facts: _Facts) -> Iterator[_Found]:
    """Yield boxes that no detection matches, but in which several objects are detected."""
    detections, truth, matches = facts.detections, facts.truth, facts.matches
    for box in np.flatnonzero(matches.false_negative).tolist():
        rows = facts.detections_in[int(truth.image[box])]
        rows = rows[detections.class_id[rows] == truth.class_id[box]]
        inside = ioa(detections.xyxy[rows], np.tile(truth.xyxy[box], (len(rows), 1))) >= _INSIDE
        ranks = np.sort(facts.rank[rows[inside]])[::-1]
        if len(ranks) >= _GROUP_MIN:
            image_id, class_id = _place_of(truth, box)
            reason = f"{len(ranks)} objects are detected inside"
            score = float(ranks[_GROUP_MIN - 1])
            yield Candidate(image_id, "group_of", class_id, box, score, reason), None


def _place_of(truth: GroundTruth, box: int) -> tuple[str, int]:
    """Return the image and the class of a true box."""
    return truth.image_ids[int(truth.image[box])], int(truth.class_id[box])


def _rows_by_image(image: Ints, count: int) -> list[Ints]:
    """Return the rows of each image, ascending."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(1, count)))
