"""Scores of the boxes of one size or with an attribute."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.matching import match
from oiyolo.evaluation.slices import score_by_attribute, score_by_size
from oiyolo.evaluation.summary import Evaluation, evaluate_detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections, GroundTruth

    Tables = Callable[..., tuple[Detections, GroundTruth]]

SMALL = (0.0, 0.0, 0.125, 0.125)  # 16 x 16 pixels of 128 x 128
MEDIUM = (0.5, 0.0, 0.75, 0.25)  # 32 x 32 pixels
LARGE = (0.0, 0.0, 0.75, 0.75)  # 96 x 96 pixels


def three_sizes(tables: Tables) -> tuple[Detections, GroundTruth]:
    detections, truth = tables(
        [
            ("a", 0, 0.9, LARGE),
            ("b", 0, 0.8, SMALL),  # a false positive, and small
            ("a", 0, 0.7, SMALL),
            ("a", 0, 0.6, (0.6, 0.6, 0.99, 0.99)),  # a false positive, and medium
        ],
        [("a", 0, SMALL, False), ("a", 0, MEDIUM, False), ("a", 0, LARGE, False)],
    )
    attributes = {"occluded": np.array([True, False, True]), "inside": np.zeros(3, dtype=np.bool_)}
    sizes_wh = np.array([[128.0, 128.0], [128.0, 128.0]])
    return detections, dataclasses.replace(truth, sizes_wh=sizes_wh, attributes=attributes)


def test_boxes_are_scored_by_their_size(tables: Tables) -> None:
    detections, truth = three_sizes(tables)
    scores = score_by_size(detections, truth, match(detections, truth), [0.7])
    figures = {name: dataclasses.astuple(score) for name, score in scores.items()}
    # The small box is found after one false positive of its size, which others do not suffer from.
    assert figures == {"small": (1, 0.5, 1.0), "medium": (1, 0.0, 0.0), "large": (1, 1.0, 1.0)}


def test_boxes_are_scored_by_attribute(tables: Tables) -> None:
    detections, truth = three_sizes(tables)
    scores = score_by_attribute(detections, truth, match(detections, truth), [0.8])
    occluded, inside = scores["occluded"], scores["inside"]
    # Both are found, the second after a false positive; one lies below the threshold.
    expected = (2, pytest.approx((1 + 2 / 3) / 2), 0.5)
    assert dataclasses.astuple(occluded) == expected
    assert inside.boxes == 0
    assert math.isnan(inside.map50)
    assert math.isnan(inside.recall)


def test_a_group_of_box_is_found_if_a_shown_detection_lies_in_it(tables: Tables) -> None:
    inside, mostly_outside = (0.0, 0.0, 0.1, 0.1), (0.65, 0.0, 0.9, 0.25)
    detections, truth = tables(
        [
            ("a", 0, 0.9, inside),
            ("a", 0, 0.9, mostly_outside),
            ("a", 1, 0.9, MEDIUM),  # another class
            ("b", 0, 0.4, inside),  # below the threshold
        ],
        [("a", 0, SMALL, True), ("a", 0, MEDIUM, True), ("b", 0, SMALL, True)],
    )
    (region,) = score_by_attribute(detections, truth, match(detections, truth), [0.5, 0.5]).values()
    assert region.boxes == 3
    assert region.recall == pytest.approx(1 / 3)
    assert math.isnan(region.map50)


def test_slices_are_part_of_an_evaluation(tables: Tables) -> None:
    evaluation = evaluate_detections(*three_sizes(tables), ["x"])
    value = evaluation.to_json()
    assert value["by_size"]["large"] == {"boxes": 1, "map50": 1, "recall": 1}
    assert value["by_attribute"]["inside"] == {"boxes": 0, "map50": None, "recall": None}
    again = Evaluation.from_json(value)
    assert again.to_json() == value
    assert str(again) == str(evaluation)
    assert max(map(len, str(evaluation).splitlines())) <= 80


def test_without_sizes_and_attributes_there_are_no_slices(tables: Tables) -> None:
    evaluation = evaluate_detections(*tables([], [("a", 0, SMALL, False)]), ["x"])
    assert evaluation.to_json()["by_size"] == {}
    assert evaluation.to_json()["by_attribute"] == {}


def test_sizes_and_attributes_of_another_length_are_rejected(tables: Tables) -> None:
    _, truth = three_sizes(tables)
    with pytest.raises(ValueError, match="occluded"):
        dataclasses.replace(truth, attributes={"occluded": np.ones(2, dtype=np.bool_)})
    with pytest.raises(ValueError, match="sizes_wh"):
        dataclasses.replace(truth, sizes_wh=np.ones((3, 2)))
