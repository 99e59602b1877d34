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

from oiyolo.trainlog.line_templates import RegionLines
from oiyolo.trainlog.rows import REGION_NUMBERS, Iteration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.trainlog.rows import Event, MapPoint, ValidLoss

Values = npt.NDArray[Any]

_REGION_COLUMNS = {"layer": "i", "count": "i", **dict.fromkeys(REGION_NUMBERS, "d"), "line": "q"}
_ITERATION_COLUMNS = {
    **dict.fromkeys(("iteration", "images", "run", "line"), "q"),
    **dict.fromkeys(("loss", "avg_loss", "rate", "seconds", "hours_left"), "d"),
    **dict.fromkeys(("regions_from", "regions_to"), "q"),
    "load_wait": "d",
    "dialect": "b",
}
_LOAD_COLUMNS = {"line": "q", "seconds": "d"}
_MAX_PENDING_REGIONS = 1 << 15


class Columns:
    """Columns of equal length that grow at the end, or a snapshot of their first rows."""

    def __init__(self, type_codes: Mapping[str, str]) -> None:
        """Create empty columns, given the type code of each one's array."""
        self._columns: dict[str, array[Any]] = {
            name: array(code) for name, code in type_codes.items()
        }
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        return len(next(iter(self._columns.values())))

    def snapshot(self) -> Columns:
        """Return the current rows as columns that never change."""
        snapshot = Columns({})
        snapshot._columns, snapshot._length = self._columns, len(self)
        return snapshot

    def append(self, row: Mapping[str, float]) -> None:
        """Append a row; values without a column are ignored."""
        for name, column in self._columns.items():
            column.append(row[name])

    def extend(self, rows: Mapping[str, Values]) -> None:
        """Append rows given as columns; whole numbers may be given as floats."""
        for name, column in self._columns.items():
            values = np.ascontiguousarray(rows[name], dtype=column.typecode)
            column.frombytes(values.data.cast("B"))

    def value(self, name: str, row: int) -> Any:  # noqa: ANN401  (int or float, by column)
        """Return one value."""
        return self._columns[name][row]

    def read(
        self, name: str, start: int = 0, stop: int | None = None, *, shared: bool = False
    ) -> Values:
        """Return a column, or some rows of it.

        Args:
            name: Name of the column.
            start: First row.
            stop: Row after the last one; ``None`` for all rows.
            shared: Whether to avoid a copy; the column cannot grow while the result exists.
        """
        column = self._columns[name]
        values = np.frombuffer(column, dtype=column.typecode)
        values = values[start : len(self) if stop is None else stop]
        return values if shared else values.copy()


def find_owners(starts: Values, stops: Values, row_count: int) -> Values:
    """Return the index of the iteration of each region row, or k for rows of no iteration.

    Args:
        starts: First region row of each iteration, shape (k,).
        stops: The row after its last one, shape (k,).
        row_count: Number of region rows.
    """
    rows = np.arange(row_count)
    owner: Values = np.searchsorted(stops, rows, side="right")
    owner[rows < np.append(starts, 0)[owner]] = len(starts)
    return owner


