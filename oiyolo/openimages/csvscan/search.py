"""Search one chunk of CSV text for rows that may have one of the searched values.

There are four methods, from the fastest to the slowest. A search uses the first that applies;
checking all rows requires the third or the fourth.

1. Up to 8 values, no quotes: find the values as substrings with stringzilla, which is several times
   as fast as ``bytes.find``, and cut out the lines around them.
2. Values of the first column: find where rows begin (``row_starts``) and compare there.
3. Regular quotes: locate all fields (``rows``), which also gives the number of fields of each row.
4. Irregular quotes: read record by record (``record_reader``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import stringzilla

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.row_index import hash_keys
from oiyolo.openimages.csvscan.row_starts import RowStarts
from oiyolo.openimages.csvscan.rows import ValueFilter, index_rows
from oiyolo.openimages.csvscan.schema import excerpt
from oiyolo.openimages.csvscan.window import LONGEST_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oiyolo.openimages.csvscan.row_index import Hashes
    from oiyolo.openimages.csvscan.rows import Indices, StructuralIndex

_FEW: Final = 8
"""Up to this number of values, searching for each is faster than locating all fields."""
_EMPTY_LINES: Final = frozenset({b"\n", b"\r\n"})
"""Lines that are not rows."""
_SUBSTRING_BLOCK_BYTES: Final = 256 << 10
_NUMPY_BLOCK_BYTES: Final = 1 << 20
"""Every numpy call has a fixed cost, so smaller blocks take longer in total."""


@dataclass(frozen=True)
class ChunkResult:
    """Result of searching one chunk.

    Positions are relative to the chunk's start: in lines if all rows are checked, else in bytes.

    Attributes:
        rows: Rows that may match and have the right number of fields, each with its newline.
        positions: Position of each of these rows.
        bad_rows: Position of each malformed row, and what was found there.
        length: Length of the processed part of the chunk, in the unit of the positions.
        size_bytes: Length of the processed part in bytes.
        ends_in_bad_line: Whether the processed part ends within a malformed line.
        index_entries: Offset in bytes of every row in the processed part, and the hash of its
            value, for ``row_index``; ``None`` if not requested, or if some rows are unknown.
    """

    rows: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    bad_rows: list[tuple[int, str]] = field(default_factory=list)
    length: int = 0
    size_bytes: int = 0
    ends_in_bad_line: bool = False
    index_entries: tuple[Indices, Hashes] | None = None


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
        collect_index: With ``check_all``, also return the index entries of all rows.
    """

    def __init__(
        self,
        values: Iterable[str],
        column: int,
        column_count: int,
        *,
        check_all: bool,
        collect_index: bool = False,
    ) -> None:
        self.value_filter = ValueFilter(values, column, column_count)
        self._check_all = check_all
        self.collect_index = collect_index
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
        spans = None
        if self._needles is not None and text.find(b'"', start, newline) < 0:
            spans = _matching_lines(self._needles, text, start, newline + 1)
            if not self._check_all:
                return self._search_lines(text, start, newline + 1, spans)
        if not self._check_all and self.value_filter.needs_only_row_starts:
            result = self._search_row_starts(text, start, newline + 1)
            if result is not None:
                return result
        index = index_rows(text, start, stop)
        if index is None:
            return None
        if not self._check_all:
            chosen, bad_rows = self._check_field_counts(
                index, self.value_filter.candidates(index, index.all_rows())
            )
            positions, length = index.starts[chosen], index.size_bytes
        else:
            good, bad_rows = self._check_field_counts(index, index.all_rows())
            if spans is None:
                chosen = self.value_filter.candidates(index, good)
            else:
                line_starts = np.array([begin - start for begin, _ in spans], np.int64)
                matching = np.searchsorted(index.starts, line_starts)
                chosen = np.intersect1d(matching, good) if bad_rows else matching
            positions, length = index.line_numbers(chosen), index.count_lines()
        rows = index.row_bytes(chosen), positions.tolist(), bad_rows
        entries = (
            self._index_entries(index, good) if self._check_all and self.collect_index else None
        )
        return ChunkResult(*rows, length, index.size_bytes, index_entries=entries)

    def _index_entries(self, index: StructuralIndex, rows: Indices) -> tuple[Indices, Hashes]:
        is_last = self.value_filter.column == self.value_filter.column_count - 1
        keys = index.keys(rows, self.value_filter.column, is_last=is_last)
        return index.starts[rows], hash_keys(keys)

    def _search_row_starts(self, text: bytearray, start: int, stop: int) -> ChunkResult | None:
        """Search for values of the first column; return ``None`` if the quotes are irregular."""
        rows = RowStarts(text, start, stop)
        if not rows.quotes_are_regular:
            return None
        size_bytes = rows.size_bytes
        result = ChunkResult(length=size_bytes, size_bytes=size_bytes)
        for number in self.value_filter.candidates_by_start(text, rows.starts).tolist():
            begin = int(rows.starts[number])
            row = bytes(text[begin : rows.stops[number]])
            field_count = 1 + sum(part.count(b",") for part in row.split(b'"')[::2])
            if field_count == self.value_filter.column_count:
                result.rows.append(row)
                result.positions.append(begin - start)
            elif row not in _EMPTY_LINES:
                result.bad_rows.append((begin - start, f"{field_count} in {_excerpt(row)}"))
        return result

    def search_records(self, text: bytes, *, final: bool) -> ChunkResult:
        """Search record by record, whatever the quotes, up to the last complete record.

        Args:
            text: Text that begins with a record.
            final: Whether the text is the end of the file.
        """
        result = ChunkResult()
        rows, positions, bad_rows = result.rows, result.positions, result.bad_rows
        at, line = 0, 0
        ends_in_bad_line = False
        while at < len(text):
            record = record_reader.read_record(text, at)
            if record is None and not final and len(text) - at < LONGEST_ROW_BYTES:
                break
            position = line if self._check_all else at
            if record is None or record.fields is None:
                stop = text.find(b"\n", at) + 1 or len(text)
                ends_in_bad_line = not text.endswith(b"\n", at, stop)
                bad_rows.append((position, f"a misplaced quote in {_excerpt(text[at:stop])}"))
            else:
                stop, fields = record.stop, record.fields
                if len(fields) != self.value_filter.column_count:
                    if fields != [b""]:  # an empty line is not a row
                        bad_rows.append((position, f"{len(fields)} in {_excerpt(text[at:stop])}"))
                elif (
                    record_reader.unquote(fields[self.value_filter.column])
                    in self.value_filter.encoded
                ):
                    rows.append(text[at:stop])
                    positions.append(position)
            line += text.count(b"\n", at, stop)
            at = stop
        return ChunkResult(
            rows, positions, bad_rows, line if self._check_all else at, at, ends_in_bad_line
        )

    def skip_bad_line(self, text: bytearray, start: int, stop: int) -> ChunkResult:
        """Skip the rest of a malformed line."""
        end = text.find(b"\n", start, stop) + 1
        size_bytes = (end or stop) - start
        length = int(end > 0) if self._check_all else size_bytes
        return ChunkResult(length=length, size_bytes=size_bytes, ends_in_bad_line=not end)

    def _search_lines(
        self, text: bytearray, start: int, stop: int, spans: list[tuple[int, int]]
    ) -> ChunkResult:
        result = ChunkResult(length=stop - start, size_bytes=stop - start)
        for begin, end in spans:
            row = bytes(text[begin:end])
            field_count = row.count(b",") + 1
            if field_count == self.value_filter.column_count:
                result.rows.append(row)
                result.positions.append(begin - start)
            else:
                result.bad_rows.append((begin - start, f"{field_count} in {_excerpt(row)}"))
        return result

    def _check_field_counts(
        self, index: StructuralIndex, rows: Indices
    ) -> tuple[Indices, list[tuple[int, str]]]:
        """Return the rows with the right number of fields, and descriptions of the bad rows."""
        field_counts = index.field_counts(rows)
        is_good = field_counts == self.value_filter.column_count
        if is_good.all():
            return rows, []
        wrong = rows[~is_good]
        positions = index.line_numbers(wrong) if self._check_all else index.starts[wrong]
        details = zip(
            positions.tolist(), field_counts[~is_good].tolist(), index.row_bytes(wrong), strict=True
        )
        bad_rows = [
            (position, f"{field_count} in {_excerpt(row)}")
            for position, field_count, row in details
            if row not in _EMPTY_LINES
        ]
        return rows[is_good], bad_rows


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


def _excerpt(row: bytes) -> str:
    return repr(excerpt(row[:1000].decode("utf-8", errors="replace")))
