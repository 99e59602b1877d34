"""The outputs of plot for one training run: charts, metrics, and the recipe for both."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, find_picture, images_html, text_html
from oiyolo.project.project import open_project
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import find_run, run_at
from oiyolo.trainlog.parse import read_log, write_metrics_csv
from oiyolo.trainlog.scores import read_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oiyolo.core.results import Picture
    from oiyolo.project.project import ProjectLike
    from oiyolo.tracking.tensorboard import EventWriter
    from oiyolo.training.run import Run
    from oiyolo.trainlog.tables import TrainLog

_RECIPE_NAME: Final = ".made-from.json"
_LAST_KEYS: Final = ("avg_loss", "iou", "map", "valid_map50", "train_map50")


class _Verdict(TypedDict):
    kind: str
    sentence: str


class _Summary(TypedDict):
    iterations: int
    text: str


class _Numbers(TypedDict):
    """The parts of ``metrics.json`` on which the result relies."""

    verdict: _Verdict
    summary: _Summary
    last: dict[str, Any] | None
    loading: dict[str, Any] | None
    complaints: list[Any]


class _SavedRecipe(TypedDict):
    charts: list[str]


@dataclass(frozen=True)
class Plotted(Result):
    """Charts and metrics of a training run.

    Attributes:
        name: Name of the run or log file.
        read: Function that reads the log as tables; ``log`` caches its result.
        numbers: Contents of ``metrics.json``.
        charts: The charts as PNG, each next to an SVG of the same name.
        metrics: Path of ``metrics.csv``, with one row per iteration.
        metrics_json: Path of ``metrics.json``.
        events: Folder of the TensorBoard event files; ``None`` if not requested.
        new_events: Number of steps written to the event files by this call.
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
        """Assessment of the training in one line."""
        return str(self.numbers["verdict"]["sentence"])

    @property
    def loading_message(self) -> str:
        """That loading images holds training back, and the remedy; empty if it does not."""
        return str((self.numbers.get("loading") or {}).get("message", ""))

    def as_dict(self) -> dict[str, object]:
        """Return the latest figures, the verdict and the output paths as JSON-compatible values."""
        last = self.numbers["last"] or {}
        values: dict[str, object] = {
            "name": self.name,
            "iterations": self.numbers["summary"]["iterations"],
            "last_iteration": last.get("iteration"),
            **{key: last.get(key) for key in _LAST_KEYS},
            "verdict": self.numbers["verdict"],
            "loading": self.numbers.get("loading"),
            "charts": [str(path) for path in self.charts],
            "metrics": str(self.metrics),
            "metrics_json": str(self.metrics_json),
            "complaints": self.numbers["complaints"],
        }
        if self.events is not None:
            values |= {"events": str(self.events), "new_events": self.new_events}
        return values

    def __str__(self) -> str:
        stems = ", ".join(path.stem for path in self.charts)
        text = [f"{self.name}: {self.verdict}"]
        text += [self.loading_message] if self.loading_message else []
        text += [
            f"charts: {self.charts[0].parent} ({stems}; each as .png and .svg)",
            f"metrics: {self.metrics} and {self.metrics_json}",
        ]
        if self.events is not None:
            text.append(f"TensorBoard: {self.new_events:,} new steps in {self.events}")
        text.append("log: " + "; ".join(self.numbers["summary"]["text"].splitlines()))
        return "\n".join(text)

    def _repr_html_(self) -> str:
        overview = images_html(path for path in self.charts if path.stem == "overview")
        return text_html(f"{self.name}: {self.verdict}", self.loading_message) + overview

    def picture(self, name: str) -> Picture:
        """Return one of ``charts``, such as "loss", for a notebook.

        Raises:
            UsageError: There is no such chart.
        """
        return find_picture(self.charts, name)


@dataclass(frozen=True)
class Target:
    """A log to chart, and the paths of its outputs.

    Attributes:
        name: Name of the run, or of the log file without its suffix.
        log_path: Path of the log.
        charts_folder: Folder for the charts.
        metrics: Path for ``metrics.csv``; ``metrics.json`` differs only in its suffix.
        run: The run, if the log belongs to one.
    """

    name: str
    log_path: Path
    charts_folder: Path
    metrics: Path
    run: Run | None = None

    @property
    def metrics_json(self) -> Path:
        """Path for ``metrics.json``."""
        return self.metrics.with_suffix(".json")

    @property
    def max_batches(self) -> int | None:
        """Number of iterations that the run is planned to have; ``None`` if unknown."""
        planned = None if self.run is None else self.run.record.get("max_batches")
        return planned if isinstance(planned, int) else None

    @property
    def recipe_path(self) -> Path:
        """Path of the recipe: what the charts were made from."""
        return self.charts_folder / _RECIPE_NAME

    @property
    def scores_path(self) -> Path | None:
        """Path of the scores of the run's checkpoints; ``None`` for a log outside a run."""
        return None if self.run is None else self.run.scores_path

    def read_log(self) -> TrainLog:
        """Return the log as tables, with the scores of its run."""
        return self.with_scores(read_log(self.log_path))

    def with_scores(self, log: TrainLog) -> TrainLog:
        """Return a log with the present scores of its run."""
        return log if self.scores_path is None else log.with_scores(read_scores(self.scores_path))

    def recipe(self) -> dict[str, object]:
        """Return the present recipe: what the charts would be made from now."""
        scores = self.scores_path
        return {
            "the log": files.sha256_of(self.log_path),
            "the scores": files.sha256_of(scores) if scores and scores.is_file() else None,
            "max_batches": self.max_batches,
            "version": __version__,
        }


