"""Several trainings side by side, as a part of plot.

Leaves ``comparison.{png,svg,csv,json}`` in ``runs/comparison-<names>/`` of the project that one of
them belongs to, or in ``comparison-<names>/`` of the current folder where none does.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.results import Result, columns, shown
from oiyolo.trainlog.lineage import number_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.stages.plot.outputs import Target
    from oiyolo.trainlog.tables import TrainLog

_LONGEST_NAME: Final = 80
_TABLE: Final = {
    "run": "run",
    "iteration": "iteration",
    "avg_loss": "darknet's average",
    "loss_smoothed": "smoothed loss",
    "iou_smoothed": "IOU",
    "map": "mAP",
    "best_map": "best mAP",
    "best_map_iteration": "at",
    "images_per_s": "images/s",
    "verdict": "verdict",
}


@dataclass(frozen=True)
class Compared(Result):
    """Trainings side by side.

    Attributes:
        rows: One per training, by column name: run, iteration, avg_loss, loss_smoothed,
            iou_smoothed, map, best_map, best_map_iteration, images_per_s, verdict.
        charts: The picture as PNG; an SVG of the same name lies beside it.
        table: The rows as CSV.
    """

    rows: Sequence[Mapping[str, Any]]
    charts: Sequence[Path]
    table: Path

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "runs": [dict(row) for row in self.rows],
            "charts": [str(path) for path in self.charts],
            "table": str(self.table),
        }

    def __str__(self) -> str:
        names = [name for name in _TABLE if any(row[name] is not None for row in self.rows)]
        names.remove("verdict")
        lines = [[_TABLE[name] for name in names]]
        lines += [[_cell(row[name]) for name in names] for row in self.rows]
        verdicts = [f"{row['run']}: {row['verdict']}" for row in self.rows]
        return "\n".join(
            [columns(lines), *verdicts, f"see {self.charts[0]} (and .svg) and {self.table}"]
        )

    def _repr_html_(self) -> str:
        return super()._repr_html_() + shown(self.charts)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return number_text(value)
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def compare(targets: Sequence[Target], logs: Mapping[str, TrainLog]) -> Compared:
    """Draw trainings side by side.

    Args:
        targets: The trainings.
        logs: Their logs in the same order, by names that differ.

    Raises:
        InputFormError: A log has no iteration lines.
    """
    from oiyolo.charts.comparison import save_comparison  # noqa: PLC0415  (matplotlib takes half a second)
    from oiyolo.trainlog.metrics_json import digest  # noqa: PLC0415  (numpy)

    folder = folder_of(targets)
    charts = save_comparison(logs, folder)
    rows = [_row(digest(log, name=name)) for name, log in logs.items()]
    table = folder / "comparison.csv"
    files.write_text(table, _csv(rows))
    files.write_json(folder / "comparison.json", {"runs": rows})
    return Compared(rows, charts, table)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import csv  # noqa: PLC0415  (only here)

    text = io.StringIO()
    writer = csv.DictWriter(text, list(_TABLE), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(numbers: Mapping[str, Any]) -> dict[str, Any]:
    last, best = numbers["last"], numbers["best"]["map"] or {}
    return {
        "run": numbers["name"],
        **{key: last[key] for key in _TABLE if key in last},
        "best_map": best.get("value"),
        "best_map_iteration": best.get("iteration"),
        "verdict": numbers["verdict"]["sentence"],
    }


def distinct_names(targets: Sequence[Target]) -> list[str]:
    """Give each training a name that no other has: where names are the same, with their folders.

    A run's name, or a file's; then so many folders before it as it takes; then a number.
    """
    names = [target.name for target in targets]
    parents = [target.log_path.absolute().parent for target in targets]
    for depth in range(1, max(len(parent.parts) for parent in parents) + 1):
        again = {name for name in names if names.count(name) > 1}
        if not again:
            return names
        names = [
            "-".join([*parent.parts[1:][-depth:], target.name]) if name in again else name
            for name, parent, target in zip(names, parents, targets, strict=True)
        ]
    return [
        name if names.count(name) == 1 else f"{name}-{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def folder_of(targets: Sequence[Target]) -> Path:
    """Give the folder of a comparison."""
    runs = [target.run for target in targets if target.run is not None]
    parent = runs[0].folder.parent if runs else Path.cwd()
    name = "-and-".join(distinct_names(targets))
    if len(name) > _LONGEST_NAME:
        code = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST_NAME // 2]}-and-{len(targets) - 1}-more-{code}"
    return parent / f"comparison-{name}"
