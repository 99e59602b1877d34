"""The area under precision over recall."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.evaluation.average_precision import (
    average_precision,
    best_threshold,
    mean_over_classes,
    precision_recall,
)

ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40)


def area(rows: list[tuple[float, bool]], box_count: int) -> float:
    score = np.array([score for score, _ in rows], dtype=np.float64)
    hit = np.array([hit for _, hit in rows], dtype=np.bool_)
    return average_precision(precision_recall(score, hit, box_count), box_count)


@pytest.mark.parametrize(
    ("hits", "box_count", "expected"),
    [
        ("", 3, 0.0),
        ("+", 1, 1.0),
        ("-", 1, 0.0),
        ("++", 4, 0.5),
        ("-+", 1, 0.5),
        ("+-+", 2, 1 / 2 + 1 / 2 * 2 / 3),
        # Precision 1, 1/2, 2/3, 3/4, 3/5: the envelope lifts the third to 3/4.
        ("+-++-", 4, 1 / 4 + 1 / 4 * 3 / 4 + 1 / 4 * 3 / 4),
        ("--++", 2, 1 / 2),
    ],
)
def test_the_area_equals_a_hand_calculation(hits: str, box_count: int, expected: float) -> None:
    rows = [(1 - index / 10, hit == "+") for index, hit in enumerate(hits)]
    assert area(rows, box_count) == pytest.approx(expected)


def test_the_area_without_true_boxes_is_nan_and_means_skip_it() -> None:
    assert math.isnan(area([(0.5, False)], 0))
    assert mean_over_classes(np.array([1.0, np.nan, 0.5])) == 0.75
    assert math.isnan(mean_over_classes(np.array([np.nan])))


def test_equal_scores_share_a_threshold() -> None:
    curve = precision_recall(np.array([0.5, 0.9, 0.5]), np.array([True, True, False]), 2)
    assert curve.score.tolist() == [0.9, 0.5]
    np.testing.assert_allclose(curve.precision, [1, 2 / 3])
    np.testing.assert_allclose(curve.recall, [0.5, 1])


def test_the_best_threshold_has_the_highest_f1() -> None:
    curve = precision_recall(
        np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, False, False]), 2
    )
    np.testing.assert_allclose(curve.f1, [2 / 3, 1 / 2, 4 / 5, 2 / 3, 4 / 7])
    assert best_threshold(curve) == 0.7
    assert math.isnan(best_threshold(precision_recall(np.zeros(0), np.zeros(0, dtype=bool), 2)))
    assert math.isnan(best_threshold(precision_recall(np.ones(1), np.zeros(1, dtype=bool), 0)))


@given(rows=ROWS, unmatched=st.integers(0, 5))
def test_the_area_lies_between_zero_and_one(rows: list[tuple[float, bool]], unmatched: int) -> None:
    box_count = sum(hit for _, hit in rows) + unmatched
    if box_count:
        assert 0 <= area(rows, box_count) <= 1 + 1e-12


@given(rows=ROWS.filter(lambda rows: any(hit for _, hit in rows)))
def test_only_true_positives_for_all_boxes_give_an_area_of_one(
    rows: list[tuple[float, bool]],
) -> None:
    hits = [row for row in rows if row[1]]
    assert area(hits, len(hits)) == pytest.approx(1)


@given(rows=ROWS, unmatched=st.integers(1, 5), random=st.randoms())
def test_the_order_of_the_detections_does_not_matter(
    rows: list[tuple[float, bool]], unmatched: int, random: object
) -> None:
    box_count = sum(hit for _, hit in rows) + unmatched
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert area(shuffled, box_count) == area(rows, box_count)


@given(rows=ROWS, unmatched=st.integers(1, 5), score=st.floats(0, 1))
def test_another_false_positive_never_increases_the_area(
    rows: list[tuple[float, bool]], unmatched: int, score: float
) -> None:
    box_count = sum(hit for _, hit in rows) + unmatched
    assert area([*rows, (score, False)], box_count) <= area(rows, box_count) + 1e-12


@given(rows=ROWS, unmatched=st.integers(1, 5))
def test_a_downsampled_curve_has_the_same_area(
    rows: list[tuple[float, bool]], unmatched: int
) -> None:
    box_count = sum(hit for _, hit in rows) + unmatched
    score = np.array([score for score, _ in rows], dtype=np.float64)
    hit = np.array([hit for _, hit in rows], dtype=np.bool_)
    curve = precision_recall(score, hit, box_count)
    whole = average_precision(curve, box_count)
    assert average_precision(curve.downsampled(), box_count) == pytest.approx(whole)
    assert len(curve.downsampled(5).score) <= 5
