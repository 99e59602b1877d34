"""COCO's average precision, and its agreement with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.average_precision import average_precision, precision_recall
from oiyolo.evaluation.coco import coco_scores
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.tables import Detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.tables import GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


BOX = (0.1, 0.1, 0.5, 0.5)


def test_perfect_detections_score_one_and_nothing_is_printed(
    tables: Tables, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = coco_scores(*tables([("a", 0, 0.3, BOX)], [("a", 0, BOX, False)]), class_count=2)
    assert scores.map50_95 == pytest.approx(1)
    assert scores.map50 == pytest.approx(1)
    assert np.isnan(scores.class_map50_95).tolist() == [False, True]
    assert capfd.readouterr() == ("", "")


def test_a_loose_box_matches_only_at_low_iou_thresholds(tables: Tables) -> None:
    # IoU 0.72: thresholds 0.50 to 0.70, five of ten.
    detections, truth = tables([("a", 0, 0.9, (0, 0, 0.72, 1))], [("a", 0, (0, 0, 1, 1), False)])
    scores = coco_scores(detections, truth, 1)
    assert (scores.map50, scores.map50_95) == pytest.approx((1, 0.5))


def test_detections_in_a_crowd_are_ignored(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, (0.6, 0.6, 0.8, 0.8)), ("a", 0, 0.8, BOX)],
        [("a", 0, BOX, False), ("a", 0, (0.55, 0.55, 1, 1), True)],
    )
    assert coco_scores(detections, truth, 1).map50_95 == pytest.approx(1)


def test_scores_without_detections_or_without_true_boxes(tables: Tables) -> None:
    detections, truth = tables([], [("a", 0, BOX, False)])
    assert coco_scores(detections, truth, 1).map50_95 == 0
    detections, truth = tables([("a", 0, 0.9, BOX)], [])
    assert np.isnan(coco_scores(detections, truth, 1).map50_95)
    with pytest.raises(ValueError, match="same image_ids"):
        coco_scores(Detections.empty(["z"]), truth, 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("group_of", [0.0, 0.2])
def test_our_average_precision_agrees_except_for_the_sampling(
    random_tables: RandomTables, seed: int, group_of: float
) -> None:
    detections, truth = random_tables(seed, images=60, group_of=group_of)
    theirs = coco_scores(detections, truth, 3)
    matches = match(detections, truth, second_choice=True)
    for class_id in range(3):
        scored = (detections.class_id == class_id) & ~matches.ignored
        box_count = int((matches.counted & (truth.class_id == class_id)).sum())
        curve = precision_recall(detections.score[scored], matches.true_positive[scored], box_count)
        # Samples are 0.01 of recall apart, so each step may be off by one sample.
        assert average_precision(curve, box_count) == pytest.approx(
            theirs.class_map50[class_id], abs=0.01
        )
        recalls = np.linspace(0, 1, 101)
        envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
        sampled = envelope[np.searchsorted(curve.recall, recalls, side="left")].mean()
        assert sampled == pytest.approx(theirs.class_map50[class_id], abs=1e-9)