def mean_ious(iou: Values, count: Values, owner: Values, n: int) -> Values:
    """Return the count-weighted mean IOU of each of ``n`` iterations; NaN where it is unknown.

    Args:
        iou: IOU of each region row; NaN without an object.
        count: Its count.
        owner: Index of its iteration, or n.
        n: Number of iterations.
    """
    is_used = np.isfinite(iou) & (owner < n)
    iou, count, owner = iou[is_used], count[is_used], owner[is_used]
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
        loads: How long iterations waited for their images, where that has a line of its own.
        maps: The mAP points.
        valid_losses: The losses on valid images.
        events: The events.
        dialects: Names of the recognised dialects, each with its first line.
        lines: Lines in the file.
        other: Lines with nothing for the tables.
        regions_counted: Region lines that did not become rows.
        regions_empty: Region lines without an object.
        mended: Lines split by another stream and rejoined.
        torn: Fragments of lines that were skipped.
        torn_lines: Line numbers of the first few fragments.
        cut: Lines that were too long to be read at once.
        cut_lines: Line numbers of the first few of them.
        finished: Whether the records are complete, so that tables may share the columns' memory.
        region_count: Region rows, including those that are not in ``regions`` yet.
        region_lines: Region lines whose numbers are read later, many at once.
    """

    keep_regions: bool = True
    iterations: Columns = field(default_factory=lambda: Columns(_ITERATION_COLUMNS))
    regions: Columns = field(default_factory=lambda: Columns(_REGION_COLUMNS))
    loads: Columns = field(default_factory=lambda: Columns(_LOAD_COLUMNS))
    maps: list[MapPoint] = field(default_factory=list)
    valid_losses: list[ValidLoss] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dialects: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    other: int = 0
    regions_counted: int = 0
    regions_empty: int = 0
    mended: int = 0
    torn: int = 0
    torn_lines: list[int] = field(default_factory=list)
    cut: int = 0
    cut_lines: list[int] = field(default_factory=list)
    finished: bool = False
    region_count: int = 0
    region_lines: RegionLines = field(default_factory=RegionLines)

    def add_region(self, numbers: Mapping[str, float]) -> None:
        """Add a region line that was matched on its own."""
        if self.keep_regions:
            self.region_lines.add_row(numbers)
            self.region_count += 1
        else:
            self.regions_counted += 1

    def add_region_lines(self, lines: Sequence[bytes], kinds: Values, first_number: int) -> None:
        """Add the region lines among some lines, given the kind of each."""
        if not self.keep_regions:
            self.regions_counted += int(np.count_nonzero(kinds >= 0))
            return
        self.region_lines.add(lines, kinds, first_number)
        if len(self.region_lines) >= _MAX_PENDING_REGIONS:
            self.update()

    def add_dialect(self, dialect: str, line: int) -> None:
        """Record that ``line`` is in a dialect."""
        self.dialects[dialect] = min(line, self.dialects.get(dialect, line))

    def update(self) -> None:
        """Read the numbers on pending region lines."""
        if not self.region_lines:
            return
        columns = self.region_lines.take()
        iou, count = columns["iou"], columns["count"]
        may_be_empty = columns["zero_is_empty"] != 0
        is_empty = (count == 0) | (may_be_empty & (count == 1) & (iou == 0))
        iou[is_empty] = np.nan
        self.regions_empty += int(np.count_nonzero(is_empty))
        self.regions.extend(columns)

    def drop_rows(self) -> None:
        """Drop all rows; line numbers continue, and templates are kept."""
        self.iterations = Columns(_ITERATION_COLUMNS)
        self.regions = Columns(_REGION_COLUMNS)
        self.region_count = 0
        if len(self.loads):
            self.loads = Columns(_LOAD_COLUMNS)
        self.maps.clear()
        self.valid_losses.clear()
        self.events.clear()

    def snapshot(self, *, finished: bool = False) -> Records:
        """Return a cheap snapshot of the records, which later lines do not change.

        Args:
            finished: Whether no more lines will be added to the original either.
        """
        self.update()
        return replace(
            self,
            finished=finished,
            iterations=self.iterations.snapshot(),
            regions=self.regions.snapshot(),
            loads=self.loads.snapshot(),
            maps=self.maps[:],
            valid_losses=self.valid_losses[:],
            events=self.events[:],
            dialects=dict(self.dialects),
            torn_lines=self.torn_lines[:],
            cut_lines=self.cut_lines[:],
        )

    def iteration(self, index: int) -> Iteration:
        """Return one iteration."""
        self.update()
        first, stop = (self.iterations.value(n, index) for n in ("regions_from", "regions_to"))
        iou, count = (self.regions.read(n, first, stop, shared=True) for n in ("iou", "count"))
        mean_iou = mean_ious(iou, count, np.zeros(len(iou), np.intp), 1).item()
        values: list[Any] = [
            mean_iou if name == "iou" else self.iterations.value(name, index)
            for name in Iteration._fields
        ]
        # Use the object ``math.nan``, so that equal tuples compare equal.
        values = [math.nan if math.isnan(value) else value for value in values]
        return Iteration(*values)
