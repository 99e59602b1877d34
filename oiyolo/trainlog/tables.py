"""A training log as tables, made of what a parser has gathered when they are asked for."""

from __future__ import annotations

import io
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.core.files import write_text
from oiyolo.trainlog.dialects import DIALECTS
from oiyolo.trainlog.records import REGION_NUMBERS
from oiyolo.trainlog.rows import NO_LAYER, UNASSIGNED, Event, Iteration, MapPoint, RunRow
from oiyolo.trainlog.summary import Summary, complaints_of, overfull, summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.trainlog.records import Records, Values

__all__ = [
    "NO_LAYER",
    "UNASSIGNED",
    "Event",
    "Iteration",
    "MapPoint",
    "RunRow",
    "Summary",
    "TrainLog",
    "write_metrics_csv",
]


class TrainLog:
    """The tables of a training log; a notebook shows it as its summary and last iterations.

    A log holds what was read until it was asked for, and does not change when the file grows.
    Each table is made when it is first asked for; that costs as much as copying its columns.

    Attributes:
        name: Where it was read from; empty for text.
    """

    def __init__(self, records: Records, name: str = "") -> None:
        self._records = records
        self.name = name

    def __len__(self) -> int:
        """Count the iteration lines."""
        return len(self._records.iterations)

    def __repr__(self) -> str:
        return f"TrainLog({self.name!r}, {len(self)} iterations)"

    @property
    def latest(self) -> Iteration | None:
        """The last iteration line of the file."""
        return self._records.iteration(len(self) - 1) if len(self) else None

    def column(self, name: str) -> Values:
        """Give a column of the iterations, without a table; any but ``iou``."""
        return self._records.iterations.read(name)

    @property
    def map_points(self) -> tuple[MapPoint, ...]:
        """The rows of ``maps``, without a table."""
        return tuple(self._records.maps)

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """One row per iteration line, in the order of the file; columns as ``Iteration``'s."""
        import pandas as pd  # noqa: PLC0415  (heavy, and following a log needs no tables)

        columns = {
            name: self._overall_iou if name == "iou" else self._records.iterations.read(name)
            for name in Iteration._fields
        }
        return pd.DataFrame(columns)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """One row per region line, in the order of the file.

        Columns: iteration (missing where a line belongs to none), layer (-1 in YOLOv2's), iou
        (nan where count is 0), count (objects), class_score, obj, no_obj, recall50, recall75,
        giou, class_loss, iou_loss, total_loss (nan where not printed), run, line.
        """
        import pandas as pd  # noqa: PLC0415  (heavy, and following a log needs no tables)

        found = self._records
        starts, stops = self._region_ranges
        order = ("layer", "iou", "count", *REGION_NUMBERS[1:], "line")
        columns = {name: found.regions.read(name, shared=found.finished) for name in order}
        table = pd.DataFrame(columns, copy=False)
        for place, name in ((0, "iteration"), (len(order) - 1, "run")):
            values = np.full(len(table), UNASSIGNED)
            at = _ranges(starts, stops)
            values[at] = np.repeat(found.iterations.read(name), stops - starts)
            missing = np.ones(len(table), dtype=bool)
            missing[at] = False
            column = pd.Series(pd.arrays.IntegerArray(values, missing), copy=False)
            table.insert(place, name, column)
        return table

    @cached_property
    def maps(self) -> pd.DataFrame:
        """One row per mean average precision; columns as ``MapPoint``'s."""
        return _frame(MapPoint, self._records.maps)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event; columns as ``Event``'s."""
        return _frame(Event, self._records.events)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per training in the file; columns as ``RunRow``'s."""
        read = self._records.iterations.read
        run, number, line, dialect = (
            read(name) for name in ("run", "iteration", "line", "dialect")
        )
        starts = np.flatnonzero(np.diff(run, prepend=-1))
        lasts = np.append(starts[1:], len(run)) - 1 if len(run) else starts
        rows = [
            RunRow(
                run=int(run[first]),
                dialect=DIALECTS[dialect[first]].name,
                first_iteration=int(number[first]),
                last_iteration=int(number[last]),
                iterations=int(last - first + 1),
                first_line=int(line[first]),
                last_line=int(line[last]),
            )
            for first, last in zip(starts, lasts, strict=True)
        ]
        return _frame(RunRow, rows)

    @cached_property
    def summary(self) -> Summary:
        """What was recognised, what was skipped, and why."""
        return summary_of(self._records)

    def metrics(self) -> pd.DataFrame:
        """Give one row per iteration, as ``metrics.csv`` holds it.

        Columns: iteration, loss, avg_loss, rate, seconds, images, iou (count-weighted mean over
        the iteration's region lines), iou_<layer> for each layer (the same of its lines; nan
        where no object met it), map (0 to 1; nan but where darknet measured it). Of an iteration
        that stands twice in the log, after a resume, the later one counts.
        """
        import pandas as pd  # noqa: PLC0415  (heavy, and following a log needs no tables)

        key = ["run", "iteration"]
        names = ["loss", "avg_loss", "rate", "seconds", "images", "iou"]
        layers = pd.DataFrame(self._layer_ious(), index=self.iterations.index)
        table: pd.DataFrame = pd.concat([self.iterations[[*key, *names]], layers], axis=1)
        table = table.drop_duplicates("iteration", keep="last").sort_values("iteration")
        points = self.maps.drop_duplicates(key, keep="last").set_index(key)["map"]
        whole: pd.DataFrame = table.join(points, on=key).drop(columns="run").reset_index(drop=True)
        return whole

    def complaints(self) -> list[str]:
        """Give darknet's own words for what went wrong, each once, in the order of the log."""
        return complaints_of(self._records)

    @cached_property
    def _overfull(self) -> Values:
        return overfull(self._records)

    @cached_property
    def _region_ranges(self) -> tuple[Values, Values]:
        """The first region line of each iteration, and the one after its last."""
        read = self._records.iterations.read
        starts, stops = read("regions_from"), read("regions_to")
        stops[self._overfull] = starts[self._overfull]
        return starts, stops

    @cached_property
    def _overall_iou(self) -> Values:
        iou = self._records.ious.overall.read(0, len(self))
        iou[self._overfull] = np.nan
        return iou

    def _layer_ious(self) -> dict[str, Values]:
        """Give ``iou_<layer>`` for each layer that any iteration has lines of."""
        found = self._records
        lines = dict(found.ious.lines)
        for row in self._overfull:
            bounds = (
                int(found.iterations.read(n, row, row + 1)[0])
                for n in ("regions_from", "regions_to")
            )
            for layer in np.unique(found.regions.read("layer", *bounds)):
                lines[int(layer)] = lines.get(int(layer), 0) - 1
        columns = {}
        for layer in sorted(layer for layer in found.ious.by_layer if lines[layer] > 0):
            column = np.full(len(self), np.nan)
            known = found.ious.by_layer[layer].read(0, len(self))
            column[: len(known)] = known
            column[self._overfull] = np.nan
            columns[f"iou_{layer}"] = column
        return columns

    def _repr_html_(self) -> str:
        head = f"<pre>{escape(self.name)}\n{escape(str(self.summary))}</pre>"
        return head + (self.metrics().tail().to_html(index=False) if len(self) else "")


_DTYPES = {
    **dict.fromkeys(("kind", "text", "dialect"), "str"),
    **dict.fromkeys(("map", "threshold"), "float64"),
}


def _frame(row: type[NamedTuple], rows: Sequence[NamedTuple]) -> pd.DataFrame:
    """Make a table with one column per field, typed also where there are no rows."""
    import pandas as pd  # noqa: PLC0415  (heavy, and following a log needs no tables)

    table: pd.DataFrame = pd.DataFrame(rows, columns=list(row._fields)).astype(
        {name: _DTYPES.get(name, "int64") for name in row._fields}
    )
    return table


def _ranges(starts: Values, stops: Values) -> Values:
    """Give the numbers of all ranges, one after the other."""
    sizes = stops - starts
    numbers: Values = np.arange(sizes.sum())
    numbers += np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return numbers


def write_metrics_csv(log: TrainLog, path: Path) -> None:
    """Write ``log.metrics()`` as CSV, whole or not at all; what is not a number stays empty."""
    text = io.StringIO()
    log.metrics().to_csv(text, index=False, lineterminator="\n")
    write_text(path, text.getvalue())
