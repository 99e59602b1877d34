from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oiyolo.networks.anchors import average_iou, choose, kmeans, rounded

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


def test_three_kinds_of_boxes_are_found() -> None:
    centres = np.array([[20.0, 40.0], [60.0, 30.0], [100.0, 120.0]])
    found = kmeans(clusters(centres, 200), 3)
    assert found == pytest.approx(centres, rel=0.03)


def test_the_iou_of_shapes_by_hand() -> None:
    boxes = np.array([[10.0, 10.0], [20.0, 10.0]])
    assert average_iou(boxes, np.array([[10.0, 10.0]])) == pytest.approx(0.75)
    assert average_iou(boxes, boxes) == 1
    assert np.isnan(average_iou(np.empty((0, 2)), boxes))


@settings(max_examples=50, deadline=None)
@given(BOXES, st.integers(1, 9))
def test_any_boxes_give_k_sizes_in_order(box_wh: Sizes, k: int) -> None:
    found = kmeans(box_wh, k, restarts=2)
    assert found.shape == (k, 2)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert (np.diff(found.prod(axis=1)) >= 0).all()
    assert np.array_equal(found, kmeans(box_wh, k, restarts=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_scale_and_order_of_the_boxes_do_not_matter(seed: int, scale: float) -> None:
    centres = np.array([[20.0, 40.0], [100.0, 120.0]])
    boxes = clusters(centres, 50)
    shuffled = np.random.default_rng(seed).permutation(boxes)
    assert kmeans(shuffled * scale, 2) == pytest.approx(kmeans(boxes, 2) * scale)


def test_fewer_boxes_than_anchors() -> None:
    found = kmeans(np.array([[40.0, 20.0], [40.0, 20.0]]), 3)
    assert found == pytest.approx(np.array([[32, 16], [40, 20], [50, 25]]))
    assert kmeans(np.empty((0, 2)), 2).shape == (2, 2)


def test_boxes_without_an_area_do_not_count() -> None:
    junk = np.array([[0.0, 5.0], [np.nan, 1.0], [-1.0, 4.0], [np.inf, 2.0]])
    assert kmeans(np.vstack((junk, [[30.0, 30.0]])), 1) == pytest.approx(np.array([[30, 30]]))


@pytest.mark.parametrize(("k", "restarts"), [(0, 1), (1, 0)])
def test_no_cluster_or_no_start_is_a_mistake(k: int, restarts: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        kmeans(YOLOV3, k, restarts=restarts)


def test_own_anchors_are_used_when_they_are_better_by_the_margin() -> None:
    boxes = clusters(YOLOV3[:3] * 7.5, 100)
    choice = choose(boxes, YOLOV3)
    assert choice.used == "own"
    assert choice.average_iou > choice.stock_average_iou + 0.02
    assert np.array_equal(choice.anchors, rounded(choice.anchors))
    assert choose(boxes, YOLOV3, margin=1).used == "stock"


def test_stock_anchors_stay_where_they_fit_or_boxes_are_few() -> None:
    fitting = choose(clusters(YOLOV3, 30), YOLOV3, margin=0.1)
    assert (fitting.used, fitting.anchors is YOLOV3) == ("stock", True)
    few = choose(np.full((89, 2), 77.0), YOLOV3)
    assert few.used == "stock"
    assert np.isnan(few.average_iou)
    assert choose(np.empty((0, 2)), YOLOV3).used == "stock"


@pytest.mark.parametrize(
    ("wanted", "used", "figures"),
    [("own", "own", 2), ("stock", "stock", 2), (YOLOV3 * 2, "given", 2)],
)
def test_anchors_can_be_asked_for(
    wanted: Literal["own", "stock"] | Sizes, used: str, figures: int
) -> None:
    choice = choose(clusters(YOLOV3, 5), YOLOV3, wanted=wanted)
    assert choice.used == used
    assert choice.told.count("0.") == figures
    assert choice.why.startswith("as ")
    if used == "given":
        assert choice.average_iou == average_iou(clusters(YOLOV3, 5), YOLOV3 * 2)


def test_own_anchors_are_fitted_to_few_boxes_when_asked_for_but_not_to_none() -> None:
    one = choose(np.array([[30.0, 40.0]]), YOLOV3, wanted="own")
    assert (one.used, one.average_iou) == ("own", 1.0)
    assert one.anchors.shape == YOLOV3.shape
    none = choose(np.empty((0, 2)), YOLOV3, wanted="own")
    assert (none.used, none.told) == ("stock", "stock anchors")
    assert "0 boxes" in none.why


def test_the_order_of_the_boxes_does_not_matter_to_the_last_digit() -> None:
    rng = np.random.default_rng(4)
    boxes = np.exp(rng.normal(4, 0.8, (1_500, 2)))
    assert np.array_equal(kmeans(boxes, 9), kmeans(rng.permutation(boxes), 9))


def test_rounding_is_finer_for_small_sizes() -> None:
    sizes = np.array([[0.01, 3.14], [9.96, 10.4], [11.6, 100.2]])
    assert rounded(sizes).tolist() == [[0.1, 3.1], [10.0, 10.0], [12.0, 100.0]]


def test_of_a_large_dataset_a_sample_is_searched_and_all_is_fitted() -> None:
    rng = np.random.default_rng(1)
    boxes = np.clip(np.exp(rng.normal(4, 0.8, (15_000, 2))), 3, 416)
    found = kmeans(boxes, 9, restarts=2)
    # Better than darknet's by a good deal, on boxes that have nothing to do with COCO's.
    assert average_iou(boxes, found) > average_iou(boxes, YOLOV3) + 0.02
