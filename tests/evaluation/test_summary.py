"""The evaluation of a detector, its JSON file and its chart."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import oiyolo
from oiyolo.evaluation.error_costs import KINDS
from oiyolo.evaluation.plots import plot_precision_recall
from oiyolo.evaluation.summary import Evaluation, evaluate_detections
from oiyolo.evaluation.tables import Detections, verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.evaluation.tables import GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]


BOX = (0.1, 0.1, 0.5, 0.5)
FAR = (0.6, 0.6, 0.9, 0.9)
NEAR = (0.1, 0.1, 0.4, 0.5)  # IoU 0.75 with BOX


def boats(tables: Tables) -> Evaluation:
    detections, truth = tables(
        [
            ("a", 0, 0.9, BOX),
            ("a", 0, 0.8, FAR),  # false positive
            ("b", 0, 0.7, NEAR),
            ("b", 0, 0.2, FAR),  # false positive, below the best threshold
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


def test_an_evaluation_equals_a_hand_calculation(tables: Tables) -> None:
    evaluation = boats(tables)
    boat, canoe, oar = evaluation.classes
    # Two of three boxes are matched, at precision 1 and 2/3.
    assert boat.map50 == pytest.approx((1 + 2 / 3) / 3)
    assert (boat.images, boat.boxes, boat.group_of_boxes, boat.detections) == (3, 3, 1, 4)
    assert boat.score_threshold == 0.7
    assert (boat.true_positives, boat.false_positives, boat.false_negatives) == (2, 1, 1)
    assert (boat.precision, boat.recall, boat.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert boat.average_iou == pytest.approx((1 + 0.75) / 2)
    # At IoU 0.50 to 0.75 both detections match, at 0.80 to 0.95 only the first; 34 of the 101
    # recalls lie below 1/3, 33 more below 2/3.
    both, one = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert boat.map50_95 == pytest.approx((6 * both + 4 * one) / 10)
    assert (canoe.map50, canoe.recall, canoe.false_negatives) == (0, 0, 1)
    assert math.isnan(canoe.precision)
    assert math.isnan(canoe.score_threshold)
    assert math.isnan(oar.map50)
    assert (oar.boxes, oar.detections, oar.false_positives, oar.false_negatives) == (0, 1, 0, 0)
    assert evaluation.map50 == pytest.approx(boat.map50 / 2)
    assert (evaluation.images, evaluation.boxes, evaluation.detections) == (4, 4, 5)


def test_the_json_has_the_documented_keys_and_can_be_read_again(tables: Tables) -> None:
    evaluation = boats(tables)
    value = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert {"map50", "map50_95", "openimages_map", "images", "boxes", "classes"} <= value.keys()
    assert {"map50_interval", "map50_95_interval", "openimages_map_interval"} <= value.keys()
    assert list(value["errors"]) == list(KINDS)
    assert list(value["classes"]) == ["Boat", "Canoe", "<b>Oar</b>"]
    assert value["classes"]["<b>Oar</b>"]["map50"] is None
    assert value["classes"]["Boat"]["curve"]["recall"] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    value["unknown_key"] = 1
    again = Evaluation.from_json(value)
    assert str(again) == str(evaluation)
    assert again.to_json() == evaluation.to_json()


ADDED = ("errors", "by_size", "by_attribute", "confusion")


def as_older_version(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of an ``evaluation.json`` as older versions wrote it."""
    value = evaluation.to_json()
    for name in [name for name in value if "interval" in name or name in ADDED]:
        del value[name]
    for row in value["classes"].values():
        row["misses"] = row.pop("false_negatives")
        del row["map50_interval"]
    return value


def test_a_file_of_an_older_version_is_read(tables: Tables) -> None:
    evaluation = boats(tables)
    again = Evaluation.from_json(as_older_version(evaluation)).to_json()
    assert again["map50"] == evaluation.map50
    assert again["map50_interval"] is None
    assert again["errors"] == {}
    assert again["classes"]["Boat"]["map50_interval"] is None


@pytest.mark.parametrize("bounds", [[0.5], [0.1, 0.2, 0.3], "0.5", [None, 0.5]])
@pytest.mark.parametrize("in_class", [True, False])
def test_an_interval_of_another_form_is_rejected(
    tables: Tables, bounds: object, in_class: bool
) -> None:
    value = boats(tables).to_json()
    (value["classes"]["Boat"] if in_class else value)["map50_interval"] = bounds
    with pytest.raises(ValueError, match="map50_interval"):
        Evaluation.from_json(value)


