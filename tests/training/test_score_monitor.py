"""Scores of new weights while darknet trains: which weights, what is kept, and what failures do."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import process
from oiyolo.core.process import ProcessResult
from oiyolo.darknet.forks import FORKS
from oiyolo.training.checkpoints import CheckpointKeeper
from oiyolo.training.monitors import (
    EarlyStopping,
    IterationStats,
    ScoringEnded,
    WeightsSaved,
    WeightsScored,
)
from oiyolo.training.score_monitor import ScoreMonitor, map_text
from tests.training.test_checkpoints import make_checkpoints, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.training.checkpoints import Checkpoints
    from oiyolo.training.monitors import TrainingEvent


class FakeScoring:
    """A process that scores weights and ends when a test says so."""

    def __init__(self, path: Path, threads: int, *, is_idle: bool) -> None:
        self.path, self.threads, self.is_idle = path, threads, is_idle
        self.result: ProcessResult | None = None
        self.is_killed = False

    def poll(self) -> ProcessResult | None:
        return self.result

    def kill(self) -> None:
        self.is_killed = True

    def end(self, value: float | None, output: str = "", exit_code: int = 1) -> None:
        if value is not None:
            exit_code, output = 0, f"a warning\n{json.dumps({'valid_map50': value})}\n"
        self.result = ProcessResult(exit_code, output)


class Training:
    """A training whose darknet saves weights and whose scores a test chooses."""

    def __init__(self, folder: Path, *, scored: tuple[int, ...] = ()) -> None:
        self.checkpoints: Checkpoints = make_checkpoints(folder)
        self.keeper = CheckpointKeeper(self.checkpoints)
        self.started: list[FakeScoring] = []
        self.ended: list[str] = []
        self.monitor = ScoreMonitor(
            self.checkpoints, self.keeper, self.start, scored=scored, on_end=self.ended.append
        )

    def start(self, weights_path: Path, threads: int, *, is_idle: bool) -> FakeScoring:
        assert weights_path.is_file()
        self.started.append(FakeScoring(weights_path, threads, is_idle=is_idle))
        return self.started[-1]

    def save(self, iteration: int) -> None:
        save(self.checkpoints.last_path, iteration)
        self.keeper.on_event(WeightsSaved("weights/network.backup"), 0)
        self.keeper.on_event(IterationStats(iteration + 1, 1, 1), 0)
        self.monitor.on_tick(0, 0)

    def score(self, value: float | None, **result: str | int) -> list[TrainingEvent]:
        self.started[-1].end(value, **result)  # type: ignore[arg-type]
        self.monitor.on_tick(0, 0)
        return list(self.monitor.new_events())

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in self.checkpoints.kept_folder.iterdir())


def test_the_newest_weights_are_scored_one_at_a_time_and_the_best_are_kept(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.monitor.on_tick(0, 0)
    assert training.started == []  # there are no weights yet
    for iteration in (100, 200, 300, 400):
        training.save(iteration)
    (first,) = training.started
    assert first.path.name == "scoring-100.weights"  # though darknet's copy is gone
    assert training.kept == [
        *("last-300.weights", "last-400.weights", "scoring-100.weights", "scoring-400.weights")
    ]
    assert training.score(0.5) == [WeightsScored(100, 0.5)]
    assert training.started[-1].path.name == "scoring-400.weights"
    assert "best-0.500000-100.weights" in training.kept
    assert training.score(0.4) == [WeightsScored(400, 0.4)]
    assert training.kept == ["best-0.500000-100.weights", "last-300.weights", "last-400.weights"]
    training.save(500)
    assert training.score(0.625) == [WeightsScored(500, 0.625)]
    best = training.checkpoints.best
    assert best is not None
    assert (best.map, best.iteration) == (0.625, 500)
    assert training.checkpoints.iteration_of(best.path) == 500
    assert training.kept == ["best-0.625000-500.weights", "last-400.weights", "last-500.weights"]


def test_after_a_resume_only_weights_without_a_score_are_scored(tmp_path: Path) -> None:
    for scored, count in ((100,), 0), ((), 1):
        training = Training(tmp_path, scored=scored)
        save(training.checkpoints.last_path, 100)
        training.checkpoints.keep_last()
        training.monitor.on_tick(0, 0)
        assert len(training.started) == count
        training.monitor.close()
        assert training.kept == ["last-100.weights"]
        assert all(scoring.is_killed for scoring in training.started)


def test_rejected_weights_are_not_scored_to_the_end(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.save(100)
    training.save(200)
    training.monitor.roll_back(100)
    assert not training.started[0].is_killed
    assert training.score(0.5) == [WeightsScored(100, 0.5)]
    assert len(training.started) == 1
    training.save(200)  # trained again
    training.checkpoints.move_aside(50, "001")
    training.monitor.roll_back(50)
    assert training.started[-1].is_killed
    assert not any(name.startswith("scoring") for name in training.kept)
    training.save(100)
    assert training.started[-1].path.name == "scoring-100.weights"  # other weights than before


def test_failures_in_a_row_end_the_scoring_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path)
    output = "Traceback\noiyolo.core.errors.InputFormError: an image is damaged (a.jpg)\n"
    for n, value in enumerate([None, None, 0.5, None, None, None, None], 1):
        training.save(100 * n)
        events = training.score(value, output=output)
        if training.monitor.has_ended:
            break
    assert n == 6
    (ended,) = events
    assert isinstance(ended, ScoringEnded)
    assert ended.reason.endswith("in a row: an image is damaged (a.jpg)")
    assert training.ended == [ended.reason]
    assert len(caplog.records) == 2  # one warning, and the end
    training.save(900)
    assert len(training.started) == 6
    training.monitor.finish(training.checkpoints.last_path, 900, lambda: False)
    assert len(training.started) == 6
    assert [name for name in training.kept if "last" not in name] == ["best-0.500000-300.weights"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ProcessResult(-9, ""), "signal SIGKILL"),
        (ProcessResult(-6, "a\nlast words\n"), "signal SIGABRT (last words)"),
        (ProcessResult(0, "no JSON\n"), "no JSON"),
        (ProcessResult(0, '{"valid_map50": null}'), '{"valid_map50": null}'),
        (ProcessResult(1, "ValueError: x: y"), "ValueError: x: y"),
    ],
)
def test_the_reason_of_a_failure_is_its_last_line(
    tmp_path: Path, result: ProcessResult, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path)
    training.save(100)
    training.started[0].result = result
    training.monitor.on_tick(0, 0)
    assert training.monitor.new_events() == []
    assert caplog.records[-1].getMessage().endswith(f": {reason}")


def test_the_final_weights_are_scored_after_the_ones_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path)
    training.save(100)
    training.save(200)
    values = {"scoring-100.weights": 0.25, "network_final.weights": 0.5}

    def pause(_: float) -> None:
        scoring = training.started[-1]
        scoring.end(values[scoring.path.name])

    monkeypatch.setattr(time, "sleep", pause)
    final = save(training.checkpoints.final_path, 250)
    training.monitor.finish(final, 250, lambda: False)
    # A process cannot leave the lowest priority, so it begins again.
    assert [(scoring.path.name, scoring.is_idle) for scoring in training.started] == [
        ("scoring-100.weights", True),
        *((name, False) for name in values),
    ]
    assert training.started[0].is_killed
    assert final.is_file()
    assert "best-0.500000-250.weights" in training.kept
    best = training.checkpoints.best
    assert best is not None
    assert not best.path.samefile(final)  # darknet writes into its own files
    training.monitor.finish(final, 250, lambda: False)
    assert len(training.started) == 3


def test_a_stop_ends_the_wait_for_scores(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.save(100)
    training.monitor.finish(save(training.checkpoints.final_path, 150), 150, lambda: True)
    assert len(training.started) == 1
    training.monitor.close()
    assert training.started[0].is_killed


@pytest.mark.parametrize(
    ("cpu_s", "cores", "threads"), [(0.0, 4, 4), (10.2, 2, 1), (35.0, 8, 4), (99.0, 2, 1)]
)
def test_it_gets_as_many_threads_as_darknet_leaves_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_s: float, cores: int, threads: int
) -> None:
    """In ten seconds, darknet uses some CPU time."""
    now_s = iter([0.0, 0.0, 10.0])
    used_s = iter([1.0, 1.0 + cpu_s])
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(process, "session_cpu_s", lambda _: next(used_s))
    training = Training(tmp_path)
    training.monitor.on_start(1)
    training.save(100)
    assert training.started[0].threads == threads


# --- the process -----------------------------------------------------------------------------


def wait_for(child: process.BackgroundProcess, wait_until: Callable[..., None]) -> ProcessResult:
    wait_until(lambda: child.poll() is not None)
    result = child.poll()
    assert result is not None
    return result


def test_an_idle_process_has_the_lowest_priority(
    wait_until: Callable[[Callable[[], bool]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_TEST_UNSET", "1")
    program = "import os; print(os.nice(0), os.sched_getscheduler(0), sorted(os.environ))"
    child = process.BackgroundProcess(
        [sys.executable, "-c", program],
        environment={"A_TEST": "1", "OIYOLO_TEST_UNSET": None},
        is_idle=True,
    )
    result = wait_for(child, wait_until)
    assert result.exit_code == 0, result.output
    nice, policy, names = result.output.split(maxsplit=2)
    assert (int(nice), int(policy)) == (19, os.SCHED_IDLE)
    assert "'A_TEST'" in names
    assert "OIYOLO_TEST_UNSET" not in names
    child.kill()


def test_an_idle_process_can_be_killed_at_once() -> None:
    child = process.BackgroundProcess(["sleep", "600"], environment={}, is_idle=True)
    assert child.poll() is None
    child.kill()
    assert child._child.returncode == -9


def test_the_cpu_time_of_a_session_includes_all_its_processes() -> None:
    before = process.session_cpu_s(os.getsid(0))
    end = before + 0.1
    while process.session_cpu_s(os.getsid(0)) < end:
        sum(range(100_000))
    assert process.session_cpu_s(999_999_999) == 0


# --- early stopping ----------------------------------------------------------------------------


def test_patience_counts_from_the_iteration_of_the_scored_weights() -> None:
    monitor = EarlyStopping(300, measures_map=True)
    monitor.replay([IterationStats(450, 1, 1), WeightsScored(100, 0.5), WeightsScored(300, 0.4)])

    def checkpoint(iteration: int) -> object:
        monitor.on_event(WeightsSaved("w"), 0)
        return monitor.on_event(IterationStats(iteration, 1, 1), 0)

    # At 451, but what is known is that 300 is no better than 100.
    assert checkpoint(451) is None
    monitor.on_event(WeightsScored(400, 0.503), 0)  # less than half a point better
    stop = checkpoint(551)
    assert stop is not None
    assert "50.00%" in stop.message  # type: ignore[attr-defined]
    monitor.on_event(WeightsScored(500, 0.6), 0)
    assert checkpoint(651) is None


def test_patience_uses_the_loss_once_weights_are_not_scored_any_more() -> None:
    monitor = EarlyStopping(100, measures_map=True)
    monitor.on_event(WeightsScored(100, 0.5), 0)
    monitor.on_event(ScoringEnded("x"), 0)
    stops = []
    for iteration in range(1, 400):
        monitor.on_event(WeightsSaved("w"), 0)
        stops.append(monitor.on_event(IterationStats(iteration, 2.0, 2.0), 0))
    (first, *_) = [stop for stop in stops if stop is not None]
    assert "loss 2" in first.message


def test_only_darknet_measures_map_itself() -> None:
    fork = FORKS["alexeyab"]
    texts = {engine: map_text("darknet", fork, engine) for engine in ("darknet", "torch")}
    assert ["-map" in text for text in texts.values()] == [True, False]
    assert '[train] map = "own"' in texts["torch"]
    assert map_text("own", fork, "torch") == map_text("own", fork)
