"""The page that compares two runs side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from oiyolo import __version__
from oiyolo.charts import interactive
from oiyolo.core import files, staleness
from oiyolo.core.results import Plan
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.figures import HEADLINES
from oiyolo.pages import template
from oiyolo.pages.gallery import filters_of, kinds_of
from oiyolo.pages.inline import json_data
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.stages import plot as plot_stage
from oiyolo.stages.report import contents
from oiyolo.stages.report.result import Report
from oiyolo.training.live_reader import latest_stats
from oiyolo.training.run import find_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.pages.gallery import Item
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.compare import RunsCompared
    from oiyolo.training.run import Run

_TEMPLATE: Final = "comparison.html.j2"


def report(project: Project, names: Sequence[str], *, dry_run: bool) -> Report | Plan:
    """Write ``runs/<first>/comparison-<second>.html``.

    Args:
        project: The project.
        names: The names of the two runs.
        dry_run: Whether to only report what would be done.

    Raises:
        OiyoloError: As for ``oiyolo.evaluate`` of two runs.
    """
    first, second = runs = [find_run(project.runs_folder, name) for name in names]
    path = first.folder / f"comparison-{second.name}.html"
    recipe_path = path.with_name(f".{path.stem}-from.json")
    with_charts = [run for run in runs if latest_stats(run.log_path) is not None]
    if dry_run:
        planned = cast("Plan", evaluate_stage.evaluate(project, list(names), dry_run=True))
        actions = [*planned.actions]
        for run in with_charts:
            actions += plot_stage.plot(project, run=run.name, dry_run=True).actions
        is_written = path.is_file() and not actions
        if is_written:
            compared = cast("RunsCompared", evaluate_stage.evaluate(project, list(names)))
            is_written = staleness.stale_reason(recipe_path, _recipe(runs, compared)) is None
        return Plan("report", actions if is_written else [*actions, f"write {path}"])
    compared = cast("RunsCompared", evaluate_stage.evaluate(project, list(names)))
    for run in with_charts:
        plot_stage.plot(project, run=run.name)
    recipe = _recipe(runs, compared)
    files.remove_abandoned_parts(first.folder, path.name, recipe_path.name)
    if not path.is_file() or staleness.stale_reason(recipe_path, recipe) is not None:
        recipe_path.unlink(missing_ok=True)
        files.write_text(path, _render(project, runs, compared))
        staleness.write_recipe(recipe_path, recipe)
    return Report(path, f"{first.name}, {second.name}")


def _recipe(runs: Sequence[Run], compared: RunsCompared) -> dict[str, object]:
    """Return what the page is made from."""
    return {
        "the comparison": staleness.fingerprint(compared.as_dict()),
        "the curves and pictures": [
            files.sha256_of(path)
            for run in runs
            for path in (run.folder / "metrics.csv", run.panels_folder / panel_files.NAME)
            if path.is_file()
        ],
        "version": __version__,
    }


def _render(project: Project, runs: Sequence[Run], compared: RunsCompared) -> str:
    charts = interactive.joined(
        {
            run.name: interactive.training_charts(run.folder / "metrics.csv", run.charts_folder)
            for run in runs
        }
    )
    items = list(_items(project, runs, compared.content))
    content = compared.content
    names = [content[side]["run"] for side in ("first", "second")]
    scores = {label: content[key] for label, key in HEADLINES}
    if len(content["classes"]) > 1:
        scores |= content["classes"]
    return template.render(
        "oiyolo.stages.report",
        _TEMPLATE,
        scripts=interactive.scripts(charts),
        inline_styles=bool(charts),
        names=names,
        content=content,
        verdict=compared.verdict,
        notes=compared.notes(),
        rows=[_row(name, row) for name, row in scores.items()],
        items=items,
        filters=filters_of(items),
        kinds=kinds_of(items),
        picture=None if items else compared.picture,
        charts=charts,
        chart_data=json_data(interactive.to_json(charts)),
        version=__version__,
    )


def _row(name: str, row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table of scores."""
    bounds = row["interval"]
    interval = template.MISSING
    if bounds is not None:
        interval = f"{bounds[0]:+.1%} to {bounds[1]:+.1%}"
    difference = row["difference"]
    return [
        name,
        template.format_percent(row["first"]),
        template.format_percent(row["second"]),
        template.MISSING if difference is None else f"{difference:+.1%}",
        interval,
        "yes" if row["beyond_chance"] else "no",
    ]


def _items(project: Project, runs: Sequence[Run], content: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the images in which one makes more errors than the other, as both see them."""
    item_by_id = [{item.image_id: item for item in contents.gallery(project, run)} for run in runs]
    for row in content["most_different"]:
        image_id = row["image_id"]
        errors = [sum(row[side].values()) for side in ("first", "second")]
        better = runs[errors[1] < errors[0]].name
        for run, items in zip(runs, item_by_id, strict=True):
            item = items.get(image_id)
            if item is not None:
                tags = {"run": [run.name], "fewer errors": [better], **item.tags}
                yield replace(item, caption=f"{run.name}: {item.caption}", tags=tags)
