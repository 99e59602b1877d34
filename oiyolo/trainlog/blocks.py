"""Read a block of whole lines into records: plain lines all at once, the others one by one.

``line_templates.TemplateScanner`` reads the plain lines of a block. ``line_reader.LineReader``,
which alone interprets lines in context, reads the remaining lines in their original order. The
result is the same as if the line reader had read every line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oiyolo.trainlog.line_templates import COLUMNS, LineKind

if TYPE_CHECKING:
    from oiyolo.trainlog.line_reader import LineReader
    from oiyolo.trainlog.line_templates import TemplateScanner
    from oiyolo.trainlog.records import Values

_MIN_ITERATIONS = 3  # in a row; for fewer, reading line by line is faster


def read_block(reader: LineReader, scanner: TemplateScanner, block: bytes) -> None:
    """Read a block of whole lines into the reader's records."""
    _Block(reader, scanner, block).read()


class _Block:
    def __init__(self, reader: LineReader, scanner: TemplateScanner, block: bytes) -> None:
        self._reader = reader
        self._text = block
        self._contents = scanner.scan(block)
        self._kinds = self._contents.kinds
        # Lines of the file before the block, whose first line may have started earlier.
        self._lines_before = reader.records.lines - reader.within_line
        rows = (self._kinds == LineKind.REGION) & reader.records.keep_regions
        self._regions_before = np.concatenate([[0], np.cumsum(rows)])
        self._added_until = 0  # region lines before this line are in the records
        self._next_line = 0  # first line that the line reader has not read yet

    def read(self) -> None:
        records, kinds = self._reader.records, self._kinds
        for dialect, line in self._contents.dialects.items():
            records.add_dialect(dialect.name, self._lines_before + line + 1)
        if self._reader.expects_continuation:
            self._read_line(0)
        stops = np.flatnonzero((kinds == LineKind.SLOW) | (kinds == LineKind.ITERATION))
        iterations = self._column(LineKind.ITERATION, "iteration", stops)
        is_plain = kinds[stops] == LineKind.ITERATION
        continues = is_plain[1:] & is_plain[:-1] & (iterations[1:] > iterations[:-1])
        ends = np.append(np.flatnonzero(~continues) + 1, len(stops))
        stop = 0
        while stop < len(stops):
            line = int(stops[stop])
            if line < self._next_line:
                stop += 1
                continue
            end = int(ends[np.searchsorted(ends, stop, "right")])
            if (
                is_plain[stop]
                and end - stop >= _MIN_ITERATIONS
                and self._reader.continues_run(int(iterations[stop]))
            ):
                self._add_iterations(stops[stop:end])
                stop = end
            else:
                self._read_line(line)
                stop += 1
        self._add_regions(len(kinds))
        records.lines = self._lines_before + len(kinds)
        records.other += int(np.count_nonzero(kinds == LineKind.OTHER))

    def _read_line(self, line: int) -> None:
        """Read one line with the line reader, and the lines after it that may continue it."""
        reader, kinds = self._reader, self._kinds
        while True:
            start, end = self._contents.starts[line], self._contents.ends[line]
            text = self._text[start:end]
            # The reader may add a region line, so the earlier ones must be added first.
            if reader.expects_continuation or b"count: " in text:
                self._add_regions(line)
                self._added_until = line + 1
            reader.buffered_regions = int(
                self._regions_before[line] - self._regions_before[min(self._added_until, line)]
            )
            if not reader.within_line:
                reader.records.lines = self._lines_before + line
            reader.read_line(text)
            kinds[line] = LineKind.SLOW
            line += 1
            self._next_line = line
            if not reader.expects_continuation or line == len(kinds):
                break
        reader.buffered_regions = 0

    def _add_iterations(self, lines: Values) -> None:
        columns = {
            name: self._column(LineKind.ITERATION, name, lines)
            for name in COLUMNS[LineKind.ITERATION]
        }
        columns["line"] = lines + self._lines_before + 1
        offset = len(self._reader.records.regions) - self._regions_before[self._added_until]
        self._reader.add_iterations(columns, self._regions_before[lines] + offset)

    def _add_regions(self, stop: int) -> None:
        """Add the region lines before line ``stop`` that are not in the records yet."""
        lines = (
            np.flatnonzero(self._kinds[self._added_until : stop] == LineKind.REGION)
            + self._added_until
        )
        self._added_until = max(self._added_until, stop)
        records = self._reader.records
        if not records.keep_regions:
            records.regions_counted += len(lines)
        elif len(lines):
            columns = {
                name: self._column(LineKind.REGION, name, lines)
                for name in COLUMNS[LineKind.REGION]
            }
            records.regions_empty += int(np.count_nonzero(columns.pop("iou_objects") == 0))
            records.regions.extend({**columns, "line": lines + self._lines_before + 1})

    def _column(self, kind: LineKind, name: str, lines: Values) -> Values:
        values: Values = self._contents.values[COLUMNS[kind].index(name), lines]
        return values
