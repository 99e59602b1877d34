"""Suppression of repeated boxes, compared with plain loops like darknet's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.inference.suppression import nms_rule, suppress
from oiyolo.networks import cfg as cfgs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.inference.facts import NmsKind

    Doubles = npt.NDArray[np.float64]
    Box = Sequence[np.float32]

F = np.float32


def iou_by_loops(a: Box, b: Box) -> np.float32:
    """Return darknet's box_iou of two boxes of four C floats."""

    def overlap(x1: np.float32, w1: np.float32, x2: np.float32, w2: np.float32) -> np.float32:
        left = max(F(x1 - F(w1 / F(2))), F(x2 - F(w2 / F(2))))
        return F(min(F(x1 + F(w1 / F(2))), F(x2 + F(w2 / F(2)))) - left)

    w, h = overlap(a[0], a[2], b[0], b[2]), overlap(a[1], a[3], b[1], b[3])
    shared = F(0) if w < 0 or h < 0 else F(w * h)
    union = F(F(F(a[2] * a[3]) + F(b[2] * b[3])) - shared)
    return F(0) if shared == 0 or union == 0 else F(shared / union)


def diou_by_loops(a: Box, b: Box, beta: float) -> np.float32:
    """Return darknet's box_diounms of two boxes of four C floats."""
    squared = F(0)
    for axis in (0, 1):
        low = min(a[axis] - a[axis + 2] / F(2), b[axis] - b[axis + 2] / F(2))
        squared += (max(a[axis] + a[axis + 2] / F(2), b[axis] + b[axis + 2] / F(2)) - low) ** 2
    if squared == 0:
        return iou_by_loops(a, b)
    distance = F((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)
    return F(iou_by_loops(a, b) - F(float(distance / squared) ** beta))


def suppressed_by_loops(
    boxes: Doubles, scores: Doubles, threshold: float, limit: float, beta: float | None
) -> list[tuple[int, int, float]]:
    """Return (class, box, score) of each detection after darknet's do_nms_sort or diounms_sort."""
    classes = range(scores.shape[1])
    above = np.where(scores > F(threshold), scores, 0).astype(F)
    found = [([F(side) for side in box], list(above[row]), row) for row, box in enumerate(boxes)]
    for k in classes:
        found.sort(key=lambda each: -each[1][k])
        for place, (a, a_scores, _) in enumerate(found):
            if a_scores[k] == 0:
                continue
            for b, b_scores, _ in found[place + 1 :]:
                overlap = iou_by_loops(a, b) if beta is None else diou_by_loops(a, b, beta)
                if overlap > F(limit):
                    b_scores[k] = 0
    return sorted((k, row, float(s[k])) for _, s, row in found for k in classes if s[k])


def random_case(seed: int) -> tuple[Doubles, Doubles]:
    """Return boxes and scores: random ones, or with many ties and boxes that share their sides."""
    rng = np.random.default_rng(seed)
    count, class_count = int(rng.integers(0, 25)), int(rng.integers(1, 4))
    boxes = rng.random((count, 4))
    if seed % 2:
        centres, sizes = rng.integers(0, 8, (count, 2)), rng.integers(1, 5, (count, 2))
        boxes = np.concatenate((centres, sizes), axis=1) / 8
    scores = rng.random((count, class_count))
    if seed % 3:
        scores = rng.integers(0, 5, (count, class_count)) / 4
    return boxes, scores


@pytest.mark.parametrize("beta", [None, 0.6, 1.0])
def test_the_same_boxes_remain_as_in_darknet(beta: float | None) -> None:
    kind: NmsKind = "diou" if beta else "greedy"
    for seed in range(42):
        boxes, scores = random_case(seed)
        kept = suppress(boxes, scores, threshold=0.2, nms_iou=0.4, kind=kind, beta=beta or 0)
        expected = suppressed_by_loops(boxes, scores, 0.2, 0.4, beta)
        found = zip(kept.class_id, map(tuple, kept.cxcywh), kept.confidence, strict=True)
        assert sorted(found) == sorted((k, tuple(boxes[row]), s) for k, row, s in expected), seed


def test_detections_are_sorted_by_falling_confidence() -> None:
    boxes, scores = random_case(6)
    kept = suppress(boxes, scores, threshold=0.2, nms_iou=0.4)
    assert len(kept.confidence) > 3
    assert np.all(np.diff(kept.confidence) <= 0)
    assert [kept.class_id.dtype, kept.confidence.dtype, kept.cxcywh.dtype] == ["i8", "f8", "f8"]


def test_a_box_is_returned_under_each_class_above_the_threshold() -> None:
    box = np.array([[0.5, 0.5, 0.2, 0.2]], F)
    kept = suppress(box, np.array([[0.3, 0.25, 0.9]], F), threshold=0.25, nms_iou=0.45)
    assert kept.class_id.tolist() == [2, 0]
    assert np.array_equal(kept.cxcywh, np.repeat(box, 2, axis=0))


def test_ties_are_visited_in_the_order_of_the_previous_class() -> None:
    """Both boxes have the same score in class 1; the second comes first in class 0."""
    boxes = np.array([[0.5, 0.5, 0.4, 0.4], [0.52, 0.5, 0.4, 0.4]])
    scores = np.array([[0.3, 0.8], [0.6, 0.8]])
    kept = suppress(boxes, scores, threshold=0.2, nms_iou=0.45)
    assert kept.cxcywh[:, 0].tolist() == [0.52, 0.52]
    kept = suppress(boxes, scores[:, 1:], threshold=0.2, nms_iou=0.45)
    assert kept.cxcywh[:, 0].tolist() == [0.5]


def test_a_removed_box_removes_none() -> None:
    """A removes B, so C, which only B overlaps, remains."""
    boxes = np.array([[0.3, 0.5, 0.2, 0.2], [0.36, 0.5, 0.2, 0.2], [0.42, 0.5, 0.2, 0.2]])
    scores = np.array([[0.9], [0.8], [0.7]])
    kept = suppress(boxes, scores, threshold=0.2, nms_iou=0.45)
    assert kept.confidence.round(6).tolist() == [0.9, 0.7]


def test_a_limit_of_0_removes_nothing() -> None:
    boxes = np.full((3, 4), 0.5)
    kept = suppress(boxes, np.full((3, 1), 0.5), threshold=0.2, nms_iou=0)
    assert len(kept.class_id) == 3


def test_distances_are_measured_in_the_given_units() -> None:
    """Side by side in a wide image, the centres are further apart in relation to the diagonal."""
    boxes = np.array([[0.4, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]])
    scores = np.array([[0.9], [0.8]])
    counts = [
        len(suppress(boxes, scores, threshold=0, nms_iou=0.52, kind="diou", unit_wh=unit).class_id)
        for unit in ((1.0, 1.0), (1.0, 9.0))
    ]
    assert counts == [2, 1]


def test_more_boxes_than_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    boxes = np.concatenate((rng.random((300, 2)), rng.random((300, 2)) / 3), axis=1)
    scores = rng.random((300, 3))
    kept = suppress(boxes, scores, threshold=0.2, nms_iou=0.4)
    monkeypatch.setattr("oiyolo.inference.suppression._PAIRS_AT_ONCE", 500)
    again = suppress(boxes, scores, threshold=0.2, nms_iou=0.4)
    assert 0 < len(kept.class_id) < (scores > 0.2).sum()
    assert all(np.array_equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3)])
