"""The part of plot that compares several training runs.

Writes ``comparison.{png,svg,csv,json}`` to ``runs/comparison-<names>/`` in the project of the first
log that belongs to a run, or to ``comparison-<names>/`` in the current folder if none does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.results import Result, format_table, images_html
from oiyolo.trainlog.lineage import format_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.stages.plot.outputs import Target
    from oiyolo.tracking.tensorboard import EventWriter

_MAX_NAME_CHARS: Final = 80
_HEADINGS: Final = {
    "run": "run",
    "iteration": "iteration",
    "avg_loss": "average loss",
    "loss_smoothed": "smoothed loss",
    "iou_smoothed": "IOU",
    "map": "mAP",
    "best_map": "best mAP",
    "best_map_iteration": "at iteration",
    "valid_map50": "valid mAP",
    "best_valid_map50": "best valid mAP",
    "best_valid_map50_iteration": "at iteration",
    "images_per_s": "images/s",
    "verdict": "verdict",
}


@dataclass(frozen=True)
class Compared(Result):
    """A comparison of training runs.

    Attributes:
        rows: One mapping per log: run, iteration, avg_loss, loss_smoothed, iou_smoothed, map,
            best_map, best_map_iteration, valid_map50, best_valid_map50,
            best_valid_map50_iteration, images_per_s, verdict.
        charts: The chart as PNG, next to an SVG of the same name.
        table: Path of the rows as CSV.
    """

    rows: Sequence[Mapping[str, Any]]
    charts: Sequence[Path]
    table: Path

    def as_dict(self) -> dict[str, object]:
        """Return the rows and the paths of chart and table as JSON-compatible values."""
        return {
            "runs": [dict(row) for row in self.rows],
            "charts": [str(path) for path in self.charts],
            "table": str(self.table),
        }

    def __str__(self) -> str:
        names = [name for name in _HEADINGS if any(row[name] is not None for row in self.rows)]
        names.remove("verdict")
        cells = [[_HEADINGS[name] for name in names]]
        cells += [[_cell(row[name]) for name in names] for row in self.rows]
        verdicts = (f"{row['run']}: {row['verdict']}" for row in self.rows)
        paths = f"chart: {self.charts[0]} (and .svg); table: {self.table}"
        return "\n".join([format_table(cells), *verdicts, paths])

    def _repr_html_(self) -> str:
        return super()._repr_html_() + images_html(self.charts)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return format_number(value)
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def compare(targets: Mapping[str, Target], writers: Sequence[EventWriter]) -> Compared:
    """Write the chart and the tables that compare several training runs.

    Args:
        targets: The logs to compare, by unique name.
        writers: Writers of their event files, in the same order; none if not requested.

    Raises:
        InputFormError: A log has no iteration lines.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    from oiyolo.charts.comparison import save_comparison  # noqa: PLC0415  (so is matplotlib)
    from oiyolo.trainlog.metrics_json import build_metrics  # noqa: PLC0415  (and numpy)

    logs = {name: target.read_log() for name, target in targets.items()}
    for writer, name in zip(writers, targets, strict=False):
        writer.write(logs[name], written_at_s=targets[name].log_path.stat().st_mtime)
    folder = comparison_folder(targets)
    files.remove_abandoned_parts(folder)
    charts = save_comparison(logs, folder)
    rows = [
        _row(build_metrics(log, name=name, max_batches=targets[name].max_batches))
        for name, log in logs.items()
    ]
    table = folder / "comparison.csv"
    # Objects, so that an integer stays one if other rows have none.
    rows_table = pd.DataFrame(rows, columns=list(_HEADINGS), dtype=object)
    files.write_text(table, rows_table.to_csv(index=False))
    files.write_json(folder / "comparison.json", {"runs": rows})
    return Compared(rows, charts, table)


def _row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    last, best = metrics["last"], metrics["best"]["map"] or {}
    best_score = metrics["best"]["valid_map50"] or {}
    return {
        "run": metrics["name"],
        **{key: last[key] for key in _HEADINGS if key in last},
        "best_map": best.get("value"),
        "best_map_iteration": best.get("iteration"),
        "best_valid_map50": best_score.get("value"),
        "best_valid_map50_iteration": best_score.get("iteration"),
        "verdict": metrics["verdict"]["sentence"],
    }


def named(targets: Sequence[Target]) -> dict[str, Target]:
    """Return logs by unique name.

    A name is the run's or the file's name, preceded by as many parent folders as needed to make it
    unique, and followed by a number if that is not enough.
    """
    names = [target.name for target in targets]
    parents = [target.log_path.absolute().parent.parts[1:] for target in targets]
    for depth in range(1, max(map(len, parents)) + 1):
        names = [
            "-".join([*parent[-depth:], target.name]) if names.count(name) > 1 else name
            for name, parent, target in zip(names, parents, targets, strict=True)
        ]
    numbered = [
        name if names.count(name) == 1 else f"{name}-{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]
    return dict(zip(numbered, targets, strict=True))


def comparison_folder(targets: Mapping[str, Target]) -> Path:
    """Return the output folder of a comparison of logs by unique name."""
    runs = [target.run for target in targets.values() if target.run is not None]
    parent = runs[0].folder.parent if runs else Path.cwd()
    name = "-and-".join(targets)
    if len(name) > _MAX_NAME_CHARS:
        suffix = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: _MAX_NAME_CHARS // 2]}-and-{len(targets) - 1}-more-{suffix}"
    return parent / f"comparison-{name}"
