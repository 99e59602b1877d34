"""The two tables that everything else compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oiyolo.evaluation.tables import Detections, GroundTruth, places, verification

BOX = [[0.1, 0.1, 0.4, 0.4]]
GOOD: dict[str, Any] = {
    "image_ids": ("a", "b"),
    "image": [1],
    "class_id": [0],
    "score": [0.5],
    "xyxy": BOX,
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_ids": ("a", "a")}, "each image once"),
        ({"image": [2]}, "positions in 2 image_ids, not 2 to 2"),
        ({"image": [-1]}, "not -1 to -1"),
        ({"image": [0.5]}, "image must hold int64, not float64"),
        ({"image": [[0]]}, r"shape \(n\), not \(1, 1\)"),
        ({"class_id": [0, 1]}, "class_id must have length 1, not 2"),
        ({"class_id": [-1]}, "0 or more"),
        ({"score": []}, "score must have length 1, not 0"),
        ({"score": [np.nan]}, "score must be finite"),
        ({"xyxy": [0.1, 0.1, 0.4, 0.4]}, r"shape \(n, 4\), not \(4,\)"),
        ({"xyxy": [[0.4, 0.1, 0.1, 0.4]]}, "row 0"),
        ({"xyxy": [[0.1, np.inf, 0.1, 0.4]]}, "finite"),
    ],
)
def test_columns_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    assert len(Detections(**GOOD)) == 1
    with pytest.raises(ValueError, match=message):
        Detections(**(GOOD | wrong))


def test_positions_follow_another_list_of_images() -> None:
    moved = Detections(**GOOD).over(("b", "c", "a"))
    assert moved.image.tolist() == [0]
    with pytest.raises(ValueError, match="'b' is not among the 1 images"):
        moved.over(("a",))


def test_a_table_of_nothing() -> None:
    nothing = Detections.none(["a"])
    assert (len(nothing), nothing.xyxy.shape, nothing.image_ids) == (0, (0, 4), ("a",))


def test_truth_from_rows_checks_ids_and_shapes() -> None:
    truth = GroundTruth.from_rows(["a", "b"], box_image_ids=["b"], class_id=[1], xyxy=BOX)
    assert truth.image.tolist() == [1]
    assert truth.group_of.tolist() == [False]
    with pytest.raises(ValueError, match="'z'"):
        places(["a"], ["z"])
    with pytest.raises(ValueError, match="verified must have length 2, not 1"):
        GroundTruth.from_rows(
            ["a", "b"], box_image_ids=[], class_id=[], xyxy=[], verified=verification(["a"], 1)
        )
    with pytest.raises(ValueError, match="only"):
        GroundTruth.from_rows(
            ["a"], box_image_ids=[], class_id=[], xyxy=[], verified=np.array([[3]], dtype=np.int8)
        )


def test_verified_says_who_looked_for_what() -> None:
    verified = verification(
        ["a", "b"], 2, present=[("a", 0), ("elsewhere", 1)], absent=[("a", 0), ("b", 1)]
    )
    assert verified.tolist() == [[1, 0], [0, -1]]
    truth = GroundTruth.from_rows(
        ["a", "b"], box_image_ids=["b"], class_id=[0], xyxy=BOX, verified=verified
    )
    image, class_id = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 5])
    # The box on b says that class 0 is there; nobody looked for class 1 on a, nor for class 5.
    assert truth.has_verified(image, class_id).tolist() == [True, False, True, True, False]
