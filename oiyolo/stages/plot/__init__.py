"""plot: how a training went, out of its log alone.

Leaves ``runs/<run>/charts/{loss,iou,...}`` as PNG and SVG, ``runs/<run>/metrics.csv`` and
``metrics.json``; given a log file, it writes the same beside it, without any project. Several
trainings are compared (``plot_compare``), a live one is followed (``plot_follow``).
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import locks
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.stages.plot import compare, live
from oiyolo.stages.plot.outputs import Plotted, draw, left_before, sign, targets_of
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.project.project import ProjectLike
    from oiyolo.stages.plot.compare import Compared
    from oiyolo.stages.plot.outputs import Target
    from oiyolo.trainlog.tables import TrainLog

STAGE: Final = "plot"
_log = logging.getLogger("oiyolo")

__all__ = ["STAGE", "Plotted", "plot"]


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
    """Chart how a training goes; compare several.

    Args:
        project: An open project or its folder.
        log: A darknet log to chart instead, which needs no project: the charts lie beside it, or
            in the current folder where that cannot be. Also a run's name or folder; several of
            any kind are compared.
        run: A run's name; the latest one if not given.
        follow: Chart again whenever the log has grown, until the training ends. A log that is no
            run's has ended when it has not grown for ``idle_s``. Ctrl-C ends it too, and the
            charts are then returned as they are.
        every_s: The least time between two refreshes, in seconds; 10 if not given.
        idle_s: See ``follow``; 300 if not given.
        tensorboard: A folder to write TensorBoard's event files to, in a folder for each run.
        dry_run: Only tell what would be done.

    Raises:
        UsageError: There is no such run or file, it has no log yet, or several are to be followed.
        InputFormError: The file is no darknet log.
        LockedError: Another process writes the same event files.
    """
    targets = targets_of(project, log=log, run=run, may_wait=follow)
    names = compare.distinct_names(targets)
    if follow and len(targets) > 1:
        raise UsageError("only one training can be followed at a time", found=", ".join(names))
    if tensorboard is not None and Path(tensorboard).is_file():
        raise UsageError(
            "event files go to a folder", where=str(tensorboard), remedy="Name another one"
        )
    pace = live.Pace.of(every_s, idle_s)
    folders = [None if tensorboard is None else Path(tensorboard) / name for name in names]
    if dry_run:
        return _plan(targets, folders, follow=follow)
    if len(targets) > 1:
        logs = {
            name: read_log(target.log_path) for name, target in zip(names, targets, strict=True)
        }
        for target, folder, read in zip(targets, folders, logs.values(), strict=True):
            with _alone(folder):
                _write_events(folder, read, target.log_path)
        return compare.compare(targets, logs)
    (target,), (folder,) = targets, folders
    with _alone(folder):
        if follow:
            return live.follow(target, pace, events=folder)
        return _once(target, folder)


def _once(target: Target, folder: Path | None) -> Plotted:
    made_from = target.made_from()  # before it is read: a log may grow
    plotted = left_before(target, made_from)
    if plotted is None:
        plotted = draw(target, read_log(target.log_path))
        sign(plotted, target, made_from)
    else:
        _log.info("plot: nothing new")
    if folder is None:
        return plotted
    new = _write_events(folder, plotted.log, target.log_path)
    return replace(plotted, events=folder, new_events=new)


def _write_events(folder: Path | None, log: TrainLog, log_path: Path) -> int:
    if folder is None:
        return 0
    from oiyolo.trainlog.tensorboard import write_events  # noqa: PLC0415  (numpy)

    return write_events(log, folder, log_path=log_path)


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Be the only one to write to a folder of event files."""
    if folder is None:
        yield
        return
    with locks.exclusive(folder / ".lock", what="the folder of event files", doing=STAGE):
        yield


def _plan(targets: Sequence[Target], folders: Sequence[Path | None], *, follow: bool) -> Plan:
    if len(targets) > 1:
        folder = compare.folder_of(targets)
        actions = [f"compare {', '.join(str(t.log_path) for t in targets)} in {folder}"]
    else:
        until = ", again and again until the training ends" if follow else ""
        actions = [f"chart {targets[0].log_path} into {targets[0].charts_folder}{until}"]
    actions += [f"write event files to {folder}" for folder in folders if folder is not None]
    return Plan(STAGE, actions)
