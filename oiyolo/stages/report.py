"""report: write a page about a run, in one file that opens anywhere.

Writes ``runs/<run>/report.html``. The page contains its pictures and loads nothing else.
"""

from __future__ import annotations

import html
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict, overload
from urllib.parse import quote

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, data_url
from oiyolo.core.units import format_bytes
from oiyolo.evaluation.summary import with_current_keys
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import plot as plot_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.split.check import check_split
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
        is_stale = _stale_reason(path, _recipe(target, _dataset(opened), detector)) is not None
        return Plan("report", [f"write {path}"] if (charts and charts.actions) or is_stale else [])
    if has_charts:
        plot_stage.plot(opened, run=target.name)
    files.remove_abandoned_parts(target.folder, path.name, _RECIPE_NAME)
    dataset = _dataset(opened)
    recipe = _recipe(target, dataset, detector)
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


def _dataset(project: Project) -> dict[str, Any] | None:
    """Return the figures of the dataset; ``None`` if there is none."""
    dataset = split_stage.find(project) if project.ledger_path.is_file() else None
    if dataset is None:
        return None
    with project.ledger(read_only=True) as ledger:
        counts = ledger.counts()
    return {
        "split": dataset,
        "selected": counts.selected,
        "excluded": counts.excluded,
        "check": check_split(project),
    }


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


def _recipe(run: Run, dataset: dict[str, Any] | None, detector: Path | None) -> dict[str, object]:
    pictures = sorted([*run.charts_folder.glob("*.png"), *run.panels_folder.glob("*.png")])
    return {
        "run.json": files.sha256_of(run.record_path),
        "evaluation.json": staleness.fingerprint(files.read_json(run.evaluation_path)),
        "the pictures": {path.name: files.sha256_of(path) for path in pictures},
        "the dataset": dataset
        and [dataset["split"].as_dict(), dataset["excluded"], dataset["check"].as_dict()],
        "the link to the detector": _detector_page(run).is_file(),
        "the detector": detector and files.sha256_of(detector),
        "version": __version__,
    }


def _render(
    project: Project, run: Run, dataset: dict[str, Any] | None, detector: Path | None
) -> str:
    import jinja2  # noqa: PLC0415  (only this stage writes HTML)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oiyolo", "stages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "data_url": data_url}
    return environment.get_template(_TEMPLATE).render(
        run=run,
        record=run.started_record,
        evaluation=_evaluation(run),
        verdict=_verdict(run),
        dataset=dataset,
        splits=SPLITS,
        panels=_pictures(run.panels_folder, ("overview", "worst", "confusion")),
        charts=_pictures(run.charts_folder, ("loss", "iou", "map", "checkpoints")),
        options=project.config,
        detector_url=_detector_url(run),
        detector=detector and files.read_text(detector),
        licences=data_licences(run.started_record),
        version=__version__,
    )


def _detector_url(run: Run) -> str:
    """Return the relative URL of the detector's page; empty if there is none."""
    path = _detector_page(run)
    return quote(path.relative_to(run.folder).as_posix()) if path.is_file() else ""


class _Scores(TypedDict):
    """What the page shows of ``evaluation.json``, apart from the figures."""

    split: str


def _evaluation(run: Run) -> dict[str, Any] | None:
    """Return the run's scores; ``None`` if there are none."""
    remedy = f"Run `oiyolo evaluate --run {run.name}`, which writes it again"
    content = records.find(run.evaluation_path, _Scores, remedy=remedy)
    if content is None:
        return None
    with records.convert_damage(run.evaluation_path, remedy):
        return with_current_keys(content)


class _Verdict(TypedDict):
    sentence: str


class _Metrics(TypedDict):
    """What the page shows of ``metrics.json``."""

    verdict: _Verdict


def _verdict(run: Run) -> str:
    """Return how the training went, in a sentence; empty if there are no figures."""
    numbers = records.find_intact(run.folder / "metrics.json", _Metrics)
    return "" if numbers is None else str(numbers["verdict"]["sentence"])


def _pictures(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    return {n: folder / f"{n}.png" for n in names if (folder / f"{n}.png").is_file()}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001  (an en dash)
