"""plot: draw charts of a training run from its log alone.

Writes ``runs/<run>/charts/{loss,iou,...}`` as PNG and SVG, ``runs/<run>/metrics.csv`` and
``metrics.json``. Given a log file, it writes the same outputs next to the file and needs no
project. ``compare`` compares several logs, and ``live`` follows a training run in progress.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, overload

from oiyolo.core import extras, locks
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.stages.plot import compare, live
from oiyolo.stages.plot.outputs import (
    Plotted,
    draw,
    find_targets,
    load_outputs,
    remove_parts,
    with_events,
    write_recipe,
)
from oiyolo.training.tracking import send_news

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.project import ProjectLike
    from oiyolo.stages.plot.compare import Compared
    from oiyolo.stages.plot.outputs import Target
    from oiyolo.tracking.tensorboard import EventWriter

STAGE: Final = "plot"
_EVERY_S: Final = 10.0
_IDLE_S: Final = 300.0
_LONGEST_S: Final = 604_800
"""A week; ``time.sleep`` does not accept every number."""
_log = logging.getLogger("oiyolo")

__all__ = ["STAGE", "Plotted", "plot"]


class _Options(TypedDict, total=False):
    """Options of ``plot`` that do not change the type of its result."""

    run: str | None
    follow: bool
    every_s: float | None
    idle_s: float | None
    tensorboard: str | Path | None


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | None = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[_Options],
) -> Plotted: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: Sequence[str | Path],
    dry_run: Literal[False] = ...,
    **options: Unpack[_Options],
) -> Plotted | Compared: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | Sequence[str | Path] | None = ...,
    dry_run: Literal[True],
    **options: Unpack[_Options],
) -> Plan: ...


@overload
def plot(
    project: ProjectLike = ...,
    *,
    log: str | Path | Sequence[str | Path] | None = ...,
    dry_run: bool = ...,
    **options: Unpack[_Options],
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
        follow: Whether to draw the charts again each time the log has grown or a checkpoint has
            been scored, until the training ends. A log that does not belong to a run has ended when
            it has not grown for ``idle_s``. Ctrl-C also ends following, and returns the latest
            charts.
        every_s: Minimum time between two refreshes, in seconds; 10 by default.
        idle_s: Time in seconds without growth after which a log has ended; 300 by default.
        tensorboard: Folder for TensorBoard event files, with a subfolder for each run.
        dry_run: Whether to only report what would be done.

    Returns:
        The charts and metrics of a training run, or a comparison of several, or the plan.

    Raises:
        UsageError: A run or file does not exist or has no log yet, ``follow`` names several, or
            ``tensorboard`` is not a folder or its library is not installed.
        InputFormError: The file is not a darknet log.
        LockedError: Another process is writing the same event files.
    """
    targets = compare.named(find_targets(project, log=log, run=run, may_wait=follow))
    if follow and len(targets) > 1:
        names = ", ".join(targets)
        raise UsageError("only one training run can be followed at a time", found=names)
    writers = [] if tensorboard is None else _event_writers(Path(tensorboard), targets)
    every_s = _seconds("every-s", every_s, _EVERY_S)
    idle_s = _seconds("idle-s", idle_s, _IDLE_S)
    if dry_run:
        return _plan(targets, writers, follow=follow)
    with contextlib.ExitStack() as stack:
        for lock in [writer.folder / ".lock" for writer in writers]:
            what = "the folder of event files"
            stack.enter_context(locks.exclusive(lock, what=what, operation=STAGE))
        if len(targets) > 1:
            return compare.compare(targets, writers)
        (target,), writer = targets.values(), writers[0] if writers else None
        remove_parts(target)
        if follow:
            plotted = live.follow(target, writer, every_s=every_s, idle_s=idle_s)
        else:
            plotted = _plot_once(target, writer)
    if target.run is not None:
        send_news(target.run)
    return plotted


def _seconds(option: str, value: float | None, default: float) -> float:
    seconds = default if value is None else value
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(
            f"invalid --{option}",
            expected=f"seconds above 0, {_LONGEST_S:,} at most",
            found=str(seconds),
        )
    return seconds


def _event_writers(folder: Path, names: Iterable[str]) -> list[EventWriter]:
    with extras.required("tensorboard", library="TensorBoard", by="--tensorboard"):
        from oiyolo.tracking.tensorboard import EventWriter  # noqa: PLC0415  (an extra, and slow)

    return [EventWriter(folder / name) for name in names]


def _plot_once(target: Target, writer: EventWriter | None) -> Plotted:
    recipe = target.recipe()  # before reading, because the log may grow
    plotted, reason = load_outputs(target, recipe)
    if plotted is None:
        _log.info("plot: drawing %s", f"the charts again: {reason}" if reason else "charts")
        plotted = draw(target, target.read_log())
        write_recipe(plotted, target, recipe)
    else:
        _log.info("plot: up to date")
    return with_events(plotted, target, writer)


def _plan(targets: Mapping[str, Target], writers: Sequence[EventWriter], *, follow: bool) -> Plan:
    if len(targets) > 1:
        logs = ", ".join(str(target.log_path) for target in targets.values())
        actions = [f"compare {logs} in {compare.comparison_folder(targets)}"]
    else:
        (target,) = targets.values()
        is_current = not follow and load_outputs(target, target.recipe())[0] is not None
        until = ", again each time the log grows, until the training ends" if follow else ""
        action = f"chart {target.log_path} into {target.charts_folder}{until}"
        actions = [] if is_current else [action]
    actions += [f"write event files to {writer.folder}" for writer in writers]
    return Plan(STAGE, actions)