def test_a_report_shows_an_evaluation_of_an_older_version(tables: Tables, tmp_path: Path) -> None:
    oiyolo.init(tmp_path, classes=["Boat"])
    run = tmp_path / "runs" / "yolov3-001"
    run.mkdir(parents=True)
    record = {
        "network": "yolov3",
        "max_batches": 4000,
        "state": "finished",
        "seconds": 60.0,
        "command": ["darknet", "detector", "train"],
        "ended_at": "2026-01-01T00:00:00+00:00",
        "darknet": {"fork": "hank", "gpu": True},
    }
    (run / "run.json").write_text(json.dumps(record))
    older = {"split": "valid", "weights": "final.weights", **as_older_version(boats(tables))}
    (run / "evaluation.json").write_text(json.dumps(older))
    (run / "panels").mkdir()
    (run / "panels" / "worst.png").write_bytes(b"a picture")
    part = run / ".report.html.99999999-1.part"
    part.write_bytes(b"half")
    oiyolo.report(tmp_path)
    assert not part.exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'alt="worst of detections on images of the valid split"' in page
    assert "<code>final.weights</code>" in page
    header, boat = (re.findall(r"<(?:td|th)\b.*?>(.*?)</", row) for row in table_rows(page))
    assert dict(zip(header, boat, strict=True)).items() >= {
        ("class", "Boat"),
        ("true positives", "2"),
        ("false negatives", "1"),
        ("false positives", "1"),
    }


def table_rows(page: str) -> tuple[str, str]:
    """Return the header and the first row of the table of classes."""
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    return rows[0], rows[1]


def test_an_evaluation_is_printed_as_a_table_and_as_html(tables: Tables) -> None:
    evaluation = boats(tables)
    lines = str(evaluation).splitlines()
    assert lines[3] == "on 4 images with 4 boxes"
    scores, counts = (
        next(i for i, t in enumerate(lines) if t.startswith("class") and h in t)
        for h in ("Open I", "TP")
    )
    for first in (scores, counts):
        assert len({len(line) for line in lines[first : first + 4]}) == 1
    assert lines[counts].split() == [
        *("class", "threshold", "TP", "FP", "FN"),
        *("precision", "recall", "F1", "IoU"),
    ]
    assert "nan" not in str(evaluation)
    assert "&lt;b&gt;Oar" in evaluation._repr_html_()
    assert "<b>" not in evaluation._repr_html_()


def test_a_printed_evaluation_fits_a_terminal_of_80_columns(tables: Tables) -> None:
    evaluation = boats(tables)
    name = "Kitchen & dining room table of another name"
    row = replace(evaluation.classes[0], name=name, boxes=1_234_567, true_positives=1_234_567)
    text = str(replace(evaluation, classes=(row, *evaluation.classes)))
    assert max(map(len, text.splitlines())) <= 80


def test_perfect_detections_have_a_score_of_one(random_tables: RandomTables) -> None:
    _, truth = random_tables(1, group_of=0.1)
    single = ~truth.is_region
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
    assert all(row.f1 == 1 and not row.false_negatives for row in evaluation.classes)


def test_class_ids_beyond_the_names_are_rejected(tables: Tables) -> None:
    detections, truth = tables([("a", 1, 0.5, BOX)], [])
    with pytest.raises(ValueError, match="class id 1"):
        evaluate_detections(detections, truth, ["Boat"])


def test_an_evaluation_without_images_is_undefined(tables: Tables) -> None:
    evaluation = evaluate_detections(*tables([], [], images=""), ["Boat"])
    assert math.isnan(evaluation.map50)
    assert evaluation.to_json()["map50"] is None
    plot_precision_recall(evaluation)


def test_the_chart_has_a_legend_of_classes_and_marks_the_threshold(tables: Tables) -> None:
    axes = plot_precision_recall(boats(tables))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Boat: 0.556"]
    dot = axes.lines[1]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((2 / 3, 2 / 3))  # type: ignore[index]
    assert plot_precision_recall(boats(tables), ax=axes) is axes
