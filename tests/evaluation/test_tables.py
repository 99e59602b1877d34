"""Tables of detections and of ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oiyolo.evaluation.tables import Detections, GroundTruth, verification

BOX = [[0.1, 0.1, 0.4, 0.4]]
GOOD: dict[str, Any] = {
    "image_ids": ("a", "b"),
    "image": np.array([1]),
    "class_id": np.array([0]),
    "score": np.array([0.5]),
    "xyxy": np.array(BOX),
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("image_ids", ("a", "a")),
        ("image", np.array([2])),
        ("image", np.array([-1])),
        ("class_id", np.array([0, 1])),
        ("class_id", np.array([-1])),
        ("score", np.array([])),
        ("score", np.array([np.nan])),
        ("xyxy", np.array([[0.4, 0.1, 0.1, 0.4]])),
        ("xyxy", np.array([[0.1, np.inf, 0.1, 0.4]])),
    ],
)
def test_inconsistent_columns_are_rejected(name: str, wrong: object) -> None:
    assert len(Detections(**GOOD)) == 1
    with pytest.raises(ValueError, match=name):
        Detections(**(GOOD | {name: wrong}))


def test_ids_and_lengths_are_checked() -> None:
    rows: dict[str, Any] = {"class_id": [1], "xyxy": BOX, "group_of": [False]}
    truth = GroundTruth.from_rows(["a", "b"], box_image_ids=["b"], **rows)
    assert truth.image.tolist() == [1]
    with pytest.raises(ValueError, match="'z'"):
        GroundTruth.from_rows(["a"], box_image_ids=["z"], **rows)
    with pytest.raises(ValueError, match="verified"):
        GroundTruth.from_rows(
            ["a", "b"], box_image_ids=["b"], verified=verification(["a"], 1), **rows
        )


def test_verified_labels_and_boxes_verify_classes() -> None:
    verified = verification(
        ["a", "b"], 2, present=[("a", 0), ("elsewhere", 1)], absent=[("a", 0), ("b", 1)]
    )
    assert verified.tolist() == [[1, 0], [0, -1]]
    truth = GroundTruth.from_rows(
        ["a", "b"],
        box_image_ids=["b"],
        class_id=[0],
        xyxy=BOX,
        group_of=[False],
        verified=verified,
    )
    image, class_id = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    # The box verifies class 0 in b; class 1 was not verified in a.
    assert truth.is_verified(image, class_id).tolist() == [True, False, True, True]
