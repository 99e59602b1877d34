"""Intervals by the bootstrap over images."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.evaluation.bootstrap import (
    Ranking,
    image_weights,
    interval,
    mean_over_resampled_classes,
    resampled_average_precision,
    resampled_map50,
    resampled_scores,
)
from oiyolo.evaluation.coco import coco_precision
from oiyolo.evaluation.openimages_metric import openimages_average_precision
from oiyolo.evaluation.summary import evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.evaluation.tables import Ints

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

BOX = (0.1, 0.1, 0.5, 0.5)
FAR = (0.6, 0.6, 0.9, 0.9)
NAMES = ["x", "y", "z"]


def drawn(
    detections: Detections, truth: GroundTruth, images: Sequence[int]
) -> tuple[Detections, GroundTruth]:
    """Return tables of the drawn images, each of which has an id of its own."""
    ids = tuple(f"{position:04d}" for position in range(len(images)))

    def rows_of(image: Ints) -> tuple[Ints, Ints]:
        pairs = [(p, r) for p, i in enumerate(images) for r in np.flatnonzero(image == i)]
        position, row = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return position, row

    image, row = rows_of(detections.image)
    of_drawn = Detections(
        ids, image, detections.class_id[row], detections.score[row], detections.xyxy[row]
    )
    image, row = rows_of(truth.image)
    verified = None if truth.verified is None else truth.verified[list(images)]
    return of_drawn, GroundTruth(
        ids, image, truth.class_id[row], truth.xyxy[row], truth.is_region[row], verified
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_weighted_score_is_that_of_the_drawn_images(
    random_tables: RandomTables, seed: int
) -> None:
    detections, truth = random_tables(seed, images=40, group_of=0.2)
    verified = np.random.default_rng(seed).integers(-1, 2, (40, 3)).astype(np.int8)
    truth = dataclasses.replace(truth, verified=verified)
    weights = image_weights(truth.image_ids, resamples=3)
    scores = resampled_scores(detections, truth, 3, weights)
    for resample in range(3):
        images = np.repeat(np.arange(40), weights[:, resample].astype(np.int64))
        tables = drawn(detections, truth, images.tolist())
        expected = [row.map50 for row in evaluate_detections(*tables, NAMES).classes]
        assert scores.map50[:, resample] == pytest.approx(expected, abs=1e-6)
        coco = coco_precision(*tables, 3).mean(axis=(0, 1))
        assert scores.map50_95[:, resample] == pytest.approx(coco, abs=1e-6)
        openimages = openimages_average_precision(*tables, 3)
        assert scores.openimages_map[:, resample] == pytest.approx(openimages, abs=1e-6)


def test_map50_alone_is_resampled_like_all_scores(random_tables: RandomTables) -> None:
    detections, truth = random_tables(3, images=20, group_of=0.2)
    weights = image_weights(truth.image_ids, resamples=20)
    expected = resampled_scores(detections, truth, 3, weights).map50
    values = resampled_map50(detections, truth, 3, weights)
    assert values == pytest.approx(mean_over_resampled_classes(expected), nan_ok=True)


def test_a_weighted_score_equals_a_hand_calculation() -> None:
    # By score: a hit in image 0, a false positive in image 1, two hits of one score in 1 and 2.
    ranking = Ranking(
        image=np.array([0, 1, 1, 2]),
        level=np.array([0, 1, 2, 2]),
        true_positive=np.array([[True, False, True, True]]),
        ignored=np.zeros((1, 4), dtype=np.bool_),
        box_count=np.array([1.0, 2.0, 1.0]),
    )
    weights = np.array([[1, 0, 3, 0], [1, 2, 0, 0], [1, 1, 0, 0]], dtype=np.float32)
    values = resampled_average_precision(ranking, weights)
    # Of 4 boxes one is found at precision 1, two more at 3/4; of 5 boxes three are found at 3/5.
    assert values[:3] == pytest.approx([1 / 4 + 2 / 4 * 3 / 4, 3 / 5 * 3 / 5, 1])
    assert math.isnan(values[3])


def test_detections_that_are_ignored_are_neither_right_nor_wrong() -> None:
    ranking = Ranking(
        image=np.array([0, 1, 0]),
        level=np.arange(3),
        true_positive=np.array([[False, False, True]] * 2),
        ignored=np.array([[True, False, False], [False, False, False]]),
        box_count=np.array([1.0, 0.0]),
    )
    weights = np.array([[1, 2], [1, 0]], dtype=np.float32)
    # At the first IoU one false positive precedes the hit, at the second two.
    expected = [(1 / 2 + 1 / 3) / 2, (1 + 2 / 4) / 2]
    assert resampled_average_precision(ranking, weights) == pytest.approx(expected)


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    weights = image_weights(["b", "a", "c"], resamples=50)
    assert weights.sum(axis=0) == pytest.approx(3)
    assert len(np.unique(weights, axis=1).T) > 1
    assert (image_weights(["a", "b", "c"], resamples=50) == weights[[1, 0, 2]]).all()
    assert image_weights([], resamples=5).shape == (0, 5)


def test_the_bounds_of_an_unbiased_score_are_its_quantiles() -> None:
    values = np.arange(1001) / 1000
    low, high = interval(values, 0.5, images=10**6)
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-3)
    # Resamples that are mostly above the estimate are biased upwards; the interval moves down.
    shifted_low, shifted_high = interval(values, 0.4, images=10**6)
    assert shifted_low < low
    assert shifted_high < high


@pytest.mark.parametrize(
    ("images", "deviate"), [(5, 2.776), (10, 2.262), (20, 2.093), (100, 1.984)]
)
def test_an_interval_of_few_images_is_as_wide_as_student_says(images: int, deviate: float) -> None:
    normal = NormalDist()
    values = np.array([normal.inv_cdf((i + 0.5) / 100_000) for i in range(100_000)])
    expected = deviate * math.sqrt(images / (images - 1))
    assert interval(values, 0, images=images) == pytest.approx((-expected, expected), abs=0.02)


@pytest.mark.parametrize(("estimate", "images"), [(math.nan, 10), (0.5, 1), (0.5, 0)])
def test_an_interval_of_fewer_than_two_images_is_undefined(estimate: float, images: int) -> None:
    assert all(map(math.isnan, interval(np.full(9, 0.5), estimate, images=images)))
    assert all(map(math.isnan, interval(np.full(9, math.nan), 0.5, images=2)))


def test_classes_that_were_not_drawn_are_skipped() -> None:
    values = np.array([[0.2, math.nan, math.nan], [0.4, 0.6, math.nan]])
    mean = mean_over_resampled_classes(values)
    assert mean == pytest.approx([0.3, 0.6, math.nan], nan_ok=True)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), group_of=st.sampled_from([0.0, 0.3]))
def test_an_interval_contains_the_score_and_ignores_the_order_of_images(
    random_tables: RandomTables, seed: int, group_of: float
) -> None:
    detections, truth = random_tables(seed, images=12, group_of=group_of)
    evaluation = evaluate_detections(detections, truth, NAMES)
    for name in ("map50", "map50_95", "openimages_map"):
        low, high = getattr(evaluation, f"{name}_interval")
        assert 0 <= low <= getattr(evaluation, name) <= high <= 1
    for row in evaluation.classes:
        low, high = row.map50_interval
        assert math.isnan(low) or low <= row.map50 <= high
    position = np.random.default_rng(seed).permutation(12)
    ids = tuple(truth.image_ids[i] for i in np.argsort(position))
    moved = (
        dataclasses.replace(detections, image_ids=ids, image=position[detections.image]),
        dataclasses.replace(truth, image_ids=ids, image=position[truth.image]),
    )
    assert evaluate_detections(*moved, NAMES).to_json() == evaluation.to_json()


def test_the_interval_of_a_perfect_detector_is_one(random_tables: RandomTables) -> None:
    _, truth = random_tables(1, group_of=0.1)
    single = ~truth.is_region
    detections = Detections(
        truth.image_ids,
        truth.image[single],
        truth.class_id[single],
        np.linspace(0.1, 0.9, single.sum()),
        truth.xyxy[single],
    )
    evaluation = evaluate_detections(detections, truth, NAMES)
    for name in ("map50", "map50_95", "openimages_map"):
        assert getattr(evaluation, f"{name}_interval") == (1, 1)
    assert max(evaluation.errors.values()) == 0


def test_a_small_sample_says_how_many_images_would_halve_the_intervals(
    random_tables: RandomTables,
) -> None:
    small = evaluate_detections(*random_tables(0, images=20), NAMES)
    assert small.to_json()["images_to_halve_intervals"] == 60
    assert "60 more images" in str(small)
    large = evaluate_detections(*random_tables(0, images=400), NAMES)
    assert large.to_json()["images_to_halve_intervals"] is None


def test_four_times_as_many_images_halve_an_interval(random_tables: RandomTables) -> None:
    widths = []
    for images in (100, 400):
        tables = random_tables(0, images=images)
        low, high = evaluate_detections(*tables, NAMES).map50_interval
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.25)


def test_a_class_in_one_image_has_no_interval(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, BOX)], [("a", 0, BOX, False), ("a", 1, FAR, False), ("b", 1, BOX, False)]
    )
    evaluation = evaluate_detections(detections, truth, ["x", "y"])
    rows = evaluation.to_json()["classes"]
    assert rows["x"]["map50_interval"] is None
    assert rows["y"]["map50_interval"] == [0, 0]
    assert evaluation.to_json()["map50_interval"] is not None
