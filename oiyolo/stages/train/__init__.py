"""train: train a network on the train split, in a self-contained run folder.

Writes ``runs/<run>/{network.cfg, obj.data, obj.names, train.txt, valid.txt, train_log.txt,
weights/, run.json}``. An unfinished run of the same dataset and network is resumed. Training has
succeeded if the final weights are valid, whatever darknet's exit code.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_duration
from oiyolo.darknet.program import train_command
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.train.inputs import (
    TrainingTask,
    find_same_run,
    initial_weights_of,
    make_training_plan,
    run_recipe,
)
from oiyolo.stages.train.training_loop import TrainingLoop, is_final
from oiyolo.training.checkpoints import Checkpoints
from oiyolo.training.initial_weights import NO_WEIGHTS
from oiyolo.training.run import BASE_NAME, FINISHED, Run, event_message, next_name
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import TrainStageKeywords
    from oiyolo.project.project import ProjectLike

_log = logging.getLogger("oiyolo")

STAGE: Final = "train"


@dataclass(frozen=True)
class Trained(Result):
    """A finished training run.

    Attributes:
        run: The run.
        weights: The weights of the last iteration.
        iterations: Number of iterations trained.
        avg_loss: The average loss at the end.
        seconds: How long this call trained; 0 if the run was already finished.
        best_weights: The weights with the best mAP; ``None`` if mAP was not measured.
        best_map: That mAP, 0 to 1; NaN if it was not measured.
        stopped_early: Why training ended before the last iteration; empty if it did not.
        rollbacks: Number of rollbacks to earlier weights.
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
        return f"{summary}; {self.stopped_early}" if self.stopped_early else summary


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Trained: ...


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    dry_run: Literal[True],
    **options: Unpack[TrainStageKeywords],
) -> Plan: ...


@overload
def train(
    project: ProjectLike = ...,
    *,
    again: bool = ...,
    dry_run: bool,
    **options: Unpack[TrainStageKeywords],
) -> Trained | Plan: ...


@takes_keys("train", "darknet")
def train(
    project: ProjectLike = ".",
    *,
    again: bool = False,
    dry_run: bool = False,
    **options: Unpack[TrainStageKeywords],
) -> Trained | Plan:
    """Train a network, or resume an unfinished run.

    Args:
        project: An open project or its folder.
        again: Whether to start a new run even if one of the same dataset and network is finished.
        dry_run: Whether to only report what would be done: the command and the changes to the
            network.
        **options: Keys of ``[train]`` and ``[darknet]``.

    Raises:
        UsageError: The dataset is not split yet, or an option is wrong.
        InputFormError: The network file or the weights are invalid, or a file that darknet needs
            is missing or invalid.
        UnavailableError: The pretrained weights cannot be downloaded, or the disk is full.
        DarknetError: There is no darknet, or it did not train to the end.
        LockedError: Another process is training this run.
    """
    opened = open_project(project, options)
    split = split_stage.load_lists(opened)
    if dry_run and (reason := build_stage.rebuild_reason(opened)):
        return Plan("train", [f"build darknet first ({reason}), then train with it"])
    darknet = build_stage.run(opened).darknet
    plan = make_training_plan(opened, split, darknet)
    task = TrainingTask(opened, split, darknet, plan, run_recipe(opened, split, plan))
    run = None if again else find_same_run(opened, plan, task.recipe)
    if dry_run:
        return _as_plan(task, run)
    for warning in plan.warnings:
        _log.warning("%s", warning)
    if run is None:
        initial_weights_of(opened, plan)  # before the run exists
        run = Run(opened.runs_folder / next_name(opened.runs_folder, plan.network))
        run.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run, darknet.fork, plan.cfg)
    seconds = 0.0
    with run.lock(STAGE):
        if run.record.get("state") != FINISHED or not is_final(run, checkpoints):
            seconds = max(TrainingLoop(task, run).run_to_end(), 1e-3)
        return _trained(run, checkpoints, seconds)


def _as_plan(task: TrainingTask, run: Run | None) -> Plan:
    project, plan = task.project, task.plan
    name = run.name if run else next_name(project.runs_folder, plan.network)
    if run is not None and run.record.get("state") == FINISHED:
        return Plan("train", [], {"run": name})
    argv = train_command(
        task.darknet,
        data="obj.data",
        cfg=f"{BASE_NAME}.cfg",
        weights=None if plan.weights == NO_WEIGHTS else plan.weights,
        resume=False,
        gpus=",".join(task.gpus) or None,
        measure_map=True,
        colours=project.config.train.colours,
    )
    changes = plan.diff
    actions = [
        f"{'resume' if run else 'start'} {name}: {plan.summary}",
        *plan.reasons,
        f"run {' '.join(argv)}",
        f"change the network:\n{changes}" if changes else "use the network unchanged",
    ]
    return Plan("train", actions, {"run": name, "command": list(argv), "cfg_diff": changes})


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
        stopped_early=event_message(early) if early else "",
        rollbacks=sum("back_to" in event for event in record.get("events", [])),
    )
