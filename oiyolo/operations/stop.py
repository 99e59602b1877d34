"""stop: end a training in progress, in the background or in another terminal."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

from oiyolo.core.errors import LockedError, UsageError
from oiyolo.core.files import open_regular
from oiyolo.core.results import Plan, Result
from oiyolo.project.project import open_project
from oiyolo.training.run import FINISHED, find_run, running_runs

if TYPE_CHECKING:
    from typing import Literal

    from oiyolo.project.project import ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_POLL_S: Final = 0.2
_LIMIT_S: Final = 120.0
"""Time in which a training ends: darknet gets ten seconds, copies of weights to a bucket more."""


@dataclass(frozen=True)
class Stopped(Result):
    """A training that was stopped.

    Attributes:
        run: The run; ``None`` if none was being trained.
        outcome: How it ended and up to which iteration weights are saved, in words.
        iteration: The last iteration that was trained.
        iterations_lost: How many of them will be trained again after a resume.
    """

    run: Run | None
    outcome: str = ""
    iteration: int = 0
    iterations_lost: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "run": self.run and self.run.name,
            "state": self.run and self.run.state,
            "outcome": self.outcome,
            "iteration": self.iteration,
            "iterations_lost": self.iterations_lost,
        }

    def __str__(self) -> str:
        if self.run is None:
            return "stop: nothing to do; no run is being trained"
        resume = "" if self.run.state == FINISHED else f"; `{self.run.train_command}` resumes it"
        return f"{self.run.name}: {self.outcome}{resume} ({self.run.weights_folder})"


@overload
def stop(
    project: ProjectLike = ..., *, run: str | None = ..., dry_run: Literal[False] = ...
) -> Stopped: ...


@overload
def stop(project: ProjectLike = ..., *, run: str | None = ..., dry_run: Literal[True]) -> Plan: ...


@overload
def stop(project: ProjectLike = ..., *, run: str | None = ..., dry_run: bool) -> Stopped | Plan: ...


def stop(
    project: ProjectLike = ".", *, run: str | None = None, dry_run: bool = False
) -> Stopped | Plan:
    """Stop a training in progress, wait until it has ended, and return what was kept.

    It works from any machine that shares the project's folder, and for a training in a terminal or
    a notebook too. ``train`` resumes the run from the last saved weights.

    Args:
        project: An open project or its folder.
        run: Name of the run; by default the one that is being trained.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run, or several are being trained and none is named.
        LockedError: The process that trains the run does not respond.
    """
    opened = open_project(project)
    if run is None:
        running = running_runs(opened.runs_folder)
    else:
        named = find_run(opened.runs_folder, run)
        running = [named] if named.is_training else []
    if len(running) > 1:
        raise UsageError(
            "several runs are being trained",
            where=str(opened.runs_folder),
            found=", ".join(run.name for run in running),
            remedy="Name one of them with --run",
        )
    if dry_run:
        actions = [f"stop training {run.name} ({_trainer(run)}), and wait" for run in running]
        return Plan("stop", actions)
    return _stop(running[0]) if running else Stopped(None)


def _stop(run: Run) -> Stopped:
    _log.info("stop: waiting for %s (%s)", run.name, _trainer(run))
    end_s = time.monotonic() + _LIMIT_S
    while run.is_training:
        # Again and again: a training that has just started removes older requests.
        os.close(open_regular(run.stop_path, os.O_WRONLY | os.O_CREAT))
        if time.monotonic() > end_s:
            run.stop_path.unlink(missing_ok=True)
            raise LockedError(
                f"{run.name} is still being trained {_LIMIT_S:.0f} s after the request to stop",
                where=str(run.folder),
                found=_trainer(run),
                remedy=_kill_remedy(run),
            )
        time.sleep(_POLL_S)
    run.stop_path.unlink(missing_ok=True)
    record = run.record
    attempts: list[dict[str, Any]] = record.get("attempts") or [{}]
    return Stopped(
        run,
        str(record.get("outcome") or run.state),
        int(attempts[-1].get("to_iteration") or 0),
        int(attempts[-1].get("iterations_lost") or 0),
    )


def _kill_remedy(run: Run) -> str:
    process = run.record.get("process", "PID")
    return (
        f"On that machine run `kill {process}`, or `kill -9 {process}` if it does not end; then "
        f"`{run.train_command}` resumes the run"
    )


def _trainer(run: Run) -> str:
    record = run.record
    return f"process {record.get('process', '?')} on {record.get('host', '?')}"
