"""Search a large CSV for rows with certain values, at about the speed of reading the file.

The file is read once, block by block, into a reused buffer (``window``). Each block is searched
while it is in the core's cache (``search``), and only rows that may match are compared exactly and
parsed (``row_parser``). A source that can be read only once, such as a download, is sufficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.csvscan.schema import BOXES, IMAGES, LABELS, REFETCH, CsvSchema, column_names
from oiyolo.openimages.csvscan.search import RowSearch, best_block_bytes
from oiyolo.openimages.csvscan.window import LONGEST_ROW_BYTES, LocalFile, Readable, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import pandas as pd

    from oiyolo.openimages.csvscan.search import ChunkResult

__all__ = [
    "BOXES",
    "IMAGES",
    "LABELS",
    "CsvSchema",
    "LocalFile",
    "Readable",
    "ScanResult",
    "matching_rows",
]

_COUNT_BLOCK_BYTES: Final = 256 << 10


@dataclass(frozen=True)
class ScanResult:
    """Rows that match a search.

    Attributes:
        rows: Matching rows in the file's order; number columns as numbers, others as text.
        bad_rows: Number of malformed rows that were skipped.
    """

    rows: pd.DataFrame
    bad_rows: int


def matching_rows(
    file: Readable,
    schema: CsvSchema,
    column: str,
    values: Iterable[str],
    *,
    keep: Collection[str] | None = None,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> ScanResult:
    """Return the rows whose value in ``column`` is one of ``values``.

    A quoted field may contain commas, newlines and doubled quotes. Lines end in LF or CRLF. Empty
    lines are ignored. A row is malformed if its number of fields differs from the header's, or if
    it has a misplaced quote. A matching row is also malformed if it is not UTF-8, contains a NUL or
    a lone carriage return, or has anything other than a finite number in a number column.

    Args:
        file: CSV file with a header line.
        schema: Columns that the file must have.
        column: Column to search, one of the required columns.
        values: Values to search for.
        keep: Columns of the result; all columns of the file by default.
        check_all: Whether to check the number of fields of every row. Without it, rows that cannot
            match may remain unchecked, which is faster. The file must have been checked before, and
            must be readable twice, because the line number of a malformed row is determined by
            reading the file again.
        skip_bad_rows: Whether to skip malformed rows and count them instead of raising an error.

    Raises:
        InputFormError: The header lacks a required column, or a row is malformed; the error names
            the line. ``file.blocks`` may raise other errors.
    """
    values = frozenset(values)
    window = Window(file, best_block_bytes(len(values), check_all=check_all))
    header = window.take_header()
    columns = column_names(header, schema, file.where)
    reporter = _BadRowReporter(file, schema, len(columns), by_line=check_all, skip=skip_bad_rows)
    search = RowSearch(values, columns.index(column), len(columns), check_all=check_all)
    from oiyolo.openimages.csvscan.row_parser import RowParser  # noqa: PLC0415  (imports pandas)

    parser = RowParser(schema, columns, keep, search.value_filter, reporter.report)
    position = 1 if check_all else len(header)
    for chunk in _search_chunks(window, search):
        for at, found in chunk.bad_rows:
            reporter.report_field_count(position + at, found)
        parser.add(chunk.rows, [position + at for at in chunk.positions])
        position += chunk.length
    return ScanResult(parser.table(), reporter.count)


class _BadRowReporter:
    """Raises an error for the first malformed row, or counts malformed rows.

    Args:
        file: File that is searched.
        schema: Its schema.
        column_count: Number of its columns.
        by_line: Whether a row's position is the number of lines before it, instead of bytes.
        skip: Whether to count only.
    """

    def __init__(
        self, file: Readable, schema: CsvSchema, column_count: int, *, by_line: bool, skip: bool
    ) -> None:
        self.count = 0
        self._file = file
        self._schema = schema
        self._column_count = column_count
        self.by_line = by_line
        self._skip = skip

    def report_field_count(self, position: int, found: str) -> None:
        """Report a row whose number of fields differs from the header's."""
        self.report(position, "malformed row", f"{self._column_count} fields", found)

    def report(self, position: int, what: str, expected: str, found: str) -> None:
        """Report a malformed row."""
        self.count += 1
        if not self._skip:
            line = 1 + (position if self.by_line else _count_lines_before(self._file, position))
            raise InputFormError(
                f"{self._schema.name}: {what}",
                where=f"{self._file.where}:{line}",
                expected=expected,
                found=found,
                remedy=f"{REFETCH}, or skip such rows with --skip-bad-rows",
            )


def _count_lines_before(file: Readable, offset: int) -> int:
    """Return the number of newlines before a byte offset."""
    lines = 0
    for block in file.blocks(_COUNT_BLOCK_BYTES):
        lines += block.count(b"\n", 0, max(0, offset))
        offset -= len(block)
        if offset <= 0:
            break
    return lines


def _search_chunks(window: Window, search: RowSearch) -> Iterator[ChunkResult]:
    """Search the file chunk by chunk, from the window's start, and yield each result."""
    in_bad_line = False
    while True:
        if in_bad_line:
            result = search.skip_bad_line(window.text, window.start, window.stop)
        else:
            outcome = search.search_chunk(window.text, window.start, window.stop)
            if outcome is None or window.size_bytes - outcome.size_bytes > LONGEST_ROW_BYTES:
                outcome = search.search_records(window.content, final=False)
            result = outcome
        window.start += result.size_bytes
        in_bad_line = result.ends_in_bad_line
        yield result
        is_searched = not (window.size_bytes and result.size_bytes)
        if is_searched and not window.read_block():
            break
    if window.size_bytes:
        window.end_with_newline()
        yield search.search_records(window.content, final=True)
