"""Matching of detections to true boxes, in hand-made and random cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.boxes import iou
from oiyolo.evaluation.matching import UNMATCHED, best_of_each, match, match_at
from oiyolo.evaluation.tables import Detections, GroundTruth

if TYPE_CHECKING:
    from collections.abc import Callable

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


LEFT = (0.0, 0.0, 0.4, 1.0)
NEARLY_LEFT = (0.0, 0.0, 0.3, 1.0)  # IoU 0.75 with LEFT
RIGHT = (0.6, 0.0, 1.0, 1.0)
WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_the_highest_score_matches_and_the_next_is_a_false_positive(tables: Tables) -> None:
    matches = match(
        *tables([("a", 0, 0.6, LEFT), ("a", 0, 0.9, NEARLY_LEFT)], [("a", 0, LEFT, False)])
    )
    assert matches.true_positive.tolist() == [False, True]
    assert matches.false_positive.tolist() == [True, False]
    assert matches.detection.tolist() == [1]
    np.testing.assert_allclose(matches.iou, [0.0, 0.75])


@pytest.mark.parametrize(("right", "matched"), [(0.5, True), (0.49, False)])
def test_an_iou_of_exactly_the_threshold_matches(
    tables: Tables, right: float, matched: bool
) -> None:
    matches = match(*tables([("a", 0, 0.9, (0, 0, right, 1))], [("a", 0, WHOLE, False)]))
    assert matches.true_positive.tolist() == [matched]
    assert matches.false_negative.tolist() == [not matched]


@pytest.mark.parametrize("row", [("b", 0, 0.9, LEFT), ("a", 1, 0.9, LEFT)])
def test_boxes_of_other_images_and_classes_do_not_match(
    tables: Tables, row: tuple[str, int, float, tuple[float, float, float, float]]
) -> None:
    matches = match(*tables([row], [("a", 0, LEFT, False)]))
    assert matches.false_positive.tolist() == [True]
    assert matches.false_negative.tolist() == [True]


def test_a_detection_does_not_match_its_second_choice(tables: Tables) -> None:
    # Both detections overlap the first box most; the second overlaps the other box by 0.6.
    detections, truth = tables(
        [("a", 0, 0.9, (0, 0, 0.8, 1)), ("a", 0, 0.8, (0, 0, 0.9, 1))],
        [("a", 0, (0, 0, 0.8, 1), False), ("a", 0, (0, 0, 0.54, 1), False)],
    )
    matches = match(detections, truth)
    assert matches.true_positive.tolist() == [True, False]
    assert matches.detection.tolist() == [0, -1]


def test_a_group_of_box_is_a_region(tables: Tables) -> None:
    detections, truth = tables(
        [
            ("a", 0, 0.9, LEFT),  # matches its box, although it also lies in the region
            ("a", 0, 0.8, RIGHT),  # in the region: ignored
            ("b", 0, 0.7, RIGHT),  # no region in this image
            ("a", 1, 0.6, RIGHT),  # the region is of another class
        ],
        [("a", 0, LEFT, False), ("a", 0, WHOLE, True)],
    )
    matches = match(detections, truth)
    assert matches.true_positive.tolist() == [True, False, False, False]
    assert matches.ignored.tolist() == [False, True, False, False]
    assert matches.false_positive.tolist() == [False, False, True, True]
    assert matches.counted.tolist() == [True, False]
    assert not matches.false_negative.any()


@pytest.mark.parametrize(
    ("right", "ignored"),
    [(0.75, True), (0.8, False)],  # half, and less than half, of the detection lies in the region
)
def test_a_detection_is_ignored_if_half_of_it_lies_in_a_region(
    tables: Tables, right: float, ignored: bool
) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, (0.25, 0, right, 1))], [("a", 0, (0, 0, 0.5, 1), True)]
    )
    assert match(detections, truth).ignored.tolist() == [ignored]


def test_a_detection_without_area_matches_nothing(tables: Tables) -> None:
    matches = match(
        *tables(
            [("a", 0, 0.9, (0.2, 0.2, 0.2, 0.5))], [("a", 0, LEFT, False), ("a", 0, WHOLE, True)]
        )
    )
    assert matches.false_positive.tolist() == [True]


def test_tables_of_different_images_are_rejected(tables: Tables) -> None:
    detections, _ = tables([], [], images="a")
    _, truth = tables([], [], images="b")
    with pytest.raises(ValueError, match="image_ids"):
        match(detections, truth)


@given(seed=st.integers(0, 2**32 - 1), steps=st.sampled_from([0, 4]))
def test_the_order_of_the_input_does_not_matter(
    random_tables: RandomTables, seed: int, steps: int
) -> None:
    detections, truth = random_tables(seed, images=4, classes=2, group_of=0.2)
    if steps:  # round to many equal scores
        detections = Detections(
            detections.image_ids,
            detections.image,
            detections.class_id,
            np.round(detections.score * steps) / steps,
            detections.xyxy,
        )
    random = np.random.default_rng(seed)
    a, b = random.permutation(len(detections)), random.permutation(len(truth))
    shuffled_detections = Detections(
        detections.image_ids,
        detections.image[a],
        detections.class_id[a],
        detections.score[a],
        detections.xyxy[a],
    )
    shuffled_truth = GroundTruth(
        truth.image_ids, truth.image[b], truth.class_id[b], truth.xyxy[b], truth.is_region[b]
    )
    before = match(detections, truth)
    after = match(shuffled_detections, shuffled_truth)
    np.testing.assert_array_equal(before.true_positive[a], after.true_positive)
    np.testing.assert_array_equal(before.ignored[a], after.ignored)
    np.testing.assert_array_equal(before.false_negative[b], after.false_negative)


def test_matches_are_consistent(random_tables: RandomTables) -> None:
    detections, truth = random_tables(5, group_of=0.2)
    matches = match(detections, truth)
    kinds = matches.true_positive.astype(int) + matches.false_positive + matches.ignored
    assert (kinds == 1).all()
    assert int(matches.true_positive.sum()) == int((matches.detection >= 0).sum())
    matched = np.flatnonzero(matches.true_positive)
    np.testing.assert_array_equal(matches.detection[matches.box[matched]], matched)
    np.testing.assert_array_equal(detections.image[matched], truth.image[matches.box[matched]])
    assert matches.false_negative.sum() + len(matched) == matches.counted.sum()


def test_by_coco_rules_the_second_best_box_is_matched(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, LEFT), ("a", 0, 0.8, LEFT), ("a", 0, 0.7, LEFT)],
        [("a", 0, LEFT, False), ("a", 0, NEARLY_LEFT, False)],
    )
    box, ignored = match_at(detections, truth, np.array([0.5, 0.8]))
    assert box.tolist() == [[0, 1, UNMATCHED], [0, UNMATCHED, UNMATCHED]]
    assert not ignored.any()
    assert match(detections, truth).box.tolist() == [0, UNMATCHED, UNMATCHED]


@pytest.mark.parametrize("seed", range(5))
def test_coco_rules_equal_matching_one_by_one(random_tables: RandomTables, seed: int) -> None:
    detections, truth = random_tables(seed, images=5, classes=2)
    (box,), _ = match_at(detections, truth, np.array([0.3]))
    expected, free = np.full(len(detections), UNMATCHED), np.ones(len(truth), dtype=np.bool_)
    for row in np.argsort(-detections.score):
        own = truth.class_id == detections.class_id[row]
        overlap = iou(detections.xyxy[row][None], truth.xyxy)
        overlap[~(free & own & (truth.image == detections.image[row]))] = 0
        if overlap.max() >= 0.3:
            expected[row] = overlap.argmax()
            free[overlap.argmax()] = False
    assert (box != UNMATCHED).any()
    assert box.tolist() == expected.tolist()


def test_the_best_detections_of_each_image_and_group_are_kept(tables: Tables) -> None:
    rows = [("a", 0, 0.2), ("a", 0, 0.9), ("a", 1, 0.1), ("b", 0, 0.3), ("a", 0, 0.5)]
    detections, _ = tables([(*row, LEFT) for row in rows], [])
    assert best_of_each(detections, detections.class_id, 2).score.tolist() == [0.9, 0.1, 0.3, 0.5]
    assert best_of_each(detections, np.zeros(5, dtype=np.int64), 1).score.tolist() == [0.9, 0.3]
    empty, _ = tables([], [])
    assert len(best_of_each(empty, empty.class_id, 1)) == 0
