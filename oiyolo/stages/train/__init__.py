"""train: train a network on the train split, in a self-contained run folder.

Writes ``runs/<run>/{network.cfg, obj.data, obj.names, train.txt, valid.txt, train_log.txt,
weights/, run.json}``. An unfinished run of the same dataset and network is resumed. Training has
succeeded if the final weights are valid, whatever darknet's exit code.
"""

from __future__ import annotations

import logging
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.errors import DarknetError, UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_duration
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import train_command
from oiyolo.networks.cfg import read
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.train import background
from oiyolo.stages.train.background import Detached
from oiyolo.stages.train.engine import chosen_engine, training_program
from oiyolo.stages.train.inputs import (
    find_same_run,
    following,
    initial_weights_of,
    make_task,
    planned_start,
)
from oiyolo.stages.train.training_loop import TrainingLoop, is_final
from oiyolo.tracking.tracker import TITLES, check_installed
from oiyolo.training.checkpoints import Checkpoints
from oiyolo.training.recovery import RecoveryState
from oiyolo.training.run import (
    BASE_NAME,
    FINISHED,
    Run,
    event_message,
    is_rollback,
    next_name,
    running_runs,
    runs_in,
)
from oiyolo.training.score_monitor import map_text
from oiyolo.training.tracking import send_news
from oiyolo.trainlog.loading import measure_loading
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import TrainStageKeywords
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.stages.train.inputs import TrainingTask
    from oiyolo.training.engine import EngineChoice
    from oiyolo.training.plan import TrainingPlan

_log = logging.getLogger("oiyolo")

STAGE: Final = "train"
_MAX_RUNS: Final = 3
_CHANGE_HEADING: Final = ("section", "option", "stock", "here", "why")

__all__ = ["STAGE", "Detached", "Trained", "train"]


@dataclass(frozen=True)
class Trained(Result):
    """A finished training run.

    Attributes:
        run: The run.
        weights: The weights of the last iteration.
        iterations: Number of iterations trained.
        avg_loss: The average loss at the end.
        seconds: How long this call trained; 0 if the run was already finished.
        best_weights: The weights with the best mAP on the valid split; ``None`` if it was not
            measured.
        best_map: That mAP, 0 to 1; NaN if it was not measured.
        stopped_early: Why training ended before the last iteration; empty if it did not.
        rollbacks: Number of rollbacks to earlier weights.
        slow_loading: That loading images held training back, and the remedy; empty if it did not.
    """

    run: Run
    weights: Path
    iterations: int
    avg_loss: float
    seconds: float
    best_weights: Path | None = None
    best_map: float = float("nan")
    stopped_early: str = ""
    rollbacks: int = 0
    slow_loading: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "run": self.run.name,
            "folder": str(self.run.folder),
            "weights": str(self.weights),
            "iterations": self.iterations,
            "avg_loss": self.avg_loss,
            "seconds": round(self.seconds, 3),
            "best_weights": None if self.best_weights is None else str(self.best_weights),
            "best_map": self.best_map,
            "stopped_early": self.stopped_early,
            "rollbacks": self.rollbacks,
            "slow_loading": self.slow_loading,
        }

    def __str__(self) -> str:
        if not self.seconds:
            return f"train: nothing to do; {self.run.name} is finished ({self.weights})"
        summary = (
            f"trained {self.run.name}: {pluralize(self.iterations, 'iteration')} in "
            f"{format_duration(self.seconds)}, average loss {self.avg_loss:.3f} ({self.weights})"
        )
        if self.best_weights is not None:
            summary += f"; best mAP {self.best_map:.2%} ({self.best_weights})"
        if self.rollbacks:
            summary += f"; rolled back {pluralize(self.rollbacks, 'time')}"
        summary += f"; {self.stopped_early}" if self.stopped_early else ""
        return f"{summary}\n{self.slow_loading}" if self.slow_loading else summary


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    detach: Literal[False] = ...,
    attach: Literal[False] = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Trained: ...


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    detach: bool = ...,
    attach: bool = ...,
    dry_run: Literal[True],
    **options: Unpack[TrainStageKeywords],
) -> Plan: ...


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    detach: bool = ...,
    attach: bool = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Trained | Detached: ...


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    detach: bool = ...,
    attach: bool = ...,
    dry_run: bool,
    **options: Unpack[TrainStageKeywords],
) -> Trained | Detached | Plan: ...


