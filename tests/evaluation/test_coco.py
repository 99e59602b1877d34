"""COCO's average precision, and its agreement with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.average_precision import average_precision, class_curve
from oiyolo.evaluation.coco import coco_precision
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.tables import GroundTruth

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import Detections

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


BOX = (0.1, 0.1, 0.5, 0.5)


def test_perfect_detections_score_one_and_nothing_is_printed(
    tables: Tables, capfd: pytest.CaptureFixture[str]
) -> None:
    detections, truth = tables([("a", 0, 0.3, BOX)], [("a", 0, BOX, False)])
    precision = coco_precision(detections, truth, class_count=2)
    assert precision.shape == (10, 101, 2)
    assert precision[..., 0] == pytest.approx(1)
    assert np.isnan(precision[..., 1]).all()
    assert capfd.readouterr() == ("", "")


def test_a_loose_box_matches_only_at_low_iou_thresholds(tables: Tables) -> None:
    # IoU 0.72: thresholds 0.50 to 0.70, five of ten.
    detections, truth = tables([("a", 0, 0.9, (0, 0, 0.72, 1))], [("a", 0, (0, 0, 1, 1), False)])
    by_threshold = coco_precision(detections, truth, 1).mean(axis=(1, 2))
    assert by_threshold == pytest.approx([1] * 5 + [0] * 5)


def test_detections_in_a_crowd_are_ignored(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, (0.6, 0.6, 0.8, 0.8)), ("a", 0, 0.8, BOX)],
        [("a", 0, BOX, False), ("a", 0, (0.55, 0.55, 1, 1), True)],
    )
    assert coco_precision(detections, truth, 1) == pytest.approx(1)


def test_scores_without_detections_or_without_true_boxes(tables: Tables) -> None:
    detections, truth = tables([], [("a", 0, BOX, False)])
    assert not coco_precision(detections, truth, 1).any()
    detections, truth = tables([("a", 0, 0.9, BOX)], [])
    assert np.isnan(coco_precision(detections, truth, 1)).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("group_of", [0.0, 0.2])
def test_our_average_precision_agrees_except_for_the_sampling(
    random_tables: RandomTables, seed: int, group_of: float
) -> None:
    detections, truth = random_tables(seed, images=60, group_of=group_of)
    # With one box of a class in an image, COCO's rules cannot match the box of second choice.
    first = np.unique(truth.image * 3 + truth.class_id, return_index=True)[1]
    truth = GroundTruth(
        truth.image_ids,
        truth.image[first],
        truth.class_id[first],
        truth.xyxy[first],
        truth.is_region[first],
    )
    theirs = coco_precision(detections, truth, 3)[0].mean(axis=0)
    matches = match(detections, truth)
    for class_id in range(3):
        curve, box_count = class_curve(matches, detections, truth, class_id)
        # Samples are 0.01 of recall apart, so each step may be off by one sample.
        assert average_precision(curve, box_count) == pytest.approx(theirs[class_id], abs=0.01)
        recalls = np.linspace(0, 1, 101)
        envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
        sampled = envelope[np.searchsorted(curve.recall, recalls, side="left")].mean()
        assert sampled == pytest.approx(theirs[class_id], abs=1e-9)
