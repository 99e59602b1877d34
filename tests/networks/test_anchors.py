"""Anchors fitted to a dataset, and the choice between them and stock anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oiyolo.networks import anchors
from oiyolo.networks.anchors import average_iou, choose_anchors, kmeans, round_anchors

if TYPE_CHECKING:
    from oiyolo.networks.anchors import Sizes

YOLOV3 = np.array(
    [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
).astype(float)
BOXES = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 40), st.just(2)), elements=st.floats(0, 4096, width=32)
)


def clusters(centres: Sizes, count: int, spread: float = 0.05) -> Sizes:
    rng = np.random.default_rng(5)
    return np.concatenate(
        [centre * np.exp(rng.normal(0, spread, (count, 2))) for centre in centres]
    )


def test_three_clusters_of_boxes_are_found() -> None:
    centres = np.array([[20.0, 40.0], [60.0, 30.0], [100.0, 120.0]])
    sizes = kmeans(clusters(centres, 200), 3)
    assert sizes == pytest.approx(centres, rel=0.03)


def test_average_iou_equals_a_hand_calculation() -> None:
    boxes = np.array([[10.0, 10.0], [20.0, 10.0]])
    assert average_iou(boxes, np.array([[10.0, 10.0]])) == pytest.approx(0.75)
    assert average_iou(boxes, boxes) == 1
    assert np.isnan(average_iou(np.empty((0, 2)), boxes))


@settings(max_examples=50, deadline=None)
@given(BOXES, st.integers(1, 9))
def test_any_boxes_yield_k_sizes_sorted_by_area(box_wh: Sizes, k: int) -> None:
    sizes = kmeans(box_wh, k)
    assert sizes.shape == (k, 2)
    assert np.isfinite(sizes).all()
    assert (sizes > 0).all()
    assert (np.diff(sizes.prod(axis=1)) >= 0).all()
    assert np.array_equal(sizes, kmeans(box_wh, k))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_the_scale_and_order_of_the_boxes_do_not_matter(seed: int, scale: float) -> None:
    centres = np.array([[20.0, 40.0], [100.0, 120.0]])
    boxes = clusters(centres, 50)
    shuffled = np.random.default_rng(seed).permutation(boxes)
    assert kmeans(shuffled * scale, 2) == pytest.approx(kmeans(boxes, 2) * scale)


def test_fewer_boxes_than_anchors_are_padded() -> None:
    sizes = kmeans(np.array([[40.0, 20.0], [40.0, 20.0]]), 3)
    assert sizes == pytest.approx(np.array([[32, 16], [40, 20], [50, 25]]))
    assert kmeans(np.empty((0, 2)), 2).shape == (2, 2)


def test_boxes_without_area_are_ignored() -> None:
    junk = np.array([[0.0, 5.0], [np.nan, 1.0], [-1.0, 4.0], [np.inf, 2.0]])
    assert kmeans(np.vstack((junk, [[30.0, 30.0]])), 1) == pytest.approx(np.array([[30, 30]]))


def test_fewer_than_one_cluster_is_an_error() -> None:
    with pytest.raises(ValueError, match="not 0"):
        kmeans(YOLOV3, 0)


def test_own_anchors_are_used_if_they_are_better_by_the_margin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = clusters(YOLOV3[:3] * 7.5, 100)
    choice = choose_anchors(boxes, YOLOV3)
    assert choice.source == "own"
    assert choice.average_iou > choice.stock_average_iou + 0.02
    assert np.array_equal(choice.anchors, round_anchors(choice.anchors))
    monkeypatch.setattr(anchors, "MARGIN", 1.0)
    assert choose_anchors(boxes, YOLOV3).source == "stock"


def test_stock_anchors_are_kept_if_they_fit_or_boxes_are_few() -> None:
    fitting = choose_anchors(clusters(YOLOV3, 30), YOLOV3)
    assert (fitting.source, fitting.anchors is YOLOV3) == ("stock", True)
    few = choose_anchors(np.full((89, 2), 77.0), YOLOV3)
    assert few.source == "stock"
    assert np.isnan(few.average_iou)
    assert choose_anchors(np.empty((0, 2)), YOLOV3).source == "stock"


@pytest.mark.parametrize(
    ("preference", "source", "figures"),
    [("own", "own", 2), ("stock", "stock", 2), (YOLOV3 * 2, "configured", 2)],
)
def test_anchors_can_be_configured(
    preference: Literal["own", "stock"] | Sizes, source: str, figures: int
) -> None:
    choice = choose_anchors(clusters(YOLOV3, 5), YOLOV3, preference=preference)
    assert choice.source == source
    assert choice.summary.count("0.") == figures
    assert choice.reason.startswith("as ")
    if source == "configured":
        assert choice.average_iou == average_iou(clusters(YOLOV3, 5), YOLOV3 * 2)


def test_own_anchors_are_fitted_to_a_single_box_but_not_to_none() -> None:
    one = choose_anchors(np.array([[30.0, 40.0]]), YOLOV3, preference="own")
    assert (one.source, one.average_iou) == ("own", 1.0)
    assert one.anchors.shape == YOLOV3.shape
    none = choose_anchors(np.empty((0, 2)), YOLOV3, preference="own")
    assert (none.source, none.summary) == ("stock", "stock anchors")
    assert "0 boxes" in none.reason


def test_the_order_of_the_boxes_does_not_change_the_last_digit() -> None:
    rng = np.random.default_rng(4)
    boxes = np.exp(rng.normal(4, 0.8, (1_500, 2)))
    assert np.array_equal(kmeans(boxes, 9), kmeans(rng.permutation(boxes), 9))


def test_small_sizes_are_rounded_to_tenths() -> None:
    sizes = np.array([[0.01, 3.14], [9.96, 10.4], [11.6, 100.2]])
    assert round_anchors(sizes).tolist() == [[0.1, 3.1], [10.0, 10.0], [12.0, 100.0]]


def test_a_large_dataset_is_searched_in_a_sample_and_fitted_on_all_boxes() -> None:
    rng = np.random.default_rng(1)
    boxes = np.clip(np.exp(rng.normal(4, 0.8, (15_000, 2))), 3, 416)
    sizes = kmeans(boxes, 9)
    # These boxes differ from COCO's, so fitted anchors must be clearly better than stock ones.
    assert average_iou(boxes, sizes) > average_iou(boxes, YOLOV3) + 0.02
