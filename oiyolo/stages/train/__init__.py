"""train: darknet learns from the train split, in a run folder that needs nothing else.

Leaves ``runs/<run>/{network.cfg, obj.data, obj.names, train.txt, valid.txt, train_log.txt,
weights/, run.json}``. An unfinished run of the same dataset and network is gone on with. Whether a
training succeeded is judged by the weights it wrote, never by darknet's exit code.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import Plan, Result, count
from oiyolo.darknet.program import train_command
from oiyolo.networks import builders
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.train.inputs import Task, course, made_from, same_run, start_of
from oiyolo.stages.train.training_loop import drive, is_final
from oiyolo.training.checkpoints import Checkpoints
from oiyolo.training.plan import NO_WEIGHTS
from oiyolo.training.run import BASE, FINISHED, Run, next_name
from oiyolo.training.supervise import told_time
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.project.project import ProjectLike

_log = logging.getLogger("oiyolo")

STAGE: Final = "train"


@dataclass(frozen=True)
class Trained(Result):
    """A finished training.

    Attributes:
        run: Its folder.
        weights: The weights of the last iteration.
        iterations: How many there were.
        avg_loss: The average loss at the end.
        seconds: How long this call trained; 0 when there was nothing to do.
        best_weights: The weights with the best mAP; ``None`` where none was measured.
        best_map: That mAP, 0 to 1.
        stopped_early: Why it ended before its last iteration; empty where it did not.
        rollbacks: How often it was taken back to earlier weights.
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

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
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
        }

    def __str__(self) -> str:
        if not self.seconds:
            return f"train: nothing to do; {self.run.name} is finished ({self.weights})"
        told = (
            f"trained {self.run.name}: {count(self.iterations, 'iteration')} in "
            f"{told_time(self.seconds)}, average loss {self.avg_loss:.3f} ({self.weights})"
        )
        if self.best_weights is not None:
            told += f"; best mAP {self.best_map:.2%} ({self.best_weights})"
        if self.rollbacks:
            told += f"; taken back {count(self.rollbacks, 'time')}"
        return f"{told}; {self.stopped_early}" if self.stopped_early else told


def train(
    project: ProjectLike = ".", *, again: bool = False, dry_run: bool = False, **options: object
) -> Trained | Plan:
    """Train a network, or go on with a training that did not end.

    Args:
        project: An open project or its folder.
        again: Begin a new run, though one of the same dataset and network is finished.
        dry_run: Only tell what would be done: the command, and how the network is changed.
        **options: Keys of ``[train]`` and ``[darknet]``.

    Raises:
        UsageError: The dataset was not split yet, or an option is wrong.
        InputFormError: The network file or the weights are not what they should be, or darknet
            would not find what it needs.
        UnavailableError: The pretrained weights cannot be fetched, or the disk is full.
        DarknetError: No darknet, or it did not train to the end.
        LockedError: The run is being trained by another process.
    """
    opened = open_project(project, options)
    split = split_stage.lists_or_complain(opened)
    if dry_run and (reason := build_stage.needs_building(opened)):
        return Plan("train", [f"build darknet first ({reason}), then train with it"])
    darknet = build_stage.run(opened).darknet
    plan = course(opened, split, darknet)
    task = Task(opened, split, darknet, plan, made_from(opened, split, plan))
    run = None if again else same_run(opened, plan, task.made_from)
    if dry_run:
        return _as_plan(task, run)
    for warning in plan.warnings:
        _log.warning("%s", warning)
    if run is None:
        start_of(opened, plan)  # before there is a run that would wait for them
        run = Run(opened.runs_folder / next_name(opened.runs_folder, plan.network))
        run.folder.mkdir(parents=True, exist_ok=True)
    with run.lock(STAGE):
        return _train(task, run)


def _as_plan(task: Task, run: Run | None) -> Plan:
    project, plan = task.project, task.course
    name = run.name if run else next_name(project.runs_folder, plan.network)
    if run is not None and run.record.get("state") == FINISHED:
        return Plan("train", [], {"run": name})
    argv = train_command(
        task.darknet,
        data="obj.data",
        cfg=f"{BASE}.cfg",
        weights=None if plan.weights == NO_WEIGHTS else plan.weights,
        resume=False,
        gpus=",".join(task.gpus) or None,
        measure_map=True,
        colours=project.config.train.colours,
    )
    changes = builders.diff(plan.stock, plan.cfg)
    actions = [
        f"{'go on with' if run else 'begin'} {name}: {plan.told}",
        *plan.reasons,
        f"run {' '.join(argv)}",
        f"change the network so:\n{changes}" if changes else "use the network as it is",
    ]
    return Plan("train", actions, {"run": name, "command": list(argv), "cfg_diff": changes})


def _train(task: Task, run: Run) -> Trained:
    """Train in a run's folder whose lock the caller holds."""
    checkpoints = Checkpoints(run, task.darknet.line, task.course.cfg)
    seconds = 0.0
    if run.record.get("state") != FINISHED or not is_final(run, checkpoints):
        seconds = max(drive(task, run), 1e-3)
    return _trained(run, checkpoints, seconds)


def _trained(run: Run, checkpoints: Checkpoints, seconds: float) -> Trained:
    latest = None
    if run.log_path.is_file():
        latest = read_log(run.log_path, regions=False).latest
    record, best = run.record, checkpoints.best
    early = record.get("stopped_early")
    return Trained(
        run=run,
        weights=checkpoints.final_path,
        iterations=early["iteration"] if early else record["max_batches"],
        avg_loss=latest.avg_loss if latest else float("nan"),
        seconds=seconds,
        best_weights=checkpoints.best_path if best else None,
        best_map=best.map if best else float("nan"),
        stopped_early=early["told"] if early else "",
        rollbacks=sum("back_to" in event for event in record.get("events", [])),
    )