@takes_keys("train", "darknet")
def train(
    project: ProjectLike = ".",
    *,
    again: bool = False,
    detach: bool = False,
    attach: bool = False,
    dry_run: bool = False,
    **options: Unpack[TrainStageKeywords],
) -> Trained | Detached | Plan:
    """Train a network, or resume an unfinished run.

    Args:
        project: An open project or its folder.
        again: Whether to start a new run if the newest one of the same dataset and network is
            finished. An unfinished one is resumed, as always.
        detach: Whether to train in the background, independently of the terminal, and to return as
            soon as darknet trains.
        attach: Whether to show the progress of a training in progress instead of starting one.
            Ctrl-C ends following it, not the training.
        dry_run: Whether to only report what would be done: the command and the changes to the
            network.
        **options: Keys of ``[train]`` and ``[darknet]``.

    Raises:
        UsageError: The dataset is not split yet, an option is wrong, or there is no training in
            progress to attach to.
        InputFormError: The network file or the weights are invalid, or a file that darknet needs
            is missing or invalid.
        UnavailableError: The pretrained weights cannot be downloaded, or the disk is full.
        DarknetError: There is no darknet, or it did not train to the end.
        LockedError: Another process is training this run.
    """
    opened = open_project(project, options)
    if attach:
        return _attach(opened, options={"--detach": detach, "--again": again}, dry_run=dry_run)
    split = split_stage.load_lists(opened)
    check_installed(opened.config.train.log_to)
    choice = chosen_engine(opened)
    uses_darknet = choice.engine == "darknet"
    if dry_run and uses_darknet and (work := build_stage.planned_build(opened)):
        return Plan("train", [f"{work}, then train with it"])
    task = make_task(opened, split, *training_program(opened, choice))
    run = _run_to_resume(task, again=again)
    task = following(task, run)
    plan = task.plan
    for warning in plan.warnings:
        _log.warning("train: %s", warning)
    if dry_run:
        return _as_plan(task, run, choice, detach=detach)
    if run is None:
        initial_weights_of(opened, plan)  # before the run exists
        run = Run(opened.runs_folder / _new_name(opened, plan))
        run.folder.mkdir(parents=True, exist_ok=True)
    if detach and not _is_finished(run, _checkpoints_of(task, run)):
        started = background.start(opened, run, again=again)
        if started is not None:
            return started
    return _train(task, run, choice)


def _new_name(project: Project, plan: TrainingPlan) -> str:
    half = f"-half-{project.half}" if project.half else ""
    return next_name(project.runs_folder, plan.network + half)


def _run_to_resume(task: TrainingTask, *, again: bool) -> Run | None:
    """Return the run to resume, finished or not; ``None`` to start a new one."""
    run = find_same_run(task.project, task.plan, task.recipe, newest=again)
    if run is None or not again:
        return run
    if _is_finished(run, _checkpoints_of(task, run)):
        return None
    _log.info(
        "train: %s is not finished, so --again resumes it; to start from scratch, move %s away",
        run.name,
        run.folder,
    )
    return run


def _train(task: TrainingTask, run: Run, choice: EngineChoice) -> Trained:
    """Train a run to its end in this process, unless it is finished."""
    checkpoints = _checkpoints_of(task, run)
    seconds = 0.0
    with run.lock(STAGE):
        for folder in (run.folder, run.weights_folder, checkpoints.kept_folder):
            files.remove_abandoned_parts(folder)
        if not _is_finished(run, checkpoints):
            _log.info("train: training with %s, because %s", choice.engine, choice.reason)
            seconds = max(TrainingLoop(task, run).run_to_end(), 1e-3)
    if not seconds:
        send_news(run, task.project.config.train.log_to)
    return _trained(run, checkpoints, seconds)


def _checkpoints_of(task: TrainingTask, run: Run) -> Checkpoints:
    own_map = run.map_source(task.project.config.train.map) == "own"
    engine = task.darknet.engine
    return Checkpoints(run, task.darknet.fork, task.plan.cfg, own_map=own_map, engine=engine)


def _is_finished(run: Run, checkpoints: Checkpoints) -> bool:
    return run.record.get("state") == FINISHED and is_final(run, checkpoints)


