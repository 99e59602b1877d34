"""plot: draw charts of a training run from its log alone.

Writes ``runs/<run>/charts/{loss,iou,...}`` as PNG and SVG, ``runs/<run>/metrics.csv`` and
``metrics.json``. Given a log file, it writes the same outputs next to the file and needs no
project. ``compare`` compares several logs, and ``live`` follows a training run in progress.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import locks
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.stages.plot import compare, live
from oiyolo.stages.plot.outputs import Plotted, draw, find_targets, load_outputs, write_recipe
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from oiyolo.project.project import ProjectLike
    from oiyolo.stages.plot.compare import Compared
    from oiyolo.stages.plot.outputs import Target
    from oiyolo.trainlog.tables import TrainLog

STAGE: Final = "plot"
_log = logging.getLogger("oiyolo")

__all__ = ["STAGE", "Plotted", "plot"]


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | None = ...,
    run: str | None = ...,
    follow: bool = ...,
    every_s: float | None = ...,
    idle_s: float | None = ...,
    tensorboard: str | Path | None = ...,
    dry_run: Literal[False] = ...,
) -> Plotted: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: Sequence[str | Path],
    run: str | None = ...,
    follow: bool = ...,
    every_s: float | None = ...,
    idle_s: float | None = ...,
    tensorboard: str | Path | None = ...,
    dry_run: Literal[False] = ...,
) -> Plotted | Compared: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | Sequence[str | Path] | None = ...,
    run: str | None = ...,
    follow: bool = ...,
    every_s: float | None = ...,
    idle_s: float | None = ...,
    tensorboard: str | Path | None = ...,
    dry_run: Literal[True],
) -> Plan: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | Sequence[str | Path] | None = ...,
    run: str | None = ...,
    follow: bool = ...,
    every_s: float | None = ...,
    idle_s: float | None = ...,
    tensorboard: str | Path | None = ...,
    dry_run: bool = ...,
) -> Plotted | Compared | Plan: ...


def plot(
    project: ProjectLike = ".",
    *,
    log: str | Path | Sequence[str | Path] | None = None,
    run: str | None = None,
    follow: bool = False,
    every_s: float | None = None,
    idle_s: float | None = None,
    tensorboard: str | Path | None = None,
    dry_run: bool = False,
) -> Plotted | Compared | Plan:
    """Draw charts of a training run, or compare several runs.

    Args:
        project: An open project or its folder.
        log: A darknet log to chart, which needs no project: its charts are written next to it, or
            to the current folder if its folder is not writable. Also the name or folder of a run.
            Several logs or runs are compared.
        run: Name of a run; the latest run by default.
        follow: Whether to draw the charts again each time the log has grown, until the training
            ends. A log that does not belong to a run has ended when it has not grown for
            ``idle_s``. Ctrl-C also ends following, and returns the latest charts.
        every_s: Minimum time between two refreshes, in seconds; 10 by default.
        idle_s: Time in seconds without growth after which a log has ended; 300 by default.
        tensorboard: Folder for TensorBoard event files, with a subfolder for each run.
        dry_run: Whether to only report what would be done.

    Returns:
        The charts and metrics of a training run, or a comparison of several, or the plan.

    Raises:
        UsageError: A run or file does not exist or has no log yet, or ``follow`` names several.
        InputFormError: The file is not a darknet log.
        LockedError: Another process is writing the same event files.
    """
    targets = find_targets(project, log=log, run=run, may_wait=follow)
    names = compare.distinct_names(targets)
    if follow and len(targets) > 1:
        raise UsageError("only one training run can be followed at a time", found=", ".join(names))
    if tensorboard is not None and Path(tensorboard).is_file():
        raise UsageError(
            "cannot write event files: not a folder",
            where=str(tensorboard),
            remedy="Name a folder",
        )
    intervals = live.FollowIntervals.from_options(every_s, idle_s)
    folders = [None if tensorboard is None else Path(tensorboard) / name for name in names]
    if dry_run:
        return _plan(targets, folders, follow=follow)
    if len(targets) > 1:
        logs = {
            name: read_log(target.log_path) for name, target in zip(names, targets, strict=True)
        }
        for target, folder, training_log in zip(targets, folders, logs.values(), strict=True):
            with _lock_event_folder(folder):
                _write_events(folder, training_log, target.log_path)
        return compare.compare(targets, logs)
    (target,), (folder,) = targets, folders
    with _lock_event_folder(folder):
        if follow:
            return live.follow(target, intervals, events=folder)
        return _plot_once(target, folder)


def _plot_once(target: Target, folder: Path | None) -> Plotted:
    recipe = target.recipe()  # before reading, because the log may grow
    plotted = load_outputs(target, recipe)
    if plotted is None:
        plotted = draw(target, read_log(target.log_path))
        write_recipe(plotted, target, recipe)
    else:
        _log.info("plot: up to date")
    if folder is None:
        return plotted
    step_count = _write_events(folder, plotted.log, target.log_path)
    return replace(plotted, events=folder, new_events=step_count)


def _write_events(folder: Path | None, log: TrainLog, log_path: Path) -> int:
    if folder is None:
        return 0
    from oiyolo.trainlog.tensorboard import write_events  # noqa: PLC0415  (numpy)

    return write_events(log, folder, log_path=log_path)


@contextlib.contextmanager
def _lock_event_folder(folder: Path | None) -> Iterator[None]:
    """Hold the lock on a folder of event files, if there is one."""
    if folder is None:
        yield
        return
    with locks.exclusive(folder / ".lock", what="the folder of event files", operation=STAGE):
        yield


def _plan(targets: Sequence[Target], folders: Sequence[Path | None], *, follow: bool) -> Plan:
    if len(targets) > 1:
        folder = compare.comparison_folder(targets)
        actions = [f"compare {', '.join(str(t.log_path) for t in targets)} in {folder}"]
    else:
        until = ", again each time the log grows, until the training ends" if follow else ""
        actions = [f"chart {targets[0].log_path} into {targets[0].charts_folder}{until}"]
    actions += [f"write event files to {folder}" for folder in folders if folder is not None]
    return Plan(STAGE, actions)
