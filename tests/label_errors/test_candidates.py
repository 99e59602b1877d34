"""Suspected label errors: each kind, their order, and that the order of the input is irrelevant."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.evaluation.tables import ABSENT, PRESENT, UNKNOWN, Detections, GroundTruth
from oiyolo.label_errors.candidates import find_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.label_errors.candidates import Candidate

NAMES = ["boat", "oar"]
BOX = (0.1, 0.1, 0.4, 0.4)
FAR = (0.6, 0.6, 0.9, 0.9)
GOOD = 20
"""Number of further images in which the detector is right."""

Row = tuple[str, int, float, tuple[float, float, float, float]]


def find(
    detections: Sequence[Row], labels: Sequence[tuple[int, tuple[float, ...]]], **more: Any
) -> list[Candidate]:
    """Return what is suspected in the image "x", next to images in which all is right."""
    ids = ("x", *(f"good{number}" for number in range(GOOD)))
    rows = list(detections)
    boxes: list[tuple[int, int, tuple[float, ...]]] = [(0, c, box) for c, box in labels]
    for number in range(1, GOOD + 1):
        for class_id, box in enumerate((BOX, FAR)):
            rows.append((ids[number], class_id, 0.5 + number / 100, box))
            boxes.append((number, class_id, box))
    truth = GroundTruth(
        ids,
        np.array([image for image, _, _ in boxes]),
        np.array([class_id for _, class_id, _ in boxes]),
        np.array([box for _, _, box in boxes], dtype=float),
        np.zeros(len(boxes), dtype=np.bool_),
        **more,
    )
    found = Detections(
        ids,
        np.array([ids.index(image) for image, *_ in rows]),
        np.array([class_id for _, class_id, *_ in rows]),
        np.array([score for *_, score, _ in rows]),
        np.array([box for *_, box in rows], dtype=float),
    )
    return find_candidates(found, truth, NAMES)


def test_nothing_is_suspected_where_labels_and_detections_agree() -> None:
    assert find([("x", 0, 0.9, BOX)], [(0, BOX)]) == []


def test_a_confident_detection_without_a_box_is_a_missing_object() -> None:
    (missing,) = find([("x", 0, 0.9, BOX), ("x", 0, 0.95, FAR)], [(0, BOX)])
    assert (missing.kind, missing.box, missing.class_id) == ("missing", None, 0)
    assert missing.new_xyxy == FAR
    assert missing.score > 0.8
    assert "0.95" in missing.reason
    assert find([("x", 0, 0.9, BOX), ("x", 0, 0.05, FAR)], [(0, BOX)]) == []  # not confident


@pytest.mark.parametrize(("state", "share"), [(PRESENT, 1.0), (ABSENT, 0.5), (UNKNOWN, 0.0)])
def test_a_missing_object_counts_only_where_its_class_was_looked_for(
    state: int, share: float
) -> None:
    verified = np.full((GOOD + 1, 2), PRESENT, dtype=np.int8)
    rows = [("x", 0, 0.95, FAR)]
    (plain,) = find(rows, [])
    verified[0, 0] = state
    found = find(rows, [], verified=verified)
    assert [c.score for c in found] == ([pytest.approx(plain.score * share)] if share else [])


def test_a_missing_object_that_overlaps_a_labelled_one_is_less_certain() -> None:
    (alone,) = find([("x", 0, 0.9, BOX), ("x", 0, 0.95, FAR)], [(0, BOX)])
    beside = (0.28, 0.1, 0.58, 0.4)  # an IoU of a quarter
    (missing,) = find([("x", 0, 0.9, BOX), ("x", 0, 0.95, beside)], [(0, BOX)])
    assert (missing.kind, missing.new_xyxy) == ("missing", beside)
    assert missing.score == pytest.approx(alone.score / 2)


def test_a_box_that_only_this_detector_misses_is_suspected() -> None:
    (spurious,) = find([], [(0, BOX)])
    assert (spurious.kind, spurious.new_xyxy, spurious.new_class_id) == ("spurious", None, None)
    (weaker,) = find([("x", 0, 0.4, (0.1, 0.1, 0.22, 0.4))], [(0, BOX)])
    assert weaker.score < spurious.score  # a weak detection is some evidence


def test_a_displaced_box_and_a_wrong_class_come_with_a_suggestion() -> None:
    near = (0.25, 0.1, 0.55, 0.4)
    (location,) = find([("x", 0, 0.9, near)], [(0, BOX)])
    assert (location.kind, location.new_xyxy) == ("location", near)
    (swapped,) = find([("x", 1, 0.9, BOX)], [(0, BOX)])
    assert (swapped.kind, swapped.class_id, swapped.new_class_id) == ("wrong_class", 0, 1)
    assert "labelled boat, detected as oar" in swapped.reason


def test_a_wrong_class_that_is_weakly_detected_as_well_is_suspected() -> None:
    # Detectors report an object as both classes: one of them agrees with the wrong label.
    (swapped,) = find([("x", 1, 0.9, BOX), ("x", 0, 0.05, BOX)], [(0, BOX)])
    (alone,) = find([("x", 1, 0.9, BOX)], [(0, BOX)])
    assert (swapped.kind, swapped.class_id, swapped.new_class_id) == ("wrong_class", 0, 1)
    assert swapped.score == pytest.approx(alone.score * 0.95)
    # A confident one makes the other class a detector's doubt, and no missing object.
    assert all(c.score < 0.1 for c in find([("x", 1, 0.6, BOX), ("x", 0, 0.95, BOX)], [(0, BOX)]))


def test_a_repeated_box_and_a_box_of_several_objects_are_suspected() -> None:
    twin = (0.1, 0.1, 0.4, 0.401)
    (duplicate,) = find([("x", 0, 0.9, BOX)], [(0, BOX), (0, twin)])
    assert (duplicate.kind, duplicate.box) == ("duplicate", 1)
    parts = [(0.0, 0.0, 0.3, 1.0), (0.34, 0.0, 0.64, 1.0), (0.7, 0.0, 1.0, 1.0)]
    found = find([("x", 0, 0.7, part) for part in parts], [(0, (0.0, 0.0, 1.0, 1.0))])
    assert [c.box for c in found].count(0) == 1
    assert "group_of" in {c.kind for c in found} or "location" in {c.kind for c in found}


def test_a_second_detection_of_an_object_suspects_nothing() -> None:
    assert find([("x", 0, 0.9, BOX), ("x", 0, 0.8, (0.11, 0.1, 0.4, 0.4))], [(0, BOX)]) == []


def random_tables(seed: int) -> tuple[Detections, GroundTruth]:
    generator = np.random.default_rng(seed)
    images, boxes = 40, 120
    ids = tuple(f"{number:016x}" for number in range(images))
    image, class_id = generator.integers(0, images, boxes), generator.integers(0, 2, boxes)
    corner = generator.uniform(0, 0.6, (boxes, 2))
    xyxy = np.concatenate([corner, corner + generator.uniform(0.1, 0.4, (boxes, 2))], axis=1)
    truth = GroundTruth(ids, image, class_id, xyxy, generator.random(boxes) < 0.1)
    found = generator.random(boxes) < 0.8
    noise = generator.normal(0, 0.02, (int(found.sum()), 4))
    shown = np.clip(xyxy[found] + noise, 0, 1)
    shown[:, 2:] = np.maximum(shown[:, 2:], shown[:, :2] + 0.01).clip(0, 1)
    score = generator.random(len(shown)).astype(np.float64)
    return Detections(ids, image[found], class_id[found], score, shown), truth


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_detections_is_irrelevant_and_nothing_is_listed_twice(seed: int) -> None:
    detections, truth = random_tables(seed)
    found = find_candidates(detections, truth, NAMES)
    order = np.random.default_rng(seed).permutation(len(detections))
    shuffled = dataclasses.replace(
        detections,
        image=detections.image[order], class_id=detections.class_id[order],
        score=detections.score[order], xyxy=detections.xyxy[order],
    )  # fmt: skip
    assert find_candidates(shuffled, truth, NAMES) == found
    scores = [candidate.score for candidate in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    boxes = [candidate.box for candidate in found if candidate.box is not None]
    assert len(boxes) == len(set(boxes))


def test_an_empty_set_has_no_errors() -> None:
    nothing = np.empty((0, 4))
    none = np.empty(0, dtype=np.int64)
    truth = GroundTruth(("a",), none, none, nothing, none.astype(np.bool_))
    assert find_candidates(Detections(("a",), none, none, np.empty(0), nothing), truth, NAMES) == []