def _attach(
    project: Project, *, options: Mapping[str, bool], dry_run: bool
) -> Trained | Detached | Plan:
    """Follow the newest training in progress to its end."""
    if excess := [name for name, is_set in options.items() if is_set]:
        raise UsageError(f"--attach starts no training, so {excess[0]} has no effect")
    running = running_runs(project.runs_folder)
    if not running:
        states = [f"{run.name}: {run.state}" for run in runs_in(project.runs_folder)]
        raise UsageError(
            "no run is being trained",
            where=str(project.runs_folder),
            found=", ".join(states[-_MAX_RUNS:]) or "no run",
            remedy="Start or resume one with `oiyolo train --detach`",
        )
    run = running[-1]
    if dry_run:
        return Plan("train", [f"show the progress of {run.name} until it ends"])
    _log.info("train: following %s; Ctrl-C ends this, not the training", run.name)
    start_s = time.monotonic()
    if not background.follow(run):
        return background.detached(project, run)
    if run.state != FINISHED:
        raise DarknetError(
            f"{run.name} ended without being finished",
            where=str(run.log_path),
            found=f"{run.state}: {run.record.get('outcome') or 'it was killed'}",
            remedy=f"Run `{run.train_command}` to resume it",
        )
    fork = FORKS[run.started_record["darknet"]["fork"]]
    checkpoints = Checkpoints(run, fork, read(run.cfg_path), own_map=run.map_source() == "own")
    return _trained(run, checkpoints, time.monotonic() - start_s)


def _as_plan(task: TrainingTask, run: Run | None, choice: EngineChoice, *, detach: bool) -> Plan:
    project, plan = task.project, task.plan
    name = run.name if run else _new_name(project, plan)
    run_or_new = run or Run(project.runs_folder / name)
    source = run_or_new.map_source(project.config.train.map)
    facts: dict[str, object] = {
        "run": name,
        "engine": choice.engine,
        "map": source,
        "balance": None if task.balance is None else task.balance.as_dict(),
        "warnings": list(plan.warnings),
    }
    weights, iteration = None, 0
    if run is not None:
        checkpoints = _checkpoints_of(task, run)
        if _is_finished(run, checkpoints):
            return Plan("train", [], facts)
        weights, iteration = checkpoints.newest()
    start = f"resume from {weights}, iteration {iteration:,}"
    if weights is None:
        weights, start = planned_start(project, plan)
    argv = train_command(
        task.darknet,
        data="obj.data",
        cfg=f"{BASE_NAME}.cfg",
        weights=None if weights is None else str(weights),
        resume=iteration > 0,
        gpus=",".join(task.gpus) or None,
        measure_map=source == "darknet"
        and (run is None or RecoveryState.of(run.record).measures_map),
        colours=project.config.train.colours,
    )
    changes = plan.diff
    actions = [
        f"{'resume' if run else 'start'} {name}: {plan.summary}",
        start,
        *(f"use {reason}" for reason in plan.reasons),
        *([] if task.balance is None else [str(task.balance)]),
        map_text(source, task.darknet.fork, task.darknet.engine, has_valid=task.has_valid_images),
        f"train with {choice.engine}, because {choice.reason}",
        f"run {shlex.join(argv)}",
        f"change the network:\n{changes}" if changes else "use the network unchanged",
        *(f"log to {TITLES[name]}" for name in project.config.train.log_to),
        *(["let it train in the background"] if detach else []),
    ]
    facts |= {"command": list(argv), "cfg_diff": changes, "cfg_changes": plan.changes}
    rows = [list(change.values()) for change in plan.changes]
    return Plan("train", actions, facts, [_CHANGE_HEADING, *rows])


def _trained(run: Run, checkpoints: Checkpoints, seconds: float) -> Trained:
    latest = loading = None
    if run.log_path.is_file():
        log = read_log(run.log_path, regions=False)
        latest, loading = log.latest, measure_loading(log)
    record, best = run.started_record, checkpoints.best
    early = record.get("stopped_early")
    return Trained(
        run=run,
        weights=checkpoints.final_path,
        iterations=early["iteration"] if early else record["max_batches"],
        avg_loss=latest.avg_loss if latest else float("nan"),
        seconds=seconds,
        best_weights=(checkpoints.best_path or best.path) if best else None,
        best_map=best.map if best else float("nan"),
        stopped_early=event_message(early) if early else "",
        rollbacks=sum(is_rollback(event) for event in record.get("events", [])),
        slow_loading="" if loading is None else str(loading),
    )
