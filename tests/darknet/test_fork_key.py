"""The fork in ``run.json``: its key was ``line`` in older files, which are still read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.planning import training
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["fork", "line"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with a run that hank-ai's darknet trained."""
    oiyolo.init(tmp_path, classes=["Boat"])
    run = tmp_path / "runs" / "yolov3-001"
    run.mkdir(parents=True)
    darknet = {"executable": "/opt/darknet", request.param: "hank", "gpu": True, "origin": "here"}
    record = {
        "network": "yolov3",
        "max_batches": 4000,
        "state": "finished",
        "seconds": 60.0,
        "command": ["/opt/darknet", "detector", "train"],
        "ended_at": "2026-01-01T00:00:00+00:00",
        "darknet": darknet,
    }
    (run / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_a_plan_expects_the_fork_of_the_last_run(project: Path) -> None:
    assert training._forks(runs_in(project / "runs"), "yolov3") == ("hank",)


def test_a_report_names_the_fork_of_its_run(project: Path) -> None:
    oiyolo.report(project)
    page = (project / "runs" / "yolov3-001" / "report.html").read_text(encoding="utf-8")
    assert "with hank-ai's darknet (GPU)" in page.replace("&#39;", "'")


def test_a_report_says_which_run_the_torch_engine_trained(project: Path) -> None:
    path = project / "runs" / "yolov3-001" / "run.json"
    record = json.loads(path.read_text())
    record["darknet"] |= {"engine": "torch", "gpu": False}
    path.write_text(json.dumps(record))
    oiyolo.report(project)
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    assert "with PyTorch (rules of hank-ai's darknet; CPU)" in page.replace("&#39;", "'")
