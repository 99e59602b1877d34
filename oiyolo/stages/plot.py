"""plot: how a training went, out of its log alone.

Leaves ``runs/<run>/charts/{loss,iou,...}.png`` and ``runs/<run>/metrics.csv``; given a log file, it
writes the same beside it, without any project.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo import __version__, files, stamps
from oiyolo.errors import UsageError
from oiyolo.project import Project, open_project
from oiyolo.results import Plan, Result, shown
from oiyolo.training.run import find_run
from oiyolo.trainlog.parse import read_log, write_metrics_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.project import ProjectLike
    from oiyolo.trainlog.tables import TrainLog

STAGE: Final = "plot"
_STAMP: Final = ".made-from.json"
_CHARTS: Final = ("loss", "iou", "map")
_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Plotted(Result):
    """Charts of a training.

    Attributes:
        name: The run's name, or the log file's.
        log: The log as tables.
        charts: The pictures.
        metrics: ``metrics.csv``: one row an iteration.
    """

    name: str
    log: TrainLog
    charts: Sequence[Path]
    metrics: Path

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        latest = self.log.latest
        return {
            "name": self.name,
            "iterations": len(self.log),
            "last_iteration": latest.iteration if latest else None,
            "avg_loss": _or_null(latest.avg_loss if latest else None),
            "iou": _or_null(latest.iou if latest else None),
            "charts": [str(path) for path in self.charts],
            "metrics": str(self.metrics),
            "complaints": self.log.complaints(),
        }

    def __str__(self) -> str:
        wrote = ", ".join(str(path) for path in [*self.charts, self.metrics])
        return f"{self.name}: {self.log.summary}\nsee {wrote}"

    def _repr_html_(self) -> str:
        return super()._repr_html_() + shown(self.charts)


def _or_null(value: float | None) -> float | None:
    return None if value is None or value != value else value  # noqa: PLR0124  (nan)


def _writable_beside(log_path: Path) -> Path:
    """Give the log's folder, or the current one where that cannot be written to."""
    folder = log_path.absolute().parent
    return folder if os.access(folder, os.W_OK) else Path.cwd()


def plot(
    project: ProjectLike = ".",
    *,
    log: str | Path | None = None,
    run: str | None = None,
    dry_run: bool = False,
) -> Plotted | Plan:
    """Chart loss and IOU of a training.

    Args:
        project: An open project or its folder.
        log: A darknet log to chart instead; it needs no project. The charts lie beside it, or in
            the current folder where that cannot be.
        run: A run's name; the latest one if not given.
        dry_run: Only tell what would be done.

    Raises:
        UsageError: There is no such run, or it has no log yet.
        InputFormError: The file is no darknet log.
    """
    if log is not None:
        log_path = Path(log)
        name, folder = log_path.stem, _writable_beside(log_path)
        charts_folder, metrics = folder / f"{name}-charts", folder / f"{name}-metrics.csv"
    else:
        opened = project if isinstance(project, Project) else open_project(project)
        found = find_run(opened.runs_folder, run)
        name, log_path, charts_folder = found.name, found.log_path, found.charts_folder
        metrics = found.folder / "metrics.csv"
        if not log_path.is_file():
            raise UsageError(
                f"the run {name} has no log yet", where=str(log_path), remedy="Run `oiyolo train`"
            )
    if dry_run:
        return Plan("plot", [f"chart {log_path} into {charts_folder}"])
    read = read_log(log_path)
    made_from = {"the log": files.sha256_of(log_path), "version": __version__}
    stamp_path = charts_folder / _STAMP
    reason = stamps.stale_reason(stamp_path, made_from)
    charts = [p for p in (charts_folder / f"{n}.png" for n in _CHARTS) if p.is_file()]
    if reason is None and charts and metrics.is_file():
        _log.info("plot: nothing new")
        return Plotted(name, read, charts, metrics)
    from oiyolo.charts import save_charts  # noqa: PLC0415  (matplotlib takes half a second)

    _log.info("plot: %s", reason or "a chart is gone")
    stamp_path.unlink(missing_ok=True)
    charts = save_charts(read, charts_folder, title=name)
    write_metrics_csv(read, metrics)
    stamps.write(stamp_path, made_from)
    return Plotted(name, read, charts, metrics)
