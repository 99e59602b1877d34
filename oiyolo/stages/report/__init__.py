"""report: write a page about a run, in one file that opens anywhere.

Writes ``runs/<run>/report.html``. The page contains its pictures and loads nothing else.
"""

from __future__ import annotations

import html
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload
from urllib.parse import quote

from oiyolo import __version__
from oiyolo.charts import interactive
from oiyolo.core import files, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result
from oiyolo.core.units import format_bytes
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.panels import CHECKPOINTS, OVERVIEW, WORST
from oiyolo.evaluation.plots import plot_precision_recall
from oiyolo.evaluation.summary import Evaluation
from oiyolo.pages import template
from oiyolo.pages.gallery import filters_of, kinds_of
from oiyolo.pages.inline import json_data
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import plot as plot_stage
from oiyolo.stages.report import contents
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import find_run
from oiyolo.training.run_detector import data_licences
from oiyolo.training.tracking import send_news

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

STAGE: Final = "report"
_RECIPE_NAME: Final = ".reported-from.json"
_TEMPLATE: Final = "report.html.j2"
_PARTS: Final = {"by_size": "Size of the true boxes", "by_attribute": "Attribute of the true boxes"}
_STILL_PX: Final = (800, 600)
_MAX_DETECTOR_BYTES: Final = 20_000_000
"""With it, the report stays below the 25 MB that mail programs accept."""


@dataclass(frozen=True)
class Report(Result):
    """A written report.

    Attributes:
        path: The page.
        run: The name of its run.
    """

    path: Path
    run: str

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"run": self.run, "report": str(self.path)}

    def __str__(self) -> str:
        return f"{self.run}: see {self.path}"

    def _repr_html_(self) -> str:
        url = html.escape(os.path.relpath(self.path))
        return f'{html.escape(self.run)}: see <a href="{url}" target="_blank">{url}</a>'


@overload
def report(
    project: ProjectLike = ...,
    *,
    run: str | None = ...,
    with_detector: bool = ...,
    dry_run: Literal[False] = ...,
) -> Report: ...


@overload
def report(
    project: ProjectLike = ...,
    *,
    run: str | None = ...,
    with_detector: bool = ...,
    dry_run: Literal[True],
) -> Plan: ...


@overload
def report(
    project: ProjectLike = ...,
    *,
    run: str | None = ...,
    with_detector: bool = ...,
    dry_run: bool,
) -> Report | Plan: ...


def report(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    with_detector: bool = False,
    dry_run: bool = False,
) -> Report | Plan:
    """Write a page with a run's scores, pictures and charts, and the dataset's figures.

    The page has what exists: there are no scores if the run is not evaluated yet.

    Args:
        project: An open project or its folder.
        run: The name of a run; by default the latest one.
        with_detector: Whether the page contains the run's detector, as `oiyolo export web` wrote
            it, to try it on photographs.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run, no page of its detector, or that page is too large.
    """
    opened = open_project(project)
    target = find_run(
        opened.runs_folder,
        run,
        lambda run: run.evaluation_path.is_file() or run.has_final_weights,
        lambda run: latest_stats(run.log_path) is not None,
    )
    path = target.folder / "report.html"
    detector = _detector_to_embed(target) if with_detector else None
    has_charts = latest_stats(target.log_path) is not None
    if dry_run:
        charts = plot_stage.plot(opened, run=target.name, dry_run=True) if has_charts else None
        recipe = _recipe(opened, target, contents.dataset(opened), detector)
        is_stale = _stale_reason(path, recipe) is not None
        return Plan("report", [f"write {path}"] if (charts and charts.actions) or is_stale else [])
    if has_charts:
        plot_stage.plot(opened, run=target.name)
    files.remove_abandoned_parts(target.folder, path.name, _RECIPE_NAME)
    dataset = contents.dataset(opened)
    recipe = _recipe(opened, target, dataset, detector)
    reason = _stale_reason(path, recipe)
    _log.info("report: %s", reason or "up to date")
    if reason is not None:
        (target.folder / _RECIPE_NAME).unlink(missing_ok=True)
        files.write_text(path, _render(opened, target, dataset, detector))
        staleness.write_recipe(target.folder / _RECIPE_NAME, recipe)
    send_news(target)
    return Report(path, target.name)


def _stale_reason(path: Path, recipe: Mapping[str, object]) -> str | None:
    """Return why a page must be written, in words; ``None`` if it is up to date."""
    reason = staleness.stale_reason(path.with_name(_RECIPE_NAME), recipe)
    return reason if path.is_file() else "the page is missing"


def _detector_page(run: Run) -> Path:
    """Return the path of the page that `oiyolo export web` writes for a run."""
    return run.folder / "export" / f"{run.name}.html"


