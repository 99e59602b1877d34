"""A block of whole lines into records: at once where lines are plain, carefully where not.

The plain lines of a block are known after ``shapes.Shapes.scan``. What is left goes, in its place
among them, through ``careful.LineReader``, which alone knows what a line means after others;
so both together give what the careful reader gives alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oiyolo.trainlog.line_templates import COLUMNS, Kind

if TYPE_CHECKING:
    from oiyolo.trainlog.line_reader import LineReader
    from oiyolo.trainlog.line_templates import Shapes
    from oiyolo.trainlog.records import Values

_FEW_ITERATIONS = 3  # in a row: below, columns cost more than careful reading


def take_block(reader: LineReader, shapes: Shapes, block: bytes) -> None:
    """Take a block of whole lines."""
    _Block(reader, shapes, block).take()


class _Block:
    def __init__(self, reader: LineReader, shapes: Shapes, block: bytes) -> None:
        self._reader = reader
        self._text = block
        self._found = shapes.scan(block)
        self._kinds = self._found.kinds
        # Lines of the file before the block; a line may have begun before it.
        self._lines_before = reader.records.lines - reader.within_line
        rows = (self._kinds == Kind.REGION) & reader.records.keep_regions
        self._regions_before = np.concatenate([[0], np.cumsum(rows)])
        self._added = 0  # region lines before this line are among the records
        self._next = 0  # the first line that was not taken by itself yet

    def take(self) -> None:
        records, kinds = self._reader.records, self._kinds
        for dialect, line in self._found.dialects.items():
            records.saw(dialect.name, self._lines_before + line + 1)
        if self._reader.waits:
            self._take_carefully(0)
        stops = np.flatnonzero((kinds == Kind.CAREFUL) | (kinds == Kind.ITERATION))
        numbers = self._column(Kind.ITERATION, "iteration", stops)
        plain = kinds[stops] == Kind.ITERATION
        follows = plain[1:] & plain[:-1] & (numbers[1:] > numbers[:-1])
        ends = np.append(np.flatnonzero(~follows) + 1, len(stops))
        stop = 0
        while stop < len(stops):
            line = int(stops[stop])
            if line < self._next:
                stop += 1
                continue
            end = int(ends[np.searchsorted(ends, stop, "right")])
            if (
                plain[stop]
                and end - stop >= _FEW_ITERATIONS
                and self._reader.goes_on_with(int(numbers[stop]))
            ):
                self._take_iterations(stops[stop:end])
                stop = end
            else:
                self._take_carefully(line)
                stop += 1
        self._add_regions(len(kinds))
        records.lines = self._lines_before + len(kinds)
        records.other += int(np.count_nonzero(kinds == Kind.OTHER))

    def _take_carefully(self, line: int) -> None:
        """Take one line by itself, and those after it that may be its rest."""
        reader, kinds = self._reader, self._kinds
        while True:
            start, end = self._found.starts[line], self._found.ends[line]
            text = self._text[start:end]
            if reader.waits or b"count: " in text:  # it may add a region line itself
                self._add_regions(line)
                self._added = line + 1
            reader.regions_ahead = int(
                self._regions_before[line] - self._regions_before[min(self._added, line)]
            )
            if not reader.within_line:
                reader.records.lines = self._lines_before + line
            reader.take(text)
            kinds[line] = Kind.CAREFUL
            line += 1
            self._next = line
            if not reader.waits or line == len(kinds):
                break
        reader.regions_ahead = 0

    def _take_iterations(self, lines: Values) -> None:
        columns = {
            name: self._column(Kind.ITERATION, name, lines) for name in COLUMNS[Kind.ITERATION]
        }
        columns["line"] = lines + self._lines_before + 1
        already = len(self._reader.records.regions) - self._regions_before[self._added]
        self._reader.take_iterations(columns, self._regions_before[lines] + already)

    def _add_regions(self, stop: int) -> None:
        """Add the region lines before line ``stop`` that are not added yet."""
        lines = np.flatnonzero(self._kinds[self._added : stop] == Kind.REGION) + self._added
        self._added = max(self._added, stop)
        records = self._reader.records
        if not records.keep_regions:
            records.regions_counted += len(lines)
        elif len(lines):
            columns = {
                name: self._column(Kind.REGION, name, lines) for name in COLUMNS[Kind.REGION]
            }
            records.regions_empty += int(np.count_nonzero(columns.pop("met") == 0))
            records.regions.extend({**columns, "line": lines + self._lines_before + 1})

    def _column(self, kind: Kind, name: str, lines: Values) -> Values:
        values: Values = self._found.values[COLUMNS[kind].index(name), lines]
        return values
