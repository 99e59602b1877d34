"""Search one chunk of CSV text for rows that may have one of the searched values.

There are three methods, from the fastest to the slowest. A search uses the first that applies;
checking all rows requires the second or the third.

1. Up to 16 values, no quotes: find the values as substrings with stringzilla, which is several
   times as fast as ``bytes.find``, and cut out the lines around them.
2. Regular quotes: locate the rows, and the field to compare in each of them (``rows``).
3. Irregular quotes: read record by record (``record_reader``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import stringzilla

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.rows import Rows, ValueFilter
from oiyolo.openimages.csvscan.schema import excerpt
from oiyolo.openimages.csvscan.window import LONGEST_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW: Final = 16
"""Up to this number of values, searching for each is faster than locating all fields."""
_EMPTY_LINES: Final = frozenset({b"\n", b"\r\n"})
"""Lines that are not rows."""
_SUBSTRING_BLOCK_BYTES: Final = 256 << 10
_NUMPY_BLOCK_BYTES: Final = 512 << 10
"""Every numpy call has a fixed cost, so smaller blocks take longer in total."""


@dataclass
class ChunkResult:
    """Result of searching one chunk.

    Positions are relative to the chunk's start: in lines if all rows are checked, else in bytes.

    Attributes:
        length: Length of the processed part of the chunk, in the unit of the positions.
        size_bytes: Length of the processed part in bytes.
        rows: Rows that may match and have the right number of fields, each with its newline.
        positions: Position of each of these rows.
        bad_rows: Position of each malformed row, and what was found there.
        ends_in_bad_line: Whether the processed part ends within a malformed line.
    """

    length: int = 0
    size_bytes: int = 0
    rows: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    bad_rows: list[tuple[int, str]] = field(default_factory=list)
    ends_in_bad_line: bool = False


def best_block_bytes(value_count: int, *, check_all: bool) -> int:
    """Return the fastest block size for a search for ``value_count`` values."""
    return _SUBSTRING_BLOCK_BYTES if value_count <= _FEW and not check_all else _NUMPY_BLOCK_BYTES


class RowSearch:
    """A search for rows with certain values in one column.

    Args:
        values: Values to search for.
        column: 0-based position of the column.
        column_count: Number of columns.
        check_all: Check the number of fields of every row, including those that cannot match, and
            count lines.
    """

    def __init__(
        self, values: Iterable[str], column: int, column_count: int, *, check_all: bool
    ) -> None:
        self.value_filter = ValueFilter(values, column, column_count)
        self._column_count = column_count
        self._check_all = check_all
        self._needles: list[bytes] | None = None
        if len(self.value_filter.encoded) <= _FEW:
            before, after = b"," * (column > 0), b"," * (column < column_count - 1)
            # A value with one of these characters is always quoted, and chunks with quotes are not
            # searched for needles.
            plain = [value for value in self.value_filter.encoded if not set(value) & set(b',"\n')]
            self._needles = [before + value + after for value in plain]

    def search_chunk(self, text: bytearray, start: int, stop: int) -> ChunkResult | None:
        """Search the rows that end in a chunk; return ``None`` if its quotes are irregular.

        Args:
            text: Buffer with ``window.MARGIN_BYTES`` before and after the chunk.
            start: Offset of the chunk, at which a row begins.
            stop: Offset of the chunk's end.
        """
        newline = text.rfind(b"\n", start, stop)
        if newline < 0:
            return ChunkResult()
        stop = newline + 1
        lines = None
        if self._needles is not None and text.find(b'"', start, stop) < 0:
            lines = _matching_lines(self._needles, text, start, stop)
            if not self._check_all:
                result = ChunkResult(stop - start, stop - start)
                for begin, end in lines:
                    self._add_row(result, bytes(text[begin:end]), begin - start)
                return result
        rows = Rows(text, start, stop)
        return self._search_rows(rows, lines) if rows.quotes_are_regular else None

    def _search_rows(self, rows: Rows, lines: list[tuple[int, int]] | None) -> ChunkResult:
        """Search rows; ``lines`` are the spans of those that may match, if they are known."""
        if lines is None:
            chosen = self.value_filter.candidates(rows)
        else:
            begins = np.array([begin for begin, _ in lines], np.int64)
            chosen = np.searchsorted(rows.starts, begins)
        if self._check_all:
            is_wrong = rows.field_counts != self._column_count
            chosen = np.union1d(chosen, np.flatnonzero(is_wrong))
            positions = rows.count_lines(rows.starts[chosen])
            length = int(rows.count_lines(rows.stops[-1:]).sum())
        else:
            positions, length = rows.starts[chosen] - rows.start, rows.size_bytes
        result = ChunkResult(length, rows.size_bytes)
        spans = rows.starts[chosen].tolist(), rows.stops[chosen].tolist()
        for begin, end, position in zip(*spans, positions.tolist(), strict=True):
            self._add_row(result, bytes(rows.text[begin:end]), position)
        return result

    def _add_row(self, result: ChunkResult, row: bytes, position: int) -> None:
        """Add a row with regular quotes to the result, as a bad one if its field count is wrong."""
        unquoted = b"".join(row.split(b'"')[::2]) if b'"' in row else row
        field_count = unquoted.count(b",") + 1
        if field_count == self._column_count:
            result.rows.append(row)
            result.positions.append(position)
        elif row not in _EMPTY_LINES:
            result.bad_rows.append((position, f"{field_count} in {excerpt(row)}"))

    def search_records(self, text: bytes, *, final: bool) -> ChunkResult:
        """Search record by record, whatever the quotes, up to the last complete record.

        Args:
            text: Text that begins with a record.
            final: Whether the text is the end of the file.
        """
        result = ChunkResult()
        at = 0
        while at < len(text):
            record = record_reader.read_record(text, at)
            if record is None and not final and len(text) - at < LONGEST_ROW_BYTES:
                break
            if record is None or record.fields is None:
                stop = text.find(b"\n", at) + 1 or len(text)
                result.ends_in_bad_line = not text.endswith(b"\n", at, stop)
                found = f"a misplaced quote in {excerpt(text[at:stop])}"
                result.bad_rows.append((result.length, found))
            else:
                stop = record.stop
                self._add_record(result, text[at:stop], record.fields)
            result.length += text.count(b"\n", at, stop) if self._check_all else stop - at
            at = stop
        result.size_bytes = at
        return result

    def _add_record(self, result: ChunkResult, row: bytes, fields: list[bytes]) -> None:
        if len(fields) != self._column_count:
            if fields != [b""]:  # an empty line is not a row
                result.bad_rows.append((result.length, f"{len(fields)} in {excerpt(row)}"))
        elif self.value_filter.has_value(fields):
            result.rows.append(row)
            result.positions.append(result.length)

    def skip_bad_line(self, text: bytearray, start: int, stop: int) -> ChunkResult:
        """Skip the rest of a malformed line."""
        end = text.find(b"\n", start, stop) + 1
        size_bytes = (end or stop) - start
        length = int(end > 0) if self._check_all else size_bytes
        return ChunkResult(length, size_bytes, ends_in_bad_line=not end)


def _matching_lines(
    needles: list[bytes], text: bytearray, start: int, stop: int
) -> list[tuple[int, int]]:
    """Return the spans of the lines that contain one of the needles, in ascending order."""
    return sorted({span for needle in needles for span in _lines_with(needle, text, start, stop)})


def _lines_with(needle: bytes, text: bytearray, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the spans of the lines that contain a needle."""
    spans = []
    at = stringzilla.find(text, needle, start, stop)
    while at >= 0:
        begin, end = text.rfind(b"\n", start, at) + 1 or start, text.find(b"\n", at) + 1
        spans.append((begin, end))
        at = stringzilla.find(text, needle, end, stop) if end < stop else -1
    return spans