def find_targets(
    project: ProjectLike,
    *,
    log: str | Path | Sequence[str | Path] | None,
    run: str | None,
    may_wait: bool = False,
) -> list[Target]:
    """Return the logs to chart.

    Args:
        project: Project of the runs; it is not opened if only files are named.
        log: Paths of logs, names of runs, or folders of runs.
        run: Name of a run.
        may_wait: Whether a run in progress may still be without a log.

    Returns:
        At least one log; that of the latest run if none is named.

    Raises:
        UsageError: A file or run does not exist, or has no log yet.
    """
    names = [] if log is None else [log] if isinstance(log, (str, Path)) else list(log)
    if names and run is not None:
        raise UsageError("a run was named twice", found=f"{run}, {names[0]}", remedy="Omit --run")
    if names:
        targets = [_find_target(project, name) for name in names]
    else:
        runs_folder = open_project(project).runs_folder
        has_figures = partial(_has_figures, may_wait=may_wait)
        targets = [_run_target(find_run(runs_folder, run, has_figures))]
    for target in targets:
        may_lack_log = may_wait and target.run is not None and target.run.is_training
        if not may_lack_log and not target.log_path.is_file():
            raise UsageError(
                f"the run {target.name} has no log yet",
                where=str(target.log_path),
                remedy="Run `oiyolo train`",
            )
    return targets


def _has_figures(run: Run, *, may_wait: bool) -> bool:
    """Return whether a run has iterations to chart, or may still get them."""
    return (may_wait and run.is_training) or latest_stats(run.log_path) is not None


def _find_target(project: ProjectLike, name: str | Path) -> Target:
    path = Path(name)
    if path.is_file():
        return _log_target(path)
    if (path / "run.json").is_file():
        return _run_target(run_at(path.absolute()))
    try:
        return _run_target(find_run(open_project(project).runs_folder, str(name)))
    except UsageError as error:
        if len(path.parts) == 1 and not path.suffix:
            raise
        raise UsageError(
            "there is no such log",
            where=str(name),
            expected="a file, or the name of a run of this project",
        ) from error


def _run_target(run: Run) -> Target:
    return Target(run.name, run.log_path, run.charts_folder, run.folder / "metrics.csv", run)


def _log_target(path: Path) -> Target:
    """Return a log outside a project, with outputs next to it or in the current folder."""
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK):
        folder = Path.cwd()
    name = path.stem
    return Target(name, path, folder / f"{name}-charts", folder / f"{name}-metrics.csv")


def remove_parts(target: Target) -> None:
    """Remove the partial files that killed calls left."""
    files.remove_abandoned_parts(target.charts_folder)
    metrics = (target.metrics.name, target.metrics_json.name)
    files.remove_abandoned_parts(target.metrics.parent, *metrics)


def load_outputs(target: Target, recipe: Mapping[str, object]) -> tuple[Plotted | None, str]:
    """Return the outputs of an earlier call if complete and up to date, else why they are not.

    The reason is empty if there was no earlier call.
    """
    if not target.recipe_path.exists():
        return None, ""
    reason = staleness.stale_reason(target.recipe_path, recipe)
    if reason is None:
        saved = records.find_intact(target.recipe_path, _SavedRecipe) or {"charts": []}
        charts = [target.charts_folder / Path(name).name for name in saved["charts"]]
        expected = [*charts, *(c.with_suffix(".svg") for c in charts), target.metrics]
        numbers = records.find_intact(target.metrics_json, _Numbers)
        if charts and numbers is not None and all(path.is_file() for path in expected):
            return _plotted(target, charts, numbers, target.read_log), ""
        reason = "a chart or metrics file is missing or damaged"
    return None, reason


def draw(target: Target, log: TrainLog) -> Plotted:
    """Write the charts and metrics of a log, replacing any existing ones.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    from oiyolo.charts.training import save_charts  # noqa: PLC0415  (matplotlib is slow to import)
    from oiyolo.trainlog.metrics_json import build_metrics  # noqa: PLC0415  (numpy)

    target.recipe_path.unlink(missing_ok=True)
    planned = target.max_batches
    charts = save_charts(log, target.charts_folder, title=target.name, max_batches=planned)
    write_metrics_csv(log, target.metrics)
    numbers = build_metrics(log, name=target.name, max_batches=planned)
    files.write_json(target.metrics_json, numbers)
    if "map.png" not in {path.name for path in charts}:  # of an earlier log
        for suffix in (".png", ".svg"):
            (target.charts_folder / f"map{suffix}").unlink(missing_ok=True)
    return _plotted(target, charts, numbers, lambda: log)


def _plotted(
    target: Target,
    charts: Sequence[Path],
    numbers: Mapping[str, Any],
    read: Callable[[], TrainLog],
) -> Plotted:
    return Plotted(target.name, read, numbers, charts, target.metrics, target.metrics_json)


def with_events(plotted: Plotted, target: Target, writer: EventWriter | None) -> Plotted:
    """Append what is new to the event file, if any; return the result with its figures."""
    if writer is None:
        return plotted
    writer.write(plotted.log, written_at_s=target.log_path.stat().st_mtime)
    return replace(plotted, events=writer.folder, new_events=writer.new_steps)


def write_recipe(plotted: Plotted, target: Target, recipe: Mapping[str, object]) -> None:
    """Write what the outputs were made from, after all of them are complete."""
    names = [path.name for path in plotted.charts]
    staleness.write_recipe(target.recipe_path, {**recipe, "charts": names})