def _detector_to_embed(run: Run) -> Path:
    """Return the page of a run's detector.

    Raises:
        UsageError: There is none, or the report would become too large.
    """
    path = _detector_page(run)
    if not path.is_file():
        raise UsageError(
            "there is no page of the detector yet",
            where=str(path),
            remedy=f"Run `oiyolo export web --run {run.name}` first",
        )
    size_bytes = path.stat().st_size
    if size_bytes > _MAX_DETECTOR_BYTES:
        raise UsageError(
            "the page of the detector is too large for the report",
            where=str(path),
            expected=f"at most {format_bytes(_MAX_DETECTOR_BYTES)}",
            found=format_bytes(size_bytes),
            remedy=f"Write it with `oiyolo export web --run {run.name} --half`, or keep it next to "
            "the report, which has a link to it",
        )
    return path


def _recipe(
    project: Project, run: Run, dataset: dict[str, Any] | None, detector: Path | None
) -> dict[str, object]:
    """Return what a page is made from."""
    folders = (run.charts_folder, run.panels_folder)
    pictures = sorted(path for folder in folders for path in folder.glob("*.png"))
    pictures.append(run.panels_folder / CHECKPOINTS)
    planned = contents.plan_rows(project)
    return {
        "run.json": files.sha256_of(run.record_path),
        "evaluation.json": staleness.fingerprint(files.read_json(run.evaluation_path)),
        "the pictures": {path.name: _sha256_or_none(path) for path in pictures},
        "panels.json": _sha256_or_none(run.panels_folder / panel_files.NAME),
        "metrics.csv": _sha256_or_none(run.folder / "metrics.csv"),
        "the dataset": dataset
        and [dataset["split"].as_dict(), dataset["counts"].as_dict(), dataset["check"].as_dict()],
        "the contact sheets": dataset
        and {name: files.sha256_of(path) for name, path in dataset["sheets"].items()},
        "the plan": planned and [row[:2] for row in planned[1]],
        "the options": contents.options_text(project),
        "the link to the detector": _detector_page(run).is_file(),
        "the detector": detector and files.sha256_of(detector),
        "version": __version__,
    }


def _sha256_or_none(path: Path) -> str | None:
    return files.sha256_of(path) if path.is_file() else None


def _render(
    project: Project, run: Run, dataset: dict[str, Any] | None, detector: Path | None
) -> str:
    evaluation = contents.find_evaluation(run)
    training = interactive.training_charts(run.folder / "metrics.csv", run.charts_folder)
    curves = {} if evaluation is None else evaluation["classes"]
    precision_recall = interactive.precision_recall_chart(
        {name: row["curve"] for name, row in curves.items()}
    )
    charts = [*training, *([precision_recall] if precision_recall else [])]
    scripts = [interactive.library_script(), interactive.drawing_script()] if charts else []
    items = contents.gallery(project, run)
    return template.render(
        "oiyolo.stages.report",
        _TEMPLATE,
        scripts=scripts,
        inline_styles=bool(charts),
        run=run,
        record=run.started_record,
        evaluation=evaluation,
        headlines=contents.headlines(evaluation) if evaluation else [],
        verdict=contents.verdict(run, evaluation),
        training_verdict=contents.loss_verdict(run),
        classes=contents.class_rows(evaluation) if evaluation else [],
        parts={
            title: contents.part_rows(evaluation[key])
            for key, title in _PARTS.items()
            if evaluation
        },
        errors=contents.error_rows(evaluation) if evaluation else [],
        items=items,
        filters=filters_of(items),
        kinds=kinds_of(items),
        sheets=_sheets(run),
        by_checkpoint=_picture(run.panels_folder / CHECKPOINTS),
        confusion=_picture(run.panels_folder / "confusion.png"),
        precision_recall=precision_recall,
        precision_recall_still=_precision_recall_still(evaluation),
        training=training,
        chart_data=json_data(interactive.to_json(charts)),
        dataset=dataset,
        splits=SPLITS,
        options=project.config,
        options_text=contents.options_text(project),
        planned=contents.plan_rows(project),
        versions=contents.version_rows(run, evaluation),
        detector_url=_detector_url(run),
        detector=detector and files.read_text(detector),
        licences=data_licences(run.started_record),
        version=__version__,
    )


def _detector_url(run: Run) -> str:
    """Return the relative URL of the detector's page; empty if there is none."""
    path = _detector_page(run)
    return quote(path.relative_to(run.folder).as_posix()) if path.is_file() else ""


def _sheets(run: Run) -> dict[str, Path]:
    """Return the contact sheets, which older versions drew without ``panels.json``."""
    paths = {name: run.panels_folder / f"{name}.png" for name in (OVERVIEW, WORST)}
    return {name: path for name, path in paths.items() if path.is_file()}


def _picture(path: Path) -> Path | None:
    return path if path.is_file() else None


def _precision_recall_still(evaluation: dict[str, Any] | None) -> str:
    """Return a picture of the precision-recall curves as a ``data:`` URL; empty without scores."""
    if evaluation is None:
        return ""
    from oiyolo.charts import canvas  # noqa: PLC0415  (slow to import)

    figure = canvas.new_figure(_STILL_PX)
    plot_precision_recall(Evaluation.from_json(evaluation), ax=figure.subplots())
    return canvas.as_data_url(figure)
