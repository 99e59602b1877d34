"""The evaluation as a whole, its file and its chart."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.evaluation.plots import plot_precision_recall
from oiyolo.evaluation.summary import Evaluation, evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth, verification

if TYPE_CHECKING:
    from collections.abc import Callable

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


BOX = (0.1, 0.1, 0.5, 0.5)
FAR = (0.6, 0.6, 0.9, 0.9)
NEAR = (0.1, 0.1, 0.4, 0.5)  # IoU 0.75 with BOX


def boats(tables: Tables) -> Evaluation:
    detections, truth = tables(
        [
            ("a", 0, 0.9, BOX),
            ("a", 0, 0.8, FAR),  # false alarm
            ("b", 0, 0.7, NEAR),
            ("b", 0, 0.2, FAR),  # false alarm, below the best threshold
            ("b", 2, 0.6, FAR),  # a class without boxes
        ],
        [
            ("a", 0, BOX, False),
            ("b", 0, BOX, False),
            ("c", 0, BOX, False),
            ("c", 0, FAR, True),
            ("c", 1, FAR, False),
        ],
        images="abcd",
        verified=verification("abcd", 3),
    )
    return evaluate_detections(detections, truth, ["Boat", "Canoe", "<b>Oar</b>"])


def test_by_hand(tables: Tables) -> None:
    evaluation = boats(tables)
    boat, canoe, oar = evaluation.classes
    # Found at precision 1 and 2/3, of three boxes.
    assert boat.map50 == pytest.approx((1 + 2 / 3) / 3)
    assert (boat.images, boat.boxes, boat.group_of_boxes, boat.detections) == (3, 3, 1, 4)
    assert boat.score_threshold == 0.7
    assert (boat.true_positives, boat.false_positives, boat.misses) == (2, 1, 1)
    assert (boat.precision, boat.recall, boat.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert boat.average_iou == pytest.approx((1 + 0.75) / 2)
    # IoU thresholds 0.50 to 0.75 find both boxes, 0.80 to 0.95 only the first; 34 of the 101
    # recalls lie up to 1/3, 33 more up to 2/3.
    both, one = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert boat.map50_95 == pytest.approx((6 * both + 4 * one) / 10)
    assert (canoe.map50, canoe.recall, canoe.misses) == (0, 0, 1)
    assert math.isnan(canoe.precision)
    assert math.isnan(canoe.score_threshold)
    assert math.isnan(oar.map50)
    assert (oar.boxes, oar.detections, oar.false_positives, oar.misses) == (0, 1, 0, 0)
    assert evaluation.map50 == pytest.approx(boat.map50 / 2)
    assert (evaluation.images, evaluation.boxes, evaluation.detections) == (4, 4, 5)


def test_json_has_the_agreed_keys_and_comes_back(tables: Tables) -> None:
    evaluation = boats(tables)
    value = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert {"map50", "map50_95", "openimages_map", "images", "boxes", "classes"} <= value.keys()
    assert list(value["classes"]) == ["Boat", "Canoe", "<b>Oar</b>"]
    assert value["classes"]["<b>Oar</b>"]["map50"] is None
    assert value["classes"]["Boat"]["curve"]["recall"] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    value["added_by_others"] = 1
    again = Evaluation.from_json(value)
    assert str(again) == str(evaluation)
    assert again.to_json() == evaluation.to_json()


def test_shown_as_a_table_and_as_html(tables: Tables) -> None:
    evaluation = boats(tables)
    lines = str(evaluation).splitlines()
    assert lines[0].endswith("on 4 images with 4 boxes")
    assert len({len(line) for line in lines[2:]}) == 1
    assert "nan" not in str(evaluation)
    assert "&lt;b&gt;Oar" in evaluation._repr_html_()
    assert "<b>" not in evaluation._repr_html_()


def test_perfect_detections_score_one_everywhere(random_tables: RandomTables) -> None:
    _, truth = random_tables(1, group_of=0.1)
    single = ~truth.group_of
    detections = Detections(
        truth.image_ids,
        truth.image[single],
        truth.class_id[single],
        np.full(single.sum(), 0.5),
        truth.xyxy[single],
    )
    evaluation = evaluate_detections(detections, truth, ["x", "y", "z"])
    figures = (evaluation.map50, evaluation.map50_95, evaluation.openimages_map)
    assert figures == pytest.approx((1, 1, 1))
    assert all(row.f1 == 1 and not row.misses for row in evaluation.classes)


def test_images_in_another_order_change_nothing(random_tables: RandomTables) -> None:
    detections, truth = random_tables(2, group_of=0.1)
    turned = detections.over(tuple(reversed(truth.image_ids)))
    names = ["x", "y", "z"]
    before = evaluate_detections(detections, truth, names)
    assert evaluate_detections(turned, truth, names).to_json() == before.to_json()


def test_input_that_does_not_fit_is_refused(tables: Tables) -> None:
    detections, truth = tables([("a", 1, 0.5, BOX)], [])
    with pytest.raises(ValueError, match="class 1 of 1 classes"):
        evaluate_detections(detections, truth, ["Boat"])
    elsewhere = Detections(("z",), detections.image, detections.class_id, np.ones(1), [BOX])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'z'"):
        evaluate_detections(elsewhere, truth, ["Boat", "Canoe"])


def test_nothing_at_all() -> None:
    truth = GroundTruth.from_rows([], box_image_ids=[], class_id=[], xyxy=[])
    evaluation = evaluate_detections(Detections.none(), truth, ["Boat"])
    assert math.isnan(evaluation.map50)
    assert evaluation.to_json()["map50"] is None
    plot_precision_recall(evaluation)


def test_the_chart_names_classes_and_marks_the_threshold(tables: Tables) -> None:
    axes = plot_precision_recall(boats(tables))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Boat: 0.556"]
    dot = axes.lines[1]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((2 / 3, 2 / 3))  # type: ignore[index]
    assert plot_precision_recall(boats(tables), ax=axes) is axes


def test_a_hundred_thousand_detections_take_seconds(random_tables: RandomTables) -> None:
    detections, truth = random_tables(0, images=14_000, classes=3)
    assert len(detections) > 100_000
    started = time.perf_counter()
    evaluate_detections(detections, truth, ["x", "y", "z"])
    # A generous bound, so that a busy machine does not fail it.
    assert time.perf_counter() - started < 60
