"""The rules of the Open Images metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.openimages_metric import openimages_average_precision
from oiyolo.evaluation.tables import verification

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


BOX = (0.1, 0.1, 0.5, 0.5)
FAR = (0.6, 0.6, 0.9, 0.9)
WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("present", "absent", "expected"),
    [
        ((), (("b", 0),), 0.5),  # absent in b: a false positive with the highest score
        ((("b", 0),), (), 0.5),  # present in b, but without a box: a false positive too
        ((), (), 1.0),  # not verified in b: ignored
    ],
)
def test_detections_of_unverified_classes_are_ignored(
    tables: Tables,
    present: tuple[tuple[str, int], ...],
    absent: tuple[tuple[str, int], ...],
    expected: float,
) -> None:
    detections, truth = tables(
        [("b", 0, 0.9, FAR), ("a", 0, 0.8, BOX)],
        [("a", 0, BOX, False)],
        verified=verification("ab", 1, present=present, absent=absent),
    )
    assert openimages_average_precision(detections, truth, 1) == pytest.approx([expected])


def test_without_verification_every_detection_counts(tables: Tables) -> None:
    detections, truth = tables([("b", 0, 0.9, FAR), ("a", 0, 0.8, BOX)], [("a", 0, BOX, False)])
    assert openimages_average_precision(detections, truth, 1) == pytest.approx([0.5])


def test_group_of_boxes_and_detections_inside_them_are_ignored(tables: Tables) -> None:
    detections, truth = tables(
        [("b", 0, 0.9, FAR), ("b", 0, 0.85, BOX), ("a", 0, 0.8, BOX)],
        [("a", 0, BOX, False), ("b", 0, WHOLE, True), ("a", 1, WHOLE, True)],
    )
    result = openimages_average_precision(detections, truth, 2)
    assert result[0] == pytest.approx(1)
    assert np.isnan(result[1])  # no boxes except a group-of box


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_agrees_with_a_box_by_box_implementation(
    random_tables: RandomTables, seed: int
) -> None:
    detections, truth = random_tables(seed, images=20, group_of=0.2)
    result = openimages_average_precision(detections, truth, 3)
    for class_id in range(3):
        rows: list[tuple[float, bool]] = []
        for image in range(20):
            of_class = np.flatnonzero(
                (detections.image == image) & (detections.class_id == class_id)
            )
            there = np.flatnonzero((truth.image == image) & (truth.class_id == class_id))
            single = [truth.xyxy[t].tolist() for t in there if not truth.is_region[t]]
            groups = [truth.xyxy[t].tolist() for t in there if truth.is_region[t]]
            free = [True] * len(single)
            for row in sorted(of_class.tolist(), key=lambda r: -detections.score[r]):
                box, score = detections.xyxy[row].tolist(), float(detections.score[row])
                overlaps = [shared(box, t) / (size(box) + size(t) - shared(box, t)) for t in single]
                best = int(np.argmax(overlaps)) if overlaps else -1
                if best >= 0 and overlaps[best] >= 0.5 and free[best]:
                    free[best] = False
                    rows.append((score, True))
                elif not any(shared(box, g) >= 0.5 * size(box) > 0 for g in groups):
                    rows.append((score, False))
        box_count = int(((truth.class_id == class_id) & ~truth.is_region).sum())
        rows.sort(reverse=True)
        true_positives = np.cumsum([hit for _, hit in rows])
        precision = true_positives / np.arange(1, len(rows) + 1)
        expected = sum(
            float(precision[index:].max()) / box_count for index, (_, hit) in enumerate(rows) if hit
        )
        assert result[class_id] == pytest.approx(expected)


def size(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
