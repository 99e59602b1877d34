"""The page of a run: how it shows scores and their intervals."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.evaluation.summary import evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages.evaluate.compare import RunsCompared
from oiyolo.training.run import Run

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["Boat", "Canoe & kayak"]


def evaluation(images: int, missed: int) -> dict[str, Any]:
    """Return the scores of a detector that misses every box in some of the images."""
    ids = tuple(f"{number:016x}" for number in range(images))
    image = np.repeat(np.arange(images), 2)
    boxes = np.tile([[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]], (images, 1))
    class_id = np.tile([0, 1], images)
    truth = GroundTruth(ids, image, class_id, boxes, np.zeros(len(image), dtype=np.bool_))
    found = image >= missed
    score = np.full(int(found.sum()), 0.9)
    detections = Detections(ids, image[found], class_id[found], score, boxes[found])
    return evaluate_detections(detections, truth, NAMES).to_json()


def page_of(folder: Path, scores: dict[str, Any]) -> str:
    oiyolo.init(folder, classes=NAMES[:1])
    run = folder / "runs" / "tiny-001"
    run.mkdir(parents=True)
    record = {"state": "finished", "network": "tiny", "max_batches": 9, "darknet": {}}
    (run / "run.json").write_text(json.dumps(record))
    (run / "network.cfg").write_text("[net]\n")
    weights = {"path": "x.weights", "sha256": "0" * 64, "iteration": 9, "reason": "final"}
    (run / "evaluation.json").write_text(
        json.dumps({"split": "test", "weights": weights, **scores})
    )
    return oiyolo.report(folder).path.read_text(encoding="utf-8")


def scores_in(page: str) -> list[tuple[str, str]]:
    """Return what the page shows large, and the text below it."""
    return re.findall(r'<li class="score"><b>(.*?)</b><span>(.*?)</span>', page)


def percents(bounds: list[float]) -> str:
    return " to ".join(f"{bound:.1%}" for bound in bounds)


@pytest.mark.parametrize("images", [20, 400])
def test_the_interval_comes_first_if_there_are_few_images(tmp_path: Path, images: int) -> None:
    scores = evaluation(images, images // 10)
    page = page_of(tmp_path, scores)
    interval, estimate = percents(scores["map50_interval"]), f"{scores['map50']:.1%}"
    large, below = scores_in(page)[0]
    is_small = images < 100
    assert large == (interval if is_small else estimate)
    assert (estimate if is_small else interval) in below
    assert ("60 more images" in page) == is_small
    assert len(scores_in(page)) == 4
    for name, row in scores["classes"].items():
        cells = f"<td>{row['map50']:.1%}</td><td>{percents(row['map50_interval'])}</td>"
        heading = f'<th scope="row" class="text">{name.replace("&", "&amp;")}</th>'
        assert f"<tr>{heading}{cells}" in page


def test_a_score_without_an_interval_is_shown_alone(tmp_path: Path) -> None:
    scores = evaluation(1, 0)
    assert scores["map50_interval"] is None
    page = page_of(tmp_path, scores)
    assert scores_in(page)[0][0] == "100.0%"
    assert "interval" not in scores_in(page)[0][1]
    assert "<td>100.0%</td><td>–</td>" in page  # noqa: RUF001  (an en dash)


def test_scores_that_are_all_alike_promise_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, evaluation(20, 0))
    assert scores_in(page)[0][0] == "100.0% to 100.0%"
    assert "more images" not in page


def test_the_report_links_to_the_detector_or_contains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path, evaluation(30, 5))
    assert "Try it" not in page
    folder = tmp_path / "runs" / "tiny-001"
    with pytest.raises(UsageError) as caught:
        oiyolo.report(tmp_path, with_detector=True)
    assert "export web" in caught.value.remedy
    path = folder / "export" / "tiny-001.html"
    path.parent.mkdir()
    path.write_text('<script>"\u0100&" < 1</script>', encoding="utf-8")
    assert oiyolo.report(tmp_path, dry_run=True).actions
    assert 'href="export/tiny-001.html"' in oiyolo.report(tmp_path).path.read_text("utf-8")
    made = oiyolo.report(tmp_path, with_detector=True).path.read_text("utf-8")
    embedded = re.search(r'srcdoc="([^"]*)"', made)
    assert embedded is not None
    assert html.unescape(embedded[1]) == path.read_text("utf-8")
    assert not oiyolo.report(tmp_path, with_detector=True, dry_run=True).actions
    monkeypatch.setattr("oiyolo.stages.report._MAX_DETECTOR_BYTES", 10)
    with pytest.raises(UsageError):
        oiyolo.report(tmp_path, with_detector=True)


@pytest.mark.parametrize(
    "options",
    [
        {"runs": ["a", "b", "c"]},
        {"runs": "a", "run": "b"},
        {"runs": ["a", "b"], "follow": True},
        {"runs": ["a", "b"], "with_detector": True},
        {"every_s": 5.0},
        {"follow": True, "every_s": 0.1},
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    page_of(tmp_path, evaluation(20, 2))
    with pytest.raises(UsageError):
        oiyolo.report(tmp_path, **options)


def test_a_followed_page_reloads_itself_until_the_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_of(tmp_path, evaluation(20, 2))
    path = tmp_path / "runs" / "tiny-001" / "report.html"
    seen: list[bool] = []
    reload = '<meta http-equiv="refresh" content="2">'

    def is_training(_: Run) -> bool:
        seen.append(reload in path.read_text("utf-8"))
        return len(seen) < 12

    monkeypatch.setattr(Run, "is_training", property(is_training))
    monkeypatch.setattr("oiyolo.stages.report._POLL_S", 0.0)
    assert oiyolo.report(tmp_path, follow=True, every_s=2.0).path == path
    assert True in seen
    assert reload not in path.read_text("utf-8")


def test_a_plan_says_that_a_page_is_written_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_of(tmp_path, evaluation(20, 2))
    assert not oiyolo.report(tmp_path, follow=True, dry_run=True).actions
    monkeypatch.setattr(Run, "is_training", True)
    (action,) = oiyolo.report(tmp_path, follow=True, every_s=20.0, dry_run=True).actions
    assert action.endswith("report.html every 20 s until the training ends")


def test_two_runs_are_compared_on_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of(tmp_path, evaluation(20, 2))
    other = tmp_path / "runs" / "tiny-002"
    other.mkdir()
    record = {"state": "finished", "network": "tiny", "max_batches": 9, "darknet": {}}
    (other / "run.json").write_text(json.dumps(record))
    row = {
        "first": 0.5, "second": 0.625, "difference": 0.125, "interval": [0.1, 0.2],
        "beyond_chance": True,
    }  # fmt: skip
    side: dict[str, Any] = {"weights": {"path": "w", "iteration": 9}, "thresholds_from": "valid",
            "other_classes": [], "trained_on": None}  # fmt: skip
    content = {
        "first": {"run": "tiny-001", **side}, "second": {"run": "tiny-002", **side},
        "split": "test", "images": 20, "boxes": 40, "images_seen": 0, "scored_with": "x",
        "prepared": {}, "map50": row, "map50_95": row, "openimages_map": {**row, "interval": None},
        "classes": {"Boat <i>": row, "Canoe & kayak": row}, "differing_images": 0,
        "most_different": [],
    }  # fmt: skip
    compared = RunsCompared(other / "comparison.json", content, None)
    monkeypatch.setattr(evaluate_stage, "evaluate", lambda *_, **__: compared)
    result = oiyolo.report(tmp_path, ["tiny-001", "tiny-002"])
    assert result.path.name == "comparison-tiny-002.html"
    page = result.path.read_text("utf-8")
    assert "tiny-002 is better than tiny-001 beyond chance" in page
    cells = "<td>50.0%</td><td>62.5%</td><td>+12.5%</td><td>+10.0% to +20.0%</td><td>yes</td>"
    assert f'<th scope="row" class="text">Boat &lt;i&gt;</th>{cells}' in page
    before = result.path.stat().st_mtime_ns
    assert oiyolo.report(tmp_path, ["tiny-001", "tiny-002"]).path.stat().st_mtime_ns == before
