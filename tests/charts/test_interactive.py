"""Charts for pages: what they draw from metrics.csv and evaluation.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(4, 50))
def test_a_thinned_line_keeps_its_extremes_and_order(values: list[float], limit: int) -> None:
    x, y = np.arange(len(values), dtype=float), np.array(values)
    kept_x, kept_y = interactive.downsample(x, y, limit)
    assert len(kept_x) <= max(limit, 2)
    assert (kept_y.min(), kept_y.max()) == (y.min(), y.max())
    assert (np.diff(kept_x) > 0).all()
    np.testing.assert_array_equal(y[kept_x.astype(int)], kept_y)
