"""What plot leaves for one training: its charts, its numbers, and what they were made from."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, shown
from oiyolo.project.project import Project, open_project
from oiyolo.training.run import Run, find_run
from oiyolo.trainlog.parse import read_log, write_metrics_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oiyolo.project.project import ProjectLike
    from oiyolo.trainlog.tables import TrainLog

_STAMP: Final = ".made-from.json"
_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Plotted(Result):
    """Charts of a training.

    Attributes:
        name: The run's name, or the log file's.
        read: Reads the log as tables; ``log`` does it once.
        numbers: What ``metrics.json`` holds.
        charts: The pictures as PNG; each has an SVG of the same name beside it.
        metrics: ``metrics.csv``: one row an iteration.
        metrics_json: ``metrics.json``.
        events: The folder of TensorBoard's event files, where they were asked for.
        new_events: How many steps this call wrote there.
    """

    name: str
    read: Callable[[], TrainLog]
    numbers: Mapping[str, Any]
    charts: Sequence[Path]
    metrics: Path
    metrics_json: Path
    events: Path | None = None
    new_events: int = 0

    @cached_property
    def log(self) -> TrainLog:
        """The log as tables."""
        return self.read()

    @property
    def verdict(self) -> str:
        """How the training goes, in a line."""
        return str(self.numbers["verdict"]["sentence"])

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        last = self.numbers["last"] or {}
        found: dict[str, object] = {
            "name": self.name,
            "iterations": self.numbers["summary"]["iterations"],
            "last_iteration": last.get("iteration"),
            **{key: last.get(key) for key in ("avg_loss", "iou", "map")},
            "verdict": self.numbers["verdict"],
            "charts": [str(path) for path in self.charts],
            "metrics": str(self.metrics),
            "metrics_json": str(self.metrics_json),
            "complaints": self.numbers["complaints"],
        }
        if self.events is not None:
            found |= {"events": str(self.events), "new_events": self.new_events}
        return found

    def __str__(self) -> str:
        names = ", ".join(path.stem for path in self.charts)
        text = [
            f"{self.name}: {self.numbers['summary']['text']}",
            self.verdict,
            f"see {self.charts[0].parent} ({names}; each as .png and .svg)",
            f"and {self.metrics} and {self.metrics_json}",
        ]
        if self.events is not None:
            text.append(f"TensorBoard: {self.new_events:,} new steps in {self.events}")
        return "\n".join(text)

    def _repr_html_(self) -> str:
        return super()._repr_html_() + shown(p for p in self.charts if p.stem == "overview")


@dataclass(frozen=True)
class Target:
    """A training to chart, and where its charts go.

    Attributes:
        name: The run's name, or the log file's without its ending.
        log_path: The log.
        charts_folder: For the pictures.
        metrics: For ``metrics.csv``; ``metrics.json`` has the same name but for its ending.
        run: The run, where it is one of a project.
    """

    name: str
    log_path: Path
    charts_folder: Path
    metrics: Path
    run: Run | None = None

    @property
    def metrics_json(self) -> Path:
        """Where ``metrics.json`` goes."""
        return self.metrics.with_suffix(".json")

    @property
    def stamp_path(self) -> Path:
        """What the charts were made from."""
        return self.charts_folder / _STAMP

    def made_from(self) -> dict[str, object]:
        """Give what the charts would be made from now."""
        return {"the log": files.sha256_of(self.log_path), "version": __version__}


def targets_of(
    project: ProjectLike,
    *,
    log: str | Path | Sequence[str | Path] | None,
    run: str | None,
    may_wait: bool = False,
) -> list[Target]:
    """Find what is to be charted.

    Args:
        project: Where runs are looked for; not opened for files.
        log: Paths of logs, names of runs, or paths of runs' folders.
        run: A run's name.
        may_wait: A run that has begun need not have a log yet.

    Returns:
        At least one; the latest run where nothing is named.

    Raises:
        UsageError: There is no such file or run, or it has no log yet.
    """
    words = [] if log is None else [log] if isinstance(log, (str, Path)) else list(log)
    if words and run is not None:
        raise UsageError(
            "a run was named twice", found=f"{run}, {words[0]}", remedy="Leave --run out"
        )
    if words:
        found = [_named(project, word) for word in words]
    else:
        found = [_of_run(find_run(_opened(project).runs_folder, run))]
    for target in found:
        waits = may_wait and target.run is not None and target.run.lives
        if not waits and not target.log_path.is_file():
            raise UsageError(
                f"the run {target.name} has no log yet",
                where=str(target.log_path),
                remedy="Run `oiyolo train`",
            )
    return found


def _opened(project: ProjectLike) -> Project:
    return project if isinstance(project, Project) else open_project(project)


def _named(project: ProjectLike, word: str | Path) -> Target:
    path = Path(word)
    if path.is_file():
        return of_log(path)
    if (path / "run.json").is_file():
        return _of_run(Run(path.absolute()))
    try:
        return _of_run(find_run(_opened(project).runs_folder, str(word)))
    except UsageError as error:
        if len(path.parts) == 1 and not path.suffix:
            raise
        raise UsageError(
            "there is no such log",
            where=str(word),
            expected="a file, or the name of a run of this project",
        ) from error


def _of_run(run: Run) -> Target:
    return Target(run.name, run.log_path, run.charts_folder, run.folder / "metrics.csv", run)


def of_log(path: Path) -> Target:
    """Give the target of a log without a project: beside it, or in the current folder."""
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK):
        folder = Path.cwd()
    name = path.stem
    return Target(name, path, folder / f"{name}-charts", folder / f"{name}-metrics.csv")


def left_before(target: Target, made_from: Mapping[str, object]) -> Plotted | None:
    """Give what an earlier call left, if it is all there and made from the same; tell why not."""
    reason = staleness.stale_reason(target.stamp_path, made_from)
    if reason is None:
        stamp = files.read_json(target.stamp_path)
        charts = [target.charts_folder / name for name in stamp.get("charts", [])]
        wanted = [*charts, *(c.with_suffix(".svg") for c in charts), target.metrics]
        numbers = files.read_json(target.metrics_json)
        if charts and numbers and all(path.is_file() for path in wanted):
            return Plotted(
                target.name,
                lambda: read_log(target.log_path),
                numbers,
                charts,
                target.metrics,
                target.metrics_json,
            )
        reason = "a chart is gone"
    _log.info("plot: %s", reason)
    return None


def draw(target: Target, log: TrainLog) -> Plotted:
    """Write the charts and the numbers of a log, whatever is there.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    from oiyolo.charts.training import save_charts  # noqa: PLC0415  (matplotlib takes half a second)
    from oiyolo.trainlog.metrics_json import digest  # noqa: PLC0415  (numpy)

    target.stamp_path.unlink(missing_ok=True)
    charts = save_charts(log, target.charts_folder, title=target.name)
    write_metrics_csv(log, target.metrics)
    numbers = digest(log, name=target.name)
    files.write_json(target.metrics_json, numbers)
    if "map.png" not in {path.name for path in charts}:  # of a log that was here before
        for ending in (".png", ".svg"):
            (target.charts_folder / f"map{ending}").unlink(missing_ok=True)
    return Plotted(target.name, lambda: log, numbers, charts, target.metrics, target.metrics_json)


def sign(plotted: Plotted, target: Target, made_from: Mapping[str, object]) -> None:
    """Say what charts were made from, once all of them are there."""
    names = [path.name for path in plotted.charts]
    staleness.write(target.stamp_path, {**made_from, "charts": names})
