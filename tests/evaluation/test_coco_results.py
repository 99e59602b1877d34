"""Detections in COCO's format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.evaluation import coco_results
from oiyolo.evaluation.coco_results import read_results, write_results
from oiyolo.evaluation.tables import Detections

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SIZES_WH = {"a": (200, 100), "none": (10, 10), "b": (50, 80)}
FOUND = Detections(
    image_ids=tuple(SIZES_WH),
    image=np.array([0, 0, 2]),
    class_id=np.array([1, 0, 0]),
    score=np.array([0.5, 0.25, 0.875]),
    xyxy=np.array([[0.1, 0.2, 0.3, 0.6], [0, 0, 1, 1], [0.5, 0.25, 0.75, 1]]),
)


def test_boxes_are_in_pixels_of_their_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_results, "_ROWS_PER_BLOCK", 2)
    path = tmp_path / "detections.json"
    write_results(path, FOUND, SIZES_WH)
    assert json.loads(path.read_text())[0] == {
        "image_id": "a",
        "category_id": 1,
        "bbox": [20, 20, 40, 40],
        "score": 0.5,
        "image_wh": [200, 100],
    }
    back = read_results(path, list(SIZES_WH))
    assert back.image_ids == FOUND.image_ids
    for name in ("image", "class_id", "score"):
        np.testing.assert_array_equal(getattr(back, name), getattr(FOUND, name))
    np.testing.assert_allclose(back.xyxy, FOUND.xyxy, atol=1e-6)
    assert read_results(path, ["b"]).score.tolist() == [0.875]


def test_no_detections_are_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    nothing = FOUND.where(np.zeros(3, dtype=np.bool_))
    write_results(path, nothing, SIZES_WH)
    assert json.loads(path.read_text()) == []
    assert len(read_results(path, list(SIZES_WH))) == 0
