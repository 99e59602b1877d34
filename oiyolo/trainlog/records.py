"""What a parser has gathered: columns that only ever grow at their end.

Because of that, tables of "everything so far" need no copy when they are asked for: they remember
how long the columns were. Region lines belong to iterations by ranges, two numbers an iteration.
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
"""The columns of region lines that hold fractions, in the order of their table."""

_REGION_COLUMNS = {"layer": "i", "count": "i", **dict.fromkeys(REGION_NUMBERS, "d"), "line": "q"}
_ITERATION_COLUMNS = {
    **dict.fromkeys(("iteration", "images", "run", "line"), "q"),
    **dict.fromkeys(("loss", "avg_loss", "rate", "seconds", "hours_left"), "d"),
    **dict.fromkeys(("regions_from", "regions_to"), "q"),
    "dialect": "b",
}
_MOST_LAYERS = 256  # no network has as many: beyond, layer numbers come out of junk


class Column:
    """Numbers of one kind; nan at the beginning takes no room, as many columns are nothing else."""

    def __init__(self, code: str) -> None:
        self._values: array[Any] = array(code)  # of ints or floats, as its code says
        self._nans_first = 0

    def __len__(self) -> int:
        return self._nans_first + len(self._values)

    def append(self, value: float) -> None:
        """Add one number; an int where the column holds ints."""
        if not self._values and value != value:  # noqa: PLR0124  (nan)
            self._nans_first += 1
        else:
            self._values.append(value)

    def extend(self, values: Values) -> None:
        """Add many; whole numbers may come as floats."""
        if not self._values and values.dtype.kind == "f" and np.isnan(values).all():
            self._nans_first += len(values)
        else:
            plain = np.ascontiguousarray(values, dtype=self._values.typecode)
            self._values.frombytes(plain.data.cast("B"))

    def read(self, start: int, stop: int, *, shared: bool = False) -> Values:
        """Give a part of the column.

        Args:
            start: The first row.
            stop: The row after the last.
            shared: Without a copy, where that can be; the column can never grow again then.
        """
        own = np.frombuffer(self._values, dtype=self._values.typecode)
        own = own[max(0, start - self._nans_first) : max(0, stop - self._nans_first)]
        missing = max(0, min(stop, self._nans_first) - start)
        if missing:
            return np.concatenate([np.full(missing, np.nan), own])
        return own if shared else own.copy()


class Columns:
    """Columns of equal length, or the first rows of such."""

    def __init__(self, columns: Mapping[str, Column], length: int | None = None) -> None:
        self._columns = columns
        self._length = length

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        return len(next(iter(self._columns.values())))

    def until_now(self) -> Columns:
        """Give the rows that there are now, for good."""
        return Columns(self._columns, len(self))

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; it may hold more than the columns."""
        for name, column in self._columns.items():
            column.append(row[name])

    def extend(self, rows: Mapping[str, Values]) -> None:
        """Add rows, by columns; there may be more of them."""
        for name, column in self._columns.items():
            column.extend(rows[name])

    def read(
        self, name: str, start: int = 0, stop: int | None = None, *, shared: bool = False
    ) -> Values:
        """Give a column, or some rows of it; see ``Column.read``."""
        return self._columns[name].read(start, len(self) if stop is None else stop, shared=shared)


@dataclass
class Ious:
    """The count-weighted mean IOU of every iteration, over all its region lines and by layer.

    Attributes:
        overall: One number per iteration that is settled; nan without any.
        by_layer: The same for each layer; shorter where the layer has not come up since.
        lines: In how many iterations a layer came up.
    """

    overall: Column = field(default_factory=lambda: Column("d"))
    by_layer: dict[int, Column] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)

    def settle(self, iterations: Columns, regions: Columns) -> None:
        """Add the iterations that came since: costs as much as their region lines."""
        first, last = len(self.overall), len(iterations)
        if first == last:
            return
        starts = iterations.read("regions_from", first, last)
        sizes = iterations.read("regions_to", first, last) - starts
        low, high = int(starts[0]), int((starts + sizes)[-1])
        owner = np.repeat(np.arange(last - first), sizes)
        iou, count, layer = (regions.read(name, low, high) for name in ("iou", "count", "layer"))
        if len(owner) < high - low:  # some lines between belong to no iteration
            at = np.arange(len(owner)) + np.repeat(starts - low - (np.cumsum(sizes) - sizes), sizes)
            iou, count, layer = iou[at], count[at], layer[at]
        self.overall.extend(_weighted_mean(iou, count, owner, last - first))
        while len(layer):
            number = int(layer[0])
            own = layer == number
            if number in self.by_layer or (
                number != NO_LAYER and len(self.by_layer) < _MOST_LAYERS
            ):
                column = self.by_layer.setdefault(number, Column("d"))
                column.extend(np.full(first - len(column), np.nan))
                column.extend(_weighted_mean(iou[own], count[own], owner[own], last - first))
                met = np.count_nonzero(np.bincount(owner[own]))
                self.lines[number] = self.lines.get(number, 0) + int(met)
            elif number != NO_LAYER:
                own = ~np.isin(layer, list(self.by_layer))
            iou, count, layer, owner = (values[~own] for values in (iou, count, layer, owner))


def _weighted_mean(iou: Values, count: Values, owner: Values, n: int) -> Values:
    known = np.isfinite(iou)
    iou, count, owner = iou[known], count[known], owner[known]
    weights = np.bincount(owner, weights=count, minlength=n)
    sums = np.bincount(owner, weights=iou * count, minlength=n)
    means: Values = np.divide(sums, weights, out=np.full(n, np.nan), where=weights > 0)
    return means


@dataclass
class Records:
    """Everything that a parser has gathered.

    Attributes:
        dialects: The names of those that were recognised, each with its first line.
        keep_regions: Whether region lines become rows, or are only counted.
        regions_counted: Those that did not become rows.
        finished: Whether nothing is ever added, so that tables may share the columns' memory.
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

    def saw(self, dialect: str, line: int) -> None:
        """Remember that a line of a dialect stands in ``line``."""
        self.dialects[dialect] = min(line, self.dialects.get(dialect, line))

    def settle(self) -> None:
        """Give the iterations that came last their IOU."""
        self.ious.settle(self.iterations, self.regions)

    def until_now(self, *, finished: bool = False) -> Records:
        """Give what was gathered so far, which does not change any more; costs next to nothing.

        Args:
            finished: Nothing will be added to this one either.
        """
        return replace(
            self,
            finished=finished,
            iterations=self.iterations.until_now(),
            regions=self.regions.until_now(),
            ious=replace(self.ious, by_layer=dict(self.ious.by_layer), lines=dict(self.ious.lines)),
            maps=self.maps[:],
            events=self.events[:],
            dialects=dict(self.dialects),
            torn_lines=self.torn_lines[:],
        )

    def iteration(self, index: int) -> Iteration:
        """Give one iteration that is settled."""
        columns: list[Values] = [
            self.ious.overall.read(index, index + 1)
            if name == "iou"
            else self.iterations.read(name, index, index + 1)
            for name in Iteration._fields
        ]
        # The one nan of ``math``, so that tuples that are alike compare equal.
        values: list[Any] = [math.nan if c[0] != c[0] else c[0].item() for c in columns]
        return Iteration(*values)


def _empty(columns: Mapping[str, str]) -> Columns:
    return Columns({name: Column(code) for name, code in columns.items()})
