"""The verdict of a report: each sentence follows from the figures."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.slices import SliceScore
from oiyolo.evaluation.summary import evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth
from oiyolo.stages.report.verdict import HEADINGS, TrainingFacts, judge

if TYPE_CHECKING:
    from oiyolo.evaluation.summary import Evaluation
    from oiyolo.stages.report.verdict import Level

NAMES = ["Boat", "Oar"]
DONE = TrainingFacts(images=5_000, is_finished=True)


def evaluation(
    images: int, found: float, *, wrong: int = 0, names: list[str] = NAMES
) -> Evaluation:
    """Return the scores of a detector that finds a share of one box per image and class."""
    ids = tuple(f"{number:016x}" for number in range(images))
    classes = len(names)
    image, class_id = np.repeat(np.arange(images), classes), np.tile(np.arange(classes), images)
    boxes = np.stack([[0.1 + 0.4 * c, 0.1, 0.4 + 0.4 * c, 0.4] for c in class_id])
    truth = GroundTruth(ids, image, class_id, boxes, np.zeros(len(image), dtype=np.bool_))
    is_found = np.arange(len(image)) < round(found * len(image))
    extra = np.arange(wrong) % images
    detections = Detections(
        ids,
        np.concatenate([image[is_found], extra]),
        np.concatenate([class_id[is_found], np.zeros(wrong, dtype=np.int64)]),
        np.concatenate([np.full(int(is_found.sum()), 0.9), np.full(wrong, 0.8)]),
        np.concatenate([boxes[is_found], np.tile([0.7, 0.7, 0.9, 0.9], (wrong, 1))]),
    )
    return evaluate_detections(detections, truth, names, [0.5] * classes)


@pytest.mark.parametrize(
    ("images", "found", "level"),
    [(400, 1.0, "good"), (400, 0.6, "usable"), (400, 0.3, "weak"), (400, 0.1, "unusable"),
     (12, 0.75, "weak")],
)  # fmt: skip
def test_the_level_follows_from_the_lower_bound_of_the_interval(
    images: int, found: float, level: Level
) -> None:
    verdict = judge(evaluation(images, found), DONE)
    assert (verdict.level, verdict.heading) == (level, HEADINGS[level])
    assert f"{images} images" in verdict.reasons[0]


def test_the_summary_counts_in_tenths_or_hundredths() -> None:
    one = ["Boat"]
    summary = judge(evaluation(100, 0.9, names=one), DONE).summary
    assert summary == (
        "Finds about 9 in 10 objects of the class Boat; none of its 90 detections is wrong."
    )
    assert judge(evaluation(100, 0.02, names=one), DONE).summary.startswith(
        "Finds about 2 in 100 objects"
    )
    assert judge(evaluation(400, 0.998, names=one), DONE).summary.startswith(
        "Finds 399 of the 400 objects"
    )
    wrong = judge(evaluation(50, 1.0, wrong=10), DONE).summary
    assert wrong == "Finds all 100 objects; about 1 in 10 detections is wrong."


@pytest.mark.parametrize(
    ("images", "found", "wrong", "summary"),
    [
        (3, 1.0, 0, "Finds all 3 objects of the class Boat; none of its 3 detections is wrong."),
        (3, 0.67, 1, "Finds 2 of the 3 objects of the class Boat; 1 of its 3 detections is wrong."),
        (2, 0.0, 2, ("Finds none of the 2 objects of the class Boat; all its 2 detections are "
          "wrong.")),
        (3, 0.0, 1, "Finds none of the 3 objects of the class Boat; its only detection is wrong."),
        (1, 1.0, 0, "Finds the only object of the class Boat; its only detection is right."),
        (1, 0.0, 0, "Misses the only object of the class Boat."),
        (20, 0.5, 10, ("Finds about 5 in 10 objects of the class Boat; about 5 in 10 detections "
          "are wrong.")),
    ],
)  # fmt: skip
def test_the_summary_of_few_objects_gives_their_numbers(
    images: int, found: float, wrong: int, summary: str
) -> None:
    scores = evaluation(images, found, wrong=wrong, names=["Boat"])
    assert judge(scores, DONE).summary == summary


def test_nothing_is_said_without_scores() -> None:
    without_boxes = dataclasses.replace(evaluation(3, 0.5), map50=math.nan)
    for scores in (None, without_boxes):
        verdict = judge(scores, DONE)
        assert (verdict.level, verdict.reasons, verdict.advice) == ("unknown", (), ())


def test_parts_and_classes_that_are_missed_are_named() -> None:
    scores = dataclasses.replace(
        evaluation(100, 0.9),
        by_size={"small": SliceScore(20, 0.1, 0.1), "large": SliceScore(3, 0.0, 0.0)},
        by_attribute={"group_of": SliceScore(9, math.nan, 0.2)},
    )
    weak = dataclasses.replace(scores.classes[1], map50=0.2)
    scores = dataclasses.replace(scores, classes=(scores.classes[0], weak))
    verdict = judge(scores, DONE)
    assert "small ones are often missed" in verdict.summary
    assert "large" not in verdict.summary  # too few boxes to judge
    text = " ".join(verdict.reasons)
    assert "Weaker than the others: Oar (0.20)." in text
    assert "Of 9 group-of boxes, 20% are found." in text
    assert any("images" in line and "size" in line for line in verdict.advice)


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        (TrainingFacts(images=69), "trained on 69"),
        (TrainingFacts(images=5_000, trend="falling"), "Train longer"),
        (TrainingFacts(images=5_000, trend="overfitting"), "overfits"),
        (
            TrainingFacts(images=5_000, is_finished=False, trend="falling"),
            "the command that started it",
        ),
    ],
)
def test_advice_follows_from_the_training(training: TrainingFacts, advice: str) -> None:
    lines = judge(evaluation(400, 0.5), training).advice
    assert len(lines) == 1
    assert advice in lines[0]
    assert judge(evaluation(400, 0.5), DONE).advice == ()


def test_the_gain_of_training_is_told_from_chance() -> None:
    scores = evaluation(400, 0.8)
    gained = judge(scores, DONE, {"map50": 0.5, "low": 0.2, "high": 0.4}).reasons
    chance = judge(scores, DONE, {"map50": 0.79, "low": -0.02, "high": 0.04}).reasons
    assert any("Training gained" in line for line in gained)
    assert any("may be chance" in line for line in chance)


def test_scores_on_valid_that_flatter_are_named() -> None:
    training = dataclasses.replace(DONE, best_valid_map50=0.99)
    assert any("flatters" in line for line in judge(evaluation(400, 0.5), training).reasons)
