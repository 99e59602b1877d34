"""The summary of a review: whose detections were compared, and what a damaged file says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.label_errors import summary
from oiyolo.label_errors.summary import Searched, SearchSummary
from oiyolo.pages.gallery import Item, Overlay

if TYPE_CHECKING:
    from pathlib import Path

PARTS = [
    Searched("train", "a", 1_200),
    Searched("train", "b", 1_100),
    Searched("valid", "c", 1),
    Searched("test", "c", 2),
]


def test_each_detector_is_named_with_the_images_that_it_judged() -> None:
    assert summary.describe(PARTS) == [
        "2,300 images of train, judged by a and b, each on the half that it has not seen",
        "3 images of valid and test, judged by c",
    ]
    assert summary.describe(PARTS[2:3]) == ["1 image of valid, judged by c"]
    assert summary.describe([]) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    overlays = [Overlay("old", "Boat", (0.1, 0.1, 0.5, 0.6))]
    item = Item("a" * 16, f"{'a' * 16}.jpg", (640, 480), "duplicate box", overlays)
    target = tmp_path / summary.NAME
    summary.write(target, SearchSummary(PARTS, [item]))
    return target


def test_a_summary_is_read_as_it_was_written(path: Path) -> None:
    found = summary.read(path)
    assert found.searched == PARTS
    (item,) = found.first
    assert (item.image_id, item.url, item.size_wh) == ("a" * 16, f"{'a' * 16}.jpg", (640, 480))
    assert item.overlays == [Overlay("old", "Boat", (0.1, 0.1, 0.5, 0.6))]
    assert summary.read(path.parent / "missing.json") == SearchSummary()


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "../../secret"},
        {"size_wh": [640]},
        {"size_wh": [640, 0]},
        {"caption": 3},
        {"boxes": [{"kind": "other", "label": "", "xyxy": [0, 0, 1, 1]}]},
        {"boxes": [{"kind": "old", "label": "", "xyxy": [0, 0, 1]}]},
        {"boxes": [{"kind": "old", "label": "", "xyxy": [0, 0, 1, 2]}]},
    ],
)
def test_a_damaged_summary_counts_as_none(path: Path, change: dict[str, Any]) -> None:
    content = json.loads(path.read_text())
    content["first"][0].update(change)
    path.write_text(json.dumps(content))
    assert summary.read(path) == SearchSummary()
