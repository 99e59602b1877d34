"""Comparisons of two detectors on the same images."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.evaluation.comparison import (
    Difference,
    ResampledScore,
    compare_detections,
    compare_scores,
    differing_images,
    widen_for_choice,
)
from oiyolo.evaluation.panels import evaluate_images
from oiyolo.evaluation.summary import evaluate_detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

BOX = (0.1, 0.1, 0.5, 0.5)
FAR = (0.6, 0.6, 0.9, 0.9)
NAMES = ["x", "y", "z"]
SCORES = ("map50", "map50_95", "openimages_map")


def without(detections: Detections, share: float, seed: int) -> Detections:
    """Return the detections of a detector that misses some more boxes at random."""
    return detections.where(np.random.default_rng(seed).random(len(detections)) >= share)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), images=st.integers(2, 25))
def test_swapped_detectors_differ_by_the_opposite(
    random_tables: RandomTables, seed: int, images: int
) -> None:
    first, truth = random_tables(seed, images=images, group_of=0.2)
    second = without(first, 0.3, seed)
    forth = compare_detections(first, second, truth, NAMES)
    back = compare_detections(second, first, truth, NAMES)
    pairs = [(forth.scores[name], back.scores[name]) for name in SCORES]
    for one, other in pairs + [(forth.classes[n], back.classes[n]) for n in NAMES]:
        low, high = one.interval
        assert other.value == pytest.approx(-one.value, nan_ok=True)
        assert other.interval == pytest.approx((-high, -low), nan_ok=True)
        assert other.is_beyond_chance == one.is_beyond_chance
        assert math.isnan(low) or low <= one.value <= high


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_detector_does_not_differ_from_itself(random_tables: RandomTables, seed: int) -> None:
    detections, truth = random_tables(seed, images=12, group_of=0.2)
    compared = compare_detections(detections, detections, truth, NAMES)
    for row in (*compared.scores.values(), *compared.classes.values()):
        assert row.value == 0 or math.isnan(row.value)
        assert row.interval == (0.0, 0.0) or math.isnan(row.interval[0])
        assert not row.is_beyond_chance
    assert compared.further_images is None


def test_the_scores_are_those_of_each_evaluation(random_tables: RandomTables) -> None:
    first, truth = random_tables(3, group_of=0.2)
    second = without(first, 0.3, 3)
    compared = compare_detections(first, second, truth, NAMES)
    for side, detections in (("first", first), ("second", second)):
        alone = evaluate_detections(detections, truth, NAMES)
        assert [getattr(compared.scores[name], side) for name in SCORES] == pytest.approx(
            [getattr(alone, name) for name in SCORES], abs=0
        )
        assert [getattr(row, side) for row in compared.classes.values()] == pytest.approx(
            [row.map50 for row in alone.classes], abs=0
        )


def test_pairs_tell_apart_what_intervals_of_their_own_do_not(random_tables: RandomTables) -> None:
    first, truth = random_tables(5, images=100)
    second = without(first, 0.1, 5)
    compared = compare_detections(first, second, truth, NAMES).scores["map50"]
    alone = [evaluate_detections(d, truth, NAMES).map50_interval for d in (first, second)]
    assert alone[1][1] > alone[0][0]  # the intervals of both overlap
    assert compared.is_beyond_chance
    assert compared.interval[1] < 0


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Difference(0.5, 0.6, (-0.1, 0.3)), 300),  # the margin of 0.2 must be halved: 4 times 100
        (Difference(0.6, 0.5, (-0.3, 0.1)), 300),
        (Difference(0.5, 0.6, (0.01, 0.19)), None),  # beyond chance
        (Difference(0.5, 0.6, (0.0, 0.19)), 1),
        (Difference(0.5, 0.5, (-0.1, 0.1)), None),
        (Difference(0.5, 0.501, (-0.1, 0.1)), None),  # 1,000,000 images would not be advice
        (Difference(0.5, 0.6, (math.nan, math.nan)), None),
        (Difference(math.nan, math.nan, (math.nan, math.nan)), None),
    ],
)
def test_images_that_would_settle_a_difference(difference: Difference, expected: int) -> None:
    assert difference.further_images(100) == expected


def test_a_difference_without_an_interval_is_not_beyond_chance() -> None:
    scores = ResampledScore(0.2, np.array([0.2])), ResampledScore(0.9, np.array([0.9]))
    difference = compare_scores(*scores, images=1)
    assert difference.value == pytest.approx(0.7)
    assert not difference.is_beyond_chance
    assert difference.to_json()["interval"] is None


def test_an_interval_is_widened_for_the_choice_among_several_detectors() -> None:
    difference = Difference(0.5, 0.6, (0.02, 0.14))
    assert widen_for_choice(difference, 1).interval == pytest.approx(difference.interval)
    widened = widen_for_choice(difference, 20)
    # The normal quantiles of 0.975 and of 1 - 0.025 / 20 are 1.960 and 3.023.
    assert widened.interval == pytest.approx((0.1 - 0.08 * 1.5425, 0.1 + 0.04 * 1.5425), abs=1e-4)
    assert widened.value == difference.value


def test_images_are_ordered_by_the_difference_of_their_errors(tables: Tables) -> None:
    truth = [(image, 0, box, False) for image in "abcde" for box in (BOX, FAR)]
    right = [(image, 0, 0.9, box) for image in "abcde" for box in (BOX, FAR)]
    # Of the second detector: one box missed in a and d, two in c, all right in e; a stray in b.
    found = [row for row in right if row[0] in "be" or (row[0] in "ad" and row[3] == BOX)]
    stray = ("b", 0, 0.8, (0.0, 0.8, 0.1, 0.9))
    results = []
    for rows, threshold in ((right, 0.5), ([*found, stray], 0.7)):
        detections, annotated = tables(rows, truth, images="abcde")
        results.append(evaluate_images(detections, annotated, ["x"], [threshold]))
    differing = differing_images(*results)
    assert [(pair.image_id, pair.fewer_errors) for pair in differing] == [
        ("c", -2),
        ("a", -1),
        ("b", -1),
        ("d", -1),
    ]
    assert [pair.image_id for pair in differing_images(*results[::-1])] == ["c", "a", "b", "d"]
    assert differing[2].to_json() == {
        "image_id": "b",
        "first": {"false_positives": 0, "false_negatives": 0},
        "second": {"false_positives": 1, "false_negatives": 0},
    }


def test_the_order_of_the_images_does_not_matter(random_tables: RandomTables) -> None:
    first, truth = random_tables(7, images=15)
    second = without(first, 0.3, 7)
    position = np.random.default_rng(7).permutation(15)
    ids = tuple(truth.image_ids[i] for i in np.argsort(position))
    moved = compare_detections(
        dataclasses.replace(first, image_ids=ids, image=position[first.image]),
        dataclasses.replace(second, image_ids=ids, image=position[second.image]),
        dataclasses.replace(truth, image_ids=ids, image=position[truth.image]),
        NAMES,
    )
    assert moved.to_json() == compare_detections(first, second, truth, NAMES).to_json()


def test_a_score_of_one_image_has_no_interval(tables: Tables) -> None:
    found, truth = tables([("a", 0, 0.9, BOX)], [("a", 0, BOX, False)])
    nothing, _ = tables([], [])
    compared = compare_detections(found, nothing, truth, ["x", "y"])
    assert compared.scores["map50"].value == -1
    assert not compared.scores["map50"].is_beyond_chance
    assert compared.to_json()["map50"]["interval"] is None
    assert compared.to_json()["classes"]["y"]["difference"] is None


@pytest.mark.slow
def test_memory_does_not_grow_with_detections_times_resamples(random_tables: RandomTables) -> None:
    first, truth = random_tables(1, images=60, classes=1)
    rows = np.random.default_rng(1).integers(0, len(first), 12_000)
    many = dataclasses.replace(
        first,
        image=first.image[rows],
        class_id=first.class_id[rows],
        score=np.linspace(0.1, 0.9, len(rows)),
        xyxy=first.xyxy[rows],
    )
    tracemalloc.start()
    compare_detections(many, first, truth, ["x"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(many) * 1000 * 4  # the weights of all detections in all resamples
