"""Charts for pages: what they draw from metrics.csv and evaluation.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from oiyolo.charts import interactive

if TYPE_CHECKING:
    from pathlib import Path

METRICS = """iteration,loss,rate,iou,map,valid_map50,train_map50,valid_loss
1,200.0,0.001,0.3,,,,
2,20.0,0.001,,,,,
3,2.0,0.001,0.5,,0.25,,
"""


def test_each_chart_has_the_points_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    (tmp_path / "loss.png").touch()
    charts = {c.name: c for c in interactive.training_charts(tmp_path / "metrics.csv", tmp_path)}
    assert list(charts) == ["loss", "iou", "map", "rate"]
    assert charts["loss"].is_log
    assert charts["loss"].picture == tmp_path / "loss.png"
    assert charts["iou"].picture is None
    assert charts["iou"].series[0].x.tolist() == [1, 3]
    (scores,) = charts["map"].series
    assert (scores.name, scores.y.tolist()) == ("validation images", [0.25])


def test_a_run_without_metrics_has_no_charts(tmp_path: Path) -> None:
    assert interactive.training_charts(tmp_path / "metrics.csv", tmp_path) == []
    (tmp_path / "metrics.csv").write_text(METRICS.partition("\n")[0] + "\n")
    assert interactive.training_charts(tmp_path / "metrics.csv", tmp_path) == []


def test_the_items_of_the_library_are_json_and_name_their_figure(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    curve = {"score": [0.9, 0.5], "precision": [1.0, 0.8], "recall": [0.2, 0.9]}
    name = "</script><b>"
    recall = interactive.precision_recall_chart({name: curve, "Oar": {key: [] for key in curve}})
    assert recall is not None
    assert [series.name for series in recall.series] == [name]
    charts = [*interactive.training_charts(tmp_path / "metrics.csv", tmp_path), recall]
    items = interactive.to_json(charts)
    assert json.loads(json.dumps(items)).keys() == {"loss", "iou", "map", "rate", "pr"}
    assert items["loss"]["target_id"] == "chart-loss"
    assert interactive.precision_recall_chart({}) is None
    library, _ = interactive.scripts(charts)
    assert len(library) > 100_000
