"""report: write a page about a run, in one file that opens anywhere.

Writes ``runs/<run>/report.html``. The page contains its pictures and loads nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final, TypedDict, overload

from oiyolo.core import files, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.core.units import format_bytes
from oiyolo.project.project import open_project
from oiyolo.stages import plot as plot_stage
from oiyolo.stages.report import comparison, contents, page
from oiyolo.stages.report.result import Report
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import find_run
from oiyolo.training.tracking import send_news

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_RECIPE_NAME: Final = ".reported-from.json"
_EVERY_S: Final = 15.0
_MAX_EVERY_S: Final = 86_400
_POLL_S: Final = 0.5
_MAX_RUNS: Final = 2
_MAX_DETECTOR_BYTES: Final = 20_000_000
"""With it, the report stays below the 25 MB that mail programs accept."""


class _Options(TypedDict, total=False):
    """Options of ``report`` that do not change the type of its result."""

    run: str | None
    with_detector: bool
    follow: bool
    every_s: float | None


@overload
def report(
    project: ProjectLike = ...,
    runs: str | Sequence[str] | None = ...,
    *,
    dry_run: Literal[False] = ...,
    **options: Unpack[_Options],
) -> Report: ...


@overload
def report(
    project: ProjectLike = ...,
    runs: str | Sequence[str] | None = ...,
    *,
    dry_run: Literal[True],
    **options: Unpack[_Options],
) -> Plan: ...


@overload
def report(
    project: ProjectLike = ...,
    runs: str | Sequence[str] | None = ...,
    *,
    dry_run: bool,
    **options: Unpack[_Options],
) -> Report | Plan: ...


def report(
    project: ProjectLike = ".",
    runs: str | Sequence[str] | None = None,
    *,
    run: str | None = None,
    with_detector: bool = False,
    follow: bool = False,
    every_s: float | None = None,
    dry_run: bool = False,
) -> Report | Plan:
    """Write a page with a run's scores, pictures and charts, or one that compares two runs.

    The page has what exists: there are no scores if the run is not evaluated yet.

    Args:
        project: An open project or its folder.
        runs: Names of one or two runs; two are compared on the images that neither has seen.
        run: The name of one run, in place of ``runs``; by default the latest one.
        with_detector: Whether the page contains the run's detector, as `oiyolo export web` wrote
            it, to try it on photographs.
        follow: Whether to write the page again until the training of the run ends; it reloads
            itself meanwhile. Ctrl-C also ends this.
        every_s: With ``follow``: seconds between two versions of the page; 15 by default.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run, no page of its detector, or that page is too large; or the
            options do not go together.
    """
    names = [runs] if isinstance(runs, str) else list(runs or ())
    _check_options(names, run=run, with_detector=with_detector, follow=follow, every_s=every_s)
    every_s = _EVERY_S if every_s is None else every_s
    opened = open_project(project)
    if len(names) > 1:
        return comparison.report(opened, names, dry_run=dry_run)
    preferences: list[Callable[[Run], bool]] = [lambda run: run.is_training] if follow else []
    preferences += [lambda run: run.evaluation_path.is_file() or run.has_final_weights, _has_charts]
    target = find_run(opened.runs_folder, names[0] if names else run, *preferences)
    detector = _detector_to_embed(target) if with_detector else None
    if dry_run:
        return _plan(opened, target, detector, every_s if follow else None)
    if follow:
        _follow(opened, target, detector, every_s)
    _write(opened, target, detector)
    send_news(target)
    return Report(_page_path(target), target.name)


def _check_options(
    runs: Sequence[str],
    *,
    run: str | None,
    with_detector: bool,
    follow: bool,
    every_s: float | None,
) -> None:
    """Raise UsageError if options do not go together."""
    if runs and run is not None:
        raise UsageError("a run was named twice", found=f"{run}, {runs[0]}", remedy="Omit --run")
    if len(runs) > _MAX_RUNS:
        raise UsageError("too many runs", expected="at most two", found=", ".join(runs))
    if len(runs) > 1 and (with_detector or follow):
        option = "--follow" if follow else "--with-detector"
        raise UsageError(f"{option} is for one run", remedy=f"Name one run, or omit {option}")
    if every_s is not None and not follow:
        raise UsageError("--every-s is only for --follow", remedy="Add --follow, or omit it")
    if every_s is not None and not 1 <= every_s <= _MAX_EVERY_S:
        raise UsageError(
            "--every-s is out of range",
            expected=f"1 to {_MAX_EVERY_S:,} seconds",
            found=f"{every_s:g}",
        )


def _page_path(run: Run) -> Path:
    return run.folder / "report.html"


def _has_charts(run: Run) -> bool:
    return latest_stats(run.log_path) is not None


def _plan(project: Project, run: Run, detector: Path | None, every_s: float | None) -> Plan:
    """Return what would be done; with ``every_s``, the page is written until training ends."""
    path = _page_path(run)
    if every_s is not None and run.is_training:
        return Plan("report", [f"write {path} every {every_s:g} s until the training ends"])
    charts = plot_stage.plot(project, run=run.name, dry_run=True) if _has_charts(run) else None
    recipe = page.recipe(run, contents.project_facts(project), detector)
    is_stale = _stale_reason(path, recipe) is not None
    return Plan("report", [f"write {path}"] if (charts and charts.actions) or is_stale else [])


def _write(
    project: Project, run: Run, detector: Path | None, *, reload_s: float | None = None
) -> None:
    """Write the page of a run unless it is up to date.

    Args:
        project: The project.
        run: The run.
        detector: The page of its detector to include; ``None`` for none.
        reload_s: Seconds after which the page loads itself again; ``None`` if it stays.
    """
    if _has_charts(run):
        plot_stage.plot(project, run=run.name)
    path = _page_path(run)
    files.remove_abandoned_parts(run.folder, path.name, _RECIPE_NAME)
    facts = contents.project_facts(project)
    recipe = page.recipe(run, facts, detector, reload_s=reload_s)
    reason = _stale_reason(path, recipe)
    _log.info("report: %s", reason or "up to date")
    if reason is not None:
        (run.folder / _RECIPE_NAME).unlink(missing_ok=True)
        files.write_text(path, page.render(project, run, facts, detector, reload_s=reload_s))
        staleness.write_recipe(run.folder / _RECIPE_NAME, recipe)


def _follow(project: Project, run: Run, detector: Path | None, every_s: float) -> None:
    """Write the page of a run again and again until its training ends, or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while run.is_training:
            _write(project, run, detector, reload_s=every_s)
            _log.info("report: %s is written again every %g s", _page_path(run), every_s)
            _wait(run, every_s)


def _wait(run: Run, seconds: float) -> None:
    """Wait for some seconds, or until the training of a run ends."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and run.is_training:
        time.sleep(_POLL_S)


def _stale_reason(path: Path, recipe: Mapping[str, object]) -> str | None:
    """Return why a page must be written, in words; ``None`` if it is up to date."""
    reason = staleness.stale_reason(path.with_name(_RECIPE_NAME), recipe)
    return reason if path.is_file() else "the page is missing"


def _detector_to_embed(run: Run) -> Path:
    """Return the page of a run's detector.

    Raises:
        UsageError: There is none, or the report would become too large.
    """
    path = page.detector_page(run)
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
