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
    rows: dict[str, Any] = {"class_id": [1], "xyxy": BOX, "is_region": [False]}
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
        is_region=[False],
        verified=verified,
    )
    image, class_id = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    # The box verifies class 0 in b; class 1 was not verified in a.
    assert truth.is_verified(image, class_id).tolist() == [True, False, True, True]


def test_some_classes_are_numbered_anew() -> None:
    ids = ("a", "b")
    rows = {"image": np.array([0, 0, 1, 1]), "class_id": np.array([0, 2, 1, 2])}
    boxes = np.array([[0, 0, side, side] for side in (0.1, 0.2, 0.3, 0.4)])
    detections = Detections(ids, **rows, score=np.array([0.1, 0.2, 0.3, 0.4]), xyxy=boxes)
    verified = np.array([[1, 0, -1], [0, 1, 1]], dtype=np.int8)
    truth = GroundTruth(
        ids,
        **rows,
        xyxy=boxes,
        is_region=np.array([False, True, False, False]),
        verified=verified,
        attributes={"occluded": np.array([False, False, True, True])},
    )
    chosen = detections.of_classes([2, 0])
    assert (chosen.class_id.tolist(), chosen.score.tolist()) == ([1, 0, 0], [0.1, 0.2, 0.4])
    assert chosen.image.tolist() == [0, 0, 1]
    annotated = truth.of_classes([2, 0])
    assert annotated.class_id.tolist() == [1, 0, 0]
    assert annotated.is_region.tolist() == [False, True, False]
    assert annotated.attributes["occluded"].tolist() == [False, False, True]
    assert annotated.verified is not None
    assert annotated.verified.tolist() == [[-1, 1], [1, 0]]
    assert annotated.image_ids == ids


def test_the_rows_of_some_images_keep_their_values() -> None:
    ids = ("a", "b", "c")
    detections = Detections(
        ids,
        np.array([2, 0, 2]),
        np.array([0, 1, 0]),
        np.array([0.1, 0.2, 0.3]),
        np.repeat(BOX, 3, 0),
    )
    part = detections.of_images(("c", "b"))
    assert part.image_ids == ("c", "b")
    assert part.image.tolist() == [0, 0]
    assert part.score.tolist() == [0.1, 0.3]
    truth = GroundTruth.from_rows(
        ids,
        box_image_ids=["a", "b", "c"],
        class_id=[0, 1, 2],
        xyxy=BOX * 3,
        is_region=[False, True, False],
        verified=verification(ids, 3, present=[("c", 2)]),
        sizes_wh=[(1, 2), (3, 4), (5, 6)],
        attributes={"occluded": [True, False, True]},
    ).of_images(("c", "b"))
    assert truth.class_id.tolist() == [1, 2]
    assert truth.image.tolist() == [1, 0]
    assert truth.is_region.tolist() == [True, False]
    assert truth.verified is not None
    assert truth.verified.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert truth.sizes_wh is not None
    assert truth.sizes_wh.tolist() == [[5, 6], [3, 4]]
    assert truth.attributes["occluded"].tolist() == [False, True]
