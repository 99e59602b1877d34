"""The page of one run: what it is made from, and its HTML."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from oiyolo import __version__
from oiyolo.charts import interactive
from oiyolo.core import files, staleness
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.panels import CHECKPOINTS, OVERVIEW, WORST
from oiyolo.evaluation.plots import plot_precision_recall
from oiyolo.evaluation.summary import Evaluation
from oiyolo.pages import template
from oiyolo.pages.gallery import filters_of, kinds_of
from oiyolo.pages.inline import json_data
from oiyolo.project.ledger import SPLITS
from oiyolo.stages.report import contents
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run_detector import data_licences

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.project.project import Project
    from oiyolo.stages.report.contents import ProjectFacts
    from oiyolo.training.run import Run

_TEMPLATE: Final = "report.html.j2"
_PARTS: Final = {"by_size": "Size of the true boxes", "by_attribute": "Attribute of the true boxes"}
_STILL_PX: Final = (800, 600)


def detector_page(run: Run) -> Path:
    """Return the path of the page that `oiyolo export web` writes for a run."""
    return run.folder / "export" / f"{run.name}.html"


def recipe(
    run: Run,
    facts: ProjectFacts,
    detector: Path | None,
    *,
    reload_s: float | None = None,
) -> dict[str, object]:
    """Return what a page is made from.

    Args:
        run: The run.
        facts: What is shown of its project.
        detector: The page of the detector to include; ``None`` for none.
        reload_s: Seconds after which the page loads itself again; ``None`` if it stays.
    """
    folders = (run.charts_folder, run.panels_folder)
    pictures = sorted(path for folder in folders for path in folder.glob("*.png"))
    pictures.append(run.panels_folder / CHECKPOINTS)
    dataset, planned = facts.dataset, facts.planned
    return {
        "run.json": files.sha256_of(run.record_path),
        "evaluation.json": staleness.fingerprint(files.read_json(run.evaluation_path)),
        "the pictures": {path.name: _sha256_or_none(path) for path in pictures},
        "panels.json": _sha256_or_none(run.panels_folder / panel_files.NAME),
        "metrics.csv": _sha256_or_none(run.folder / "metrics.csv"),
        "the dataset": dataset
        and [part.as_dict() for part in (dataset.split, dataset.counts, dataset.check)],
        "the contact sheets": dataset
        and {name: files.sha256_of(path) for name, path in dataset.sheets.items()},
        "the plan": planned and [row[:2] for row in planned[1]],
        "the suspected label errors": facts.suspected
        and staleness.fingerprint(asdict(facts.suspected)),
        "the options": facts.options_text,
        "the link to the detector": detector_page(run).is_file(),
        "the detector": detector and files.sha256_of(detector),
        "the reloading": reload_s,
        "version": __version__,
    }


def _sha256_or_none(path: Path) -> str | None:
    return files.sha256_of(path) if path.is_file() else None


def render(
    project: Project,
    run: Run,
    facts: ProjectFacts,
    detector: Path | None,
    *,
    reload_s: float | None = None,
) -> str:
    """Return the page of a run.

    Args:
        project: The project.
        run: As for ``recipe``.
        facts: As for ``recipe``.
        detector: As for ``recipe``.
        reload_s: As for ``recipe``.
    """
    evaluation, latest = contents.find_evaluation(run), latest_stats(run.log_path)
    training = interactive.training_charts(run.folder / "metrics.csv", run.charts_folder)
    curves = {} if evaluation is None else evaluation["classes"]
    precision_recall = interactive.precision_recall_chart(
        {name: row["curve"] for name, row in curves.items()}
    )
    charts = [*training, *([precision_recall] if precision_recall else [])]
    items = contents.gallery(project, run)
    suspected = contents.suspected_items(project, facts.suspected)
    return template.render(
        "oiyolo.stages.report",
        _TEMPLATE,
        scripts=interactive.scripts(charts),
        reload_s=None if reload_s is None else max(1, round(reload_s)),
        inline_styles=bool(charts),
        run=run,
        record=run.started_record,
        program=contents.program_text(run.started_record["darknet"]),
        iteration=latest.iteration if latest else None,
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
        dataset=facts.dataset,
        splits=SPLITS,
        options=project.config,
        options_text=facts.options_text,
        suspected=facts.suspected,
        suspected_items=suspected,
        suspected_kinds=kinds_of(suspected),
        planned=facts.planned,
        versions=contents.version_rows(run, evaluation),
        detector_url=_detector_url(run),
        detector=detector and files.read_text(detector),
        licences=data_licences(run.started_record),
        version=__version__,
    )


def _detector_url(run: Run) -> str:
    """Return the relative URL of the detector's page; empty if there is none."""
    path = detector_page(run)
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
