"""The processes that send a run to its trackers never disturb its training."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import process
from oiyolo.core.process import ProcessResult
from oiyolo.tracking.delivery import status_path
from oiyolo.tracking.tracker import TrackerRecord
from oiyolo.training import tracking
from oiyolo.training.run import Run
from oiyolo.training.tracking import (
    Sending,
    TrackingMonitor,
    facts_of,
    results_of,
    send_news,
    trackers_of,
)
from tests.conftest import TINY_CFG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FakeProcess:
    """A process that ends when a test says so."""

    started: list[FakeProcess]

    def __init__(self, argv: list[str], **_: object) -> None:
        self.tracker = argv[-1]
        self.result: ProcessResult | None = None
        self.is_killed = False
        self.started.append(self)

    def poll(self) -> ProcessResult | None:
        return self.result

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    FakeProcess.started = []
    monkeypatch.setattr(process, "BackgroundProcess", FakeProcess)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return FakeProcess.started


def make_run(folder: Path, state: str = "finished") -> Run:
    run = Run(folder / "boats" / "runs" / "tiny-001")
    (run.folder / "weights").mkdir(parents=True)
    (run.folder / "tracking").mkdir()
    run.cfg_path.write_text(TINY_CFG)
    for name in ("train", "valid"):
        (run.folder / f"{name}.txt").write_text("/obj/0000000000000001.jpg\n" * 3)
    record = {
        "state": state,
        "network": "tiny",
        "max_batches": 30,
        "classes": ["Boat", "Car"],
        "size_wh": [32, 64],
        "darknet": {"fork": "alexeyab", "gpu": False},
        "began_at": "2026-01-02T03:04:05+00:00",
        "best": {"map": 0.75, "iteration": 20},
    }
    run.record_path.write_text(json.dumps(record))
    return run


def write_status(run: Run, tracker: str, **fields: str) -> None:
    status_path(run.folder, tracker).write_text(json.dumps(asdict(TrackerRecord(**fields))))  # type: ignore[arg-type]


def test_facts_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.evaluation_path.write_text("{}")
    facts = facts_of(run)
    assert (facts.name, facts.project, facts.state) == ("tiny-001", "boats", "finished")
    assert facts.parameters["classes"] == "Boat, Car"
    assert facts.parameters["size_wh"] == "32x64"
    assert facts.parameters["max_batches"] == 30
    assert facts.parameters["train_images"] == 1
    assert facts.labels == {"network": "tiny", "engine": "darknet"}
    assert facts.began_at_s == 1767323045
    assert {"network.cfg", "run.json", "evaluation.json"} <= set(facts.files)
    killed = facts_of(make_run(tmp_path / "killed", "running"))
    assert killed.state == "interrupted"
    assert not [name for name in killed.files if name.endswith(".weights")]


def test_results_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    scores = {"split": "test", "map50": 0.5, "map50_95": None, "weights": {"iteration": 30}}
    run.evaluation_path.write_text(json.dumps(scores))
    assert results_of(run) == {"20": {"best_map50": 0.75}, "30": {"test_map50": 0.5}}
    run.evaluation_path.write_text("[]")
    assert results_of(run) == {"20": {"best_map50": 0.75}}


def test_a_monitor_warns_once_of_a_problem_and_restarts_a_process(
    tmp_path: Path, started: list[FakeProcess], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, "running")
    monitor = TrackingMonitor(run, ["mlflow", "tensorboard"])
    assert [each.tracker for each in started] == ["mlflow", "tensorboard"]
    write_status(run, "mlflow", problem="ConnectionError: no server")
    for at_s in range(0, 60, 10):
        monitor.on_tick(at_s, 0)
    assert caplog.text.count("no server") == 1
    write_status(run, "mlflow")
    started[1].result = ProcessResult(1, "Traceback\nValueError: damaged\n")
    monitor.on_tick(100, 0)
    assert "damaged" in caplog.text
    assert len(started) == 2
    monitor.on_tick(170, 0)
    assert [each.tracker for each in started] == ["mlflow", "tensorboard", "tensorboard"]
    for each in started:
        each.result = ProcessResult(0, "")
    monitor.close()
    assert all(each.is_killed for each in started)


def test_a_process_that_cannot_start_does_not_stop_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def start(run: Run, tracker: str) -> Sending:  # noqa: ARG001
        raise BlockingIOError(11, "too many processes")

    monitor = TrackingMonitor(make_run(tmp_path, "running"), ["mlflow"], start)
    monitor.on_tick(10, 0)
    monitor.close()
    assert "too many processes" in caplog.text


def test_the_end_of_a_training_does_not_wait_for_ever(
    tmp_path: Path,
    started: list[FakeProcess],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks = iter(range(0, 10_000, 100))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    Sending(make_run(tmp_path), "mlflow").end(300)
    assert started[0].is_killed
    assert "oiyolo train" in caplog.text


def test_only_trackers_with_something_new_are_sent_to(
    tmp_path: Path, started: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_at_once(self: FakeProcess) -> ProcessResult:
        return ProcessResult(0, self.tracker)

    monkeypatch.setattr(FakeProcess, "poll", end_at_once)
    find_spec: Callable[[str], object] = lambda name: None if name == "wandb" else object()  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    run = make_run(tmp_path)
    send_news(run)
    assert started == []
    write_status(run, "mlflow", seen="older")
    write_status(run, "tensorboard", seen=tracking._fingerprint(run))
    write_status(run, "wandb")  # not installed here
    assert trackers_of(run) == ["tensorboard", "mlflow", "wandb"]
    send_news(run)
    assert [each.tracker for each in started] == ["mlflow"]
    run.evaluation_path.write_text("{}")
    send_news(run)
    assert [each.tracker for each in started] == ["mlflow", "tensorboard", "mlflow"]
