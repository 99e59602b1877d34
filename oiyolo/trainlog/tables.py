"""A training log as tables, built from the parser's records on first access."""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.core.files import write_text
from oiyolo.core.results import text_html
from oiyolo.trainlog.dialects import DIALECTS
from oiyolo.trainlog.records import find_owners, mean_ious
from oiyolo.trainlog.rows import (
    NO_LAYER,
    REGION_NUMBERS,
    UNASSIGNED,
    Event,
    Iteration,
    MapPoint,
    RunRow,
    ValidLoss,
)
from oiyolo.trainlog.summary import (
    Summary,
    collect_complaints,
    iterations_with_excess_regions,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.trainlog.records import Records, Values
    from oiyolo.trainlog.scores import CheckpointScore

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

_MAX_LAYERS = 256  # no network has more; further layer numbers come from junk


class TrainLog:
    """The tables of a training log; notebooks show its summary and last iterations.

    It contains everything read at the time of its creation, and does not change when the file
    grows. Each table is built on first access, which costs as much as copying its columns.

    Attributes:
        name: Path of the log; empty if it was parsed from text.
        scores: The scores of checkpoints, by iteration; a log itself has none (``with_scores``).
    """

    def __init__(
        self, records: Records, name: str = "", scores: Sequence[CheckpointScore] = ()
    ) -> None:
        self._records = records
        self.name = name
        self.scores = tuple(scores)

    def __len__(self) -> int:
        """Return the number of iteration lines."""
        return len(self._records.iterations)

    def __repr__(self) -> str:
        return f"TrainLog({self.name!r}, {len(self)} iterations)"

    def with_scores(self, scores: Sequence[CheckpointScore]) -> TrainLog:
        """Return the same log with scores of the run's checkpoints, by iteration."""
        return TrainLog(self._records, self.name, scores)

    @property
    def latest(self) -> Iteration | None:
        """The last iteration line of the file; ``None`` if the log has no iterations."""
        return self._records.iteration(len(self) - 1) if len(self) else None

    def column(self, name: str) -> Values:
        """Return a column of the iterations other than ``iou``, without building the table."""
        return self._records.iterations.read(name)

    def load_waits(self) -> Values:
        """Return how long each iteration waited for its images, in seconds, without the table.

        NaN where the log does not say so; negative where loading was done before training needed
        the images.
        """
        records = self._records
        waits = records.iterations.read("load_wait")
        rows = np.searchsorted(records.iterations.read("line"), records.loads.read("line"))
        is_known = rows < len(waits)
        waits[rows[is_known]] = records.loads.read("seconds")[is_known]
        return waits

    @property
    def map_points(self) -> tuple[MapPoint, ...]:
        """The rows of ``maps``, without building the table."""
        return tuple(self._records.maps)

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """One row per iteration line, in file order; columns as in ``Iteration``."""
        import pandas as pd  # noqa: PLC0415  (slow import, not needed to follow a log)

        columns = {
            name: self._overall_iou if name == "iou" else self._records.iterations.read(name)
            for name in Iteration._fields
        }
        return pd.DataFrame(columns)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """One row per region line, in file order.

        Columns: iteration (missing if the line belongs to none), layer (-1 for YOLOv2), iou (NaN if
        count is 0), count (objects), class_score, obj, no_obj, recall50, recall75, giou,
        class_loss, iou_loss, total_loss (NaN if not printed), run, line.
        """
        import pandas as pd  # noqa: PLC0415  (slow import, not needed to follow a log)

        records = self._records
        order = ("layer", "iou", "count", *REGION_NUMBERS[1:], "line")
        columns = {name: records.regions.read(name, shared=records.finished) for name in order}
        table = pd.DataFrame(columns, copy=False)
        is_unassigned = self._owners == len(self)
        for position, name in ((0, "iteration"), (len(order) - 1, "run")):
            values = np.append(records.iterations.read(name), UNASSIGNED)[self._owners]
            column = pd.Series(pd.arrays.IntegerArray(values, is_unassigned.copy()), copy=False)
            table.insert(position, name, column)
        return table

    @cached_property
    def maps(self) -> pd.DataFrame:
        """One row per mean average precision; columns as in ``MapPoint``."""
        return _frame(MapPoint, self._records.maps)

    @cached_property
    def valid_losses(self) -> pd.DataFrame:
        """One row per loss on the valid images; columns as in ``ValidLoss``."""
        return _frame(ValidLoss, self._records.valid_losses)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event; columns as in ``Event``."""
        return _frame(Event, self._records.events)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run in the file; columns as in ``RunRow``."""
        read = self._records.iterations.read
        run, number, line, dialect = (
            read(name) for name in ("run", "iteration", "line", "dialect")
        )
        starts = np.flatnonzero(np.diff(run, prepend=-1))
        ends = np.append(starts[1:], len(run)) - 1 if len(run) else starts
        run_rows = [
            RunRow(
                run=int(run[first]),
                dialect=DIALECTS[dialect[first]].name,
                first_iteration=int(number[first]),
                last_iteration=int(number[last]),
                iterations=int(last - first + 1),
                first_line=int(line[first]),
                last_line=int(line[last]),
            )
            for first, last in zip(starts, ends, strict=True)
        ]
        return _frame(RunRow, run_rows)

    @cached_property
    def summary(self) -> Summary:
        """What was recognised, what was skipped, and why."""
        return summarize(self._records)

    def metrics(self) -> pd.DataFrame:
        """Return one row per iteration, as in ``metrics.csv``.

        Columns: iteration, loss, avg_loss, rate, seconds, images, iou (count-weighted mean over
        the iteration's region lines), iou_<layer> for each layer (the same over its lines; NaN if
        the layer had no object), map (0 to 1; NaN unless darknet measured it), valid_map50 and
        train_map50 (0 to 1; NaN unless ``scores`` has a checkpoint of this iteration), valid_loss
        (NaN unless it was measured). If a resume repeats an iteration number, the last one is kept.
        """
        import pandas as pd  # noqa: PLC0415  (slow import, not needed to follow a log)

        key = ["run", "iteration"]
        names = ["loss", "avg_loss", "rate", "seconds", "images", "iou"]
        layers = pd.DataFrame(self._layer_ious(), index=self.iterations.index)
        table: pd.DataFrame = pd.concat([self.iterations[[*key, *names]], layers], axis=1)
        table = table.drop_duplicates("iteration", keep="last").sort_values("iteration")
        points = self.maps.drop_duplicates(key, keep="last").set_index(key)["map"]
        losses = self.valid_losses.drop_duplicates(key, keep="last").set_index(key)["loss"]
        metrics: pd.DataFrame = (
            table.join(points, on=key)
            .join(losses.rename("valid_loss"), on=key)
            .drop(columns="run")
            .reset_index(drop=True)
        )
        scores = self._score_columns(metrics["iteration"].to_numpy())
        return metrics.assign(**scores, valid_loss=metrics.pop("valid_loss"))

    def complaints(self) -> list[str]:
        """Return the errors that darknet printed and an unrecovered divergence, each once."""
        return collect_complaints(self._records)

    @cached_property
    def _excess_region_rows(self) -> Values:
        return iterations_with_excess_regions(self._records)

    @cached_property
    def _owners(self) -> Values:
        """The index of the iteration of each region row; ``len(self)`` if it has none."""
        records = self._records
        starts, stops = (records.iterations.read(name) for name in ("regions_from", "regions_to"))
        starts[self._excess_region_rows] = stops[self._excess_region_rows]
        return find_owners(starts, stops, len(records.regions))

    @cached_property
    def _overall_iou(self) -> Values:
        iou, count = self._region_columns("iou", "count")
        return mean_ious(iou, count, self._owners, len(self))

    def _layer_ious(self) -> dict[str, Values]:
        """Return the column ``iou_<layer>`` for each layer with region lines in an iteration."""
        iou, count, layer = self._region_columns("iou", "count", "layer")
        numbers = np.unique(layer[self._owners < len(self)])
        ious = {}
        for number in numbers[numbers != NO_LAYER][:_MAX_LAYERS].tolist():
            rows = np.flatnonzero(layer == number)
            ious[f"iou_{number}"] = mean_ious(iou[rows], count[rows], self._owners[rows], len(self))
        return ious

    def _score_columns(self, iterations: Values) -> dict[str, Values]:
        """Return the columns of the scores; darknet may print only some iterations."""
        columns = {
            name: np.full(len(iterations), np.nan) for name in ("valid_map50", "train_map50")
        }
        for score in self.scores:
            row = int(np.searchsorted(iterations, score.iteration, side="right")) - 1
            if row >= 0 and score.iteration <= iterations[-1]:
                columns["valid_map50"][row] = score.valid_map50
                columns["train_map50"][row] = score.train_map50
        return columns

    def _region_columns(self, *names: str) -> list[Values]:
        return [self._records.regions.read(name, shared=True) for name in names]

    def _repr_html_(self) -> str:
        head = text_html(self.name, *str(self.summary).splitlines())
        if not len(self):
            return head
        last = self.metrics().dropna(axis="columns", how="all").tail()
        return head + last.to_html(index=False, na_rep="", float_format="{:.4g}".format)


_DTYPES = {
    **dict.fromkeys(("kind", "text", "dialect"), "str"),
    **dict.fromkeys(("map", "threshold", "loss"), "float64"),
}


def _frame(row: type[NamedTuple], rows: Sequence[NamedTuple]) -> pd.DataFrame:
    """Return a table with one column per field, with the right types even if it is empty."""
    import pandas as pd  # noqa: PLC0415  (slow import, not needed to follow a log)

    table: pd.DataFrame = pd.DataFrame(rows, columns=list(row._fields)).astype(
        {name: _DTYPES.get(name, "int64") for name in row._fields}
    )
    return table


def write_metrics_csv(log: TrainLog, path: Path) -> None:
    """Write ``log.metrics()`` as CSV atomically, with empty cells for NaN."""
    text = io.StringIO()
    log.metrics().to_csv(text, index=False, lineterminator="\n")
    write_text(path, text.getvalue())