def test_nothing_to_report(shape: tuple[int, int]) -> None:
    kept = suppress(np.full((shape[0], 4), 0.5, F), np.zeros(shape, F), threshold=0, nms_iou=0.4)
    assert [len(part) for part in kept] == [0, 0, 0]
    assert kept.cxcywh.shape == (0, 4)


def test_values_that_are_not_numbers_are_never_reported() -> None:
    scores = np.array([[np.nan], [0.9]], F)
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [np.nan, 0.5, 0.2, 0.2]], F)
    assert len(suppress(boxes[:1], scores[:1], threshold=0.2, nms_iou=0.4).class_id) == 0


@pytest.mark.parametrize(
    ("options", "fork", "rule"),
    [
        ("", "alexeyab", ("greedy", 0.6)),
        ("nms_kind=greedynms\nbeta_nms=0.9\n", "alexeyab", ("diou", 0.6)),
        ("nms_kind=diounms\nbeta_nms=0.9\n", "", ("diou", 0.9)),
        ("nms_kind=cornersnms\n", "hank", ("greedy", 0.6)),
        ("nms_kind=greedynms\n", "pjreddie", ("greedy", 0.6)),
    ],
)
def test_the_rule_is_the_last_heads(options: str, fork: str, rule: tuple[str, float]) -> None:
    text = f"[net]\nwidth=32\nheight=32\n[yolo]\nnms_kind=diounms\n[yolo]\n{options}"
    assert nms_rule(cfgs.parse(text, path="n.cfg"), fork=fork) == rule
