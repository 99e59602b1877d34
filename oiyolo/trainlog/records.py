"""The parser's records: columns that only grow at the end.

A snapshot of everything so far therefore needs no copy; it only stores the length of the columns.
Region lines are assigned to iterations by index ranges, two numbers per iteration.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from oiyolo.trainlog.rows import NO_LAYER, Iteration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.trainlog.rows import Event, MapPoint

Values = npt.NDArray[Any]

REGION_NUMBERS = (
    "iou",
    "class_score",
    "obj",
    "no_obj",
    "recall50",
    "recall75",
    "giou",
    "class_loss",
    "iou_loss",
    "total_loss",
)
"""Floating-point columns of region lines, in the order of their table."""

_REGION_COLUMNS = {"layer": "i", "count": "i", **dict.fromkeys(REGION_NUMBERS, "d"), "line": "q"}
_ITERATION_COLUMNS = {
    **dict.fromkeys(("iteration", "images", "run", "line"), "q"),
    **dict.fromkeys(("loss", "avg_loss", "rate", "seconds", "hours_left"), "d"),
    **dict.fromkeys(("regions_from", "regions_to"), "q"),
    "dialect": "b",
}
_MAX_LAYERS = 256  # no network has more; further layer numbers come from junk


class Column:
    """A growing array of numbers; leading NaNs take no memory, as many columns have only NaN."""

    def __init__(self, code: str) -> None:
        self._values: array[Any] = array(code)  # of ints or floats, by type code
        self._leading_nans = 0

    def __len__(self) -> int:
        return self._leading_nans + len(self._values)

    def append(self, value: float) -> None:
        """Append one number, which must be an int in an integer column."""
        if not self._values and value != value:  # noqa: PLR0124  (nan)
            self._leading_nans += 1
        else:
            self._values.append(value)

    def extend(self, values: Values) -> None:
        """Append many numbers; whole numbers may be given as floats."""
        if not self._values and values.dtype.kind == "f" and np.isnan(values).all():
            self._leading_nans += len(values)
        else:
            data = np.ascontiguousarray(values, dtype=self._values.typecode)
            self._values.frombytes(data.data.cast("B"))

    def read(self, start: int, stop: int, *, shared: bool = False) -> Values:
        """Return part of the column.

        Args:
            start: First row.
            stop: Row after the last one.
            shared: Whether to avoid a copy if possible; the column can then never grow again.
        """
        values = np.frombuffer(self._values, dtype=self._values.typecode)
        values = values[max(0, start - self._leading_nans) : max(0, stop - self._leading_nans)]
        missing = max(0, min(stop, self._leading_nans) - start)
        if missing:
            return np.concatenate([np.full(missing, np.nan), values])
        return values if shared else values.copy()


class Columns:
    """Columns of equal length, or a snapshot of their first rows."""

    def __init__(self, columns: Mapping[str, Column], length: int | None = None) -> None:
        self._columns = columns
        self._length = length

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        return len(next(iter(self._columns.values())))

    def snapshot(self) -> Columns:
        """Return the current rows as columns that never change."""
        return Columns(self._columns, len(self))

    def append(self, row: Mapping[str, float]) -> None:
        """Append a row; values without a column are ignored."""
        for name, column in self._columns.items():
            column.append(row[name])

    def extend(self, rows: Mapping[str, Values]) -> None:
        """Append rows given as columns; additional columns are ignored."""
        for name, column in self._columns.items():
            column.extend(rows[name])

    def read(
        self, name: str, start: int = 0, stop: int | None = None, *, shared: bool = False
    ) -> Values:
        """Return a column, or some rows of it, as ``Column.read`` does."""
        return self._columns[name].read(start, len(self) if stop is None else stop, shared=shared)


@dataclass
class Ious:
    """The count-weighted mean IOU of each iteration, over all its region lines and by layer.

    Attributes:
        overall: One number per processed iteration; NaN for iterations without an IOU.
        by_layer: The same for each layer; shorter if the layer is missing in the last iterations.
        iteration_counts: Number of iterations with lines of each layer.
    """

    overall: Column = field(default_factory=lambda: Column("d"))
    by_layer: dict[int, Column] = field(default_factory=dict)
    iteration_counts: dict[int, int] = field(default_factory=dict)

    def update(self, iterations: Columns, regions: Columns) -> None:
        """Process new iterations, in time proportional to their region lines."""
        first, last = len(self.overall), len(iterations)
        if first == last:
            return
        starts = iterations.read("regions_from", first, last)
        sizes = iterations.read("regions_to", first, last) - starts
        low, high = int(starts[0]), int((starts + sizes)[-1])
        owner = np.repeat(np.arange(last - first), sizes)
        iou, count, layer = (regions.read(name, low, high) for name in ("iou", "count", "layer"))
        if len(owner) < high - low:  # some lines in between belong to no iteration
            indices = np.arange(len(owner)) + np.repeat(
                starts - low - (np.cumsum(sizes) - sizes), sizes
            )
            iou, count, layer = iou[indices], count[indices], layer[indices]
        self.overall.extend(_weighted_mean(iou, count, owner, last - first))
        while len(layer):
            number = int(layer[0])
            is_layer = layer == number
            if number in self.by_layer or (number != NO_LAYER and len(self.by_layer) < _MAX_LAYERS):
                column = self.by_layer.setdefault(number, Column("d"))
                column.extend(np.full(first - len(column), np.nan))
                column.extend(
                    _weighted_mean(iou[is_layer], count[is_layer], owner[is_layer], last - first)
                )
                occurrences = np.count_nonzero(np.bincount(owner[is_layer]))
                self.iteration_counts[number] = self.iteration_counts.get(number, 0) + int(
                    occurrences
                )
            elif number != NO_LAYER:
                is_layer = ~np.isin(layer, list(self.by_layer))
            iou, count, layer, owner = (values[~is_layer] for values in (iou, count, layer, owner))


def _weighted_mean(iou: Values, count: Values, owner: Values, n: int) -> Values:
    is_finite = np.isfinite(iou)
    iou, count, owner = iou[is_finite], count[is_finite], owner[is_finite]
    weights = np.bincount(owner, weights=count, minlength=n)
    sums = np.bincount(owner, weights=iou * count, minlength=n)
    means: Values = np.divide(sums, weights, out=np.full(n, np.nan), where=weights > 0)
    return means


@dataclass
class Records:
    """Everything that a parser has read.

    Attributes:
        keep_regions: Whether region lines become rows; if not, they are only counted.
        iterations: The iteration lines.
        regions: The region lines.
        ious: Mean IOU of the iterations.
        maps: The mAP points.
        events: The events.
        dialects: Names of the recognised dialects, each with its first line.
        lines: Lines in the file.
        other: Lines with nothing for the tables.
        regions_counted: Region lines that did not become rows.
        regions_empty: Region lines without an object.
        mended: Lines split by another stream and rejoined.
        torn: Fragments of lines that were skipped.
        torn_lines: Line numbers of the first few fragments.
        finished: Whether the records are complete, so that tables may share the columns' memory.
    """

    keep_regions: bool = True
    iterations: Columns = field(default_factory=lambda: _empty(_ITERATION_COLUMNS))
    regions: Columns = field(default_factory=lambda: _empty(_REGION_COLUMNS))
    ious: Ious = field(default_factory=Ious)
    maps: list[MapPoint] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dialects: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    other: int = 0
    regions_counted: int = 0
    regions_empty: int = 0
    mended: int = 0
    torn: int = 0
    torn_lines: list[int] = field(default_factory=list)
    finished: bool = False

    def add_dialect(self, dialect: str, line: int) -> None:
        """Record that ``line`` is in a dialect."""
        self.dialects[dialect] = min(line, self.dialects.get(dialect, line))

    def update_ious(self) -> None:
        """Compute the IOU of new iterations."""
        self.ious.update(self.iterations, self.regions)

    def snapshot(self, *, finished: bool = False) -> Records:
        """Return a cheap snapshot of the records, which later lines do not change.

        Args:
            finished: Whether no more lines will be added to the original either.
        """
        return replace(
            self,
            finished=finished,
            iterations=self.iterations.snapshot(),
            regions=self.regions.snapshot(),
            ious=replace(
                self.ious,
                by_layer=dict(self.ious.by_layer),
                iteration_counts=dict(self.ious.iteration_counts),
            ),
            maps=self.maps[:],
            events=self.events[:],
            dialects=dict(self.dialects),
            torn_lines=self.torn_lines[:],
        )

    def iteration(self, index: int) -> Iteration:
        """Return one iteration, whose IOU must have been computed."""
        columns: list[Values] = [
            self.ious.overall.read(index, index + 1)
            if name == "iou"
            else self.iterations.read(name, index, index + 1)
            for name in Iteration._fields
        ]
        # Use the object ``math.nan``, so that equal tuples compare equal.
        values: list[Any] = [math.nan if c[0] != c[0] else c[0].item() for c in columns]
        return Iteration(*values)


def _empty(columns: Mapping[str, str]) -> Columns:
    return Columns({name: Column(code) for name, code in columns.items()})
