"""Tables of detections and of ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oiyolo.evaluation.tables import Detections, GroundTruth, positions, verification

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
        ({"image": [0.5]}, "image must be int64, not float64"),
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
def test_inconsistent_columns_are_rejected(wrong: dict[str, Any], message: str) -> None:
    assert len(Detections(**GOOD)) == 1
    with pytest.raises(ValueError, match=message):
        Detections(**(GOOD | wrong))


def test_reindexing_adapts_positions_to_another_list_of_images() -> None:
    moved = Detections(**GOOD).reindex(("b", "c", "a"))
    assert moved.image.tolist() == [0]
    with pytest.raises(ValueError, match="'b' is not among the 1 images"):
        moved.reindex(("a",))


def test_an_empty_table_has_no_rows() -> None:
    nothing = Detections.empty(["a"])
    assert (len(nothing), nothing.xyxy.shape, nothing.image_ids) == (0, (0, 4), ("a",))


def test_ids_and_shapes_of_rows_are_checked() -> None:
    truth = GroundTruth.from_rows(["a", "b"], box_image_ids=["b"], class_id=[1], xyxy=BOX)
    assert truth.image.tolist() == [1]
    assert truth.group_of.tolist() == [False]
    with pytest.raises(ValueError, match="'z'"):
        positions(["a"], ["z"])
    with pytest.raises(ValueError, match="verified must have length 2, not 1"):
        GroundTruth.from_rows(
            ["a", "b"], box_image_ids=[], class_id=[], xyxy=[], verified=verification(["a"], 1)
        )
    with pytest.raises(ValueError, match="only"):
        GroundTruth.from_rows(
            ["a"], box_image_ids=[], class_id=[], xyxy=[], verified=np.array([[3]], dtype=np.int8)
        )


def test_verified_labels_and_boxes_verify_classes() -> None:
    verified = verification(
        ["a", "b"], 2, present=[("a", 0), ("elsewhere", 1)], absent=[("a", 0), ("b", 1)]
    )
    assert verified.tolist() == [[1, 0], [0, -1]]
    truth = GroundTruth.from_rows(
        ["a", "b"], box_image_ids=["b"], class_id=[0], xyxy=BOX, verified=verified
    )
    image, class_id = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 5])
    # The box verifies class 0 in b; class 1 was not verified in a, nor class 5 anywhere.
    assert truth.is_verified(image, class_id).tolist() == [True, False, True, True, False]
