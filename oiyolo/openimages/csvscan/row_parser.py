"""Parse the candidate rows of a search into a table, and report or drop the malformed ones.

Rows are collected and parsed by pandas in batches. pandas guesses where text is ambiguous (a NUL, a
lone carriage return) and reads a whole column as text where one number is malformed. Such batches
are examined row by row first, so that each malformed row is reported and dropped.
"""

from __future__ import annotations

import csv
import io
import math
import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.schema import excerpt, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from oiyolo.openimages.csvscan.rows import ValueFilter
    from oiyolo.openimages.csvscan.schema import CsvSchema

    ReportBadRow = Callable[[int, str, str, str], None]
    """Receives the row's position, what is wrong, what was expected, and what was found."""

_BATCH_BYTES: Final = 4 << 20
_INT64_LIMIT: Final = 1 << 63
_NUMBER: Final = re.compile(r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *", re.ASCII)


class RowParser:
    """Collects candidate rows and returns those that match as a table.

    Args:
        schema: Schema of the file.
        columns: Columns of the file.
        keep: Columns of the table; ``None`` for all.
        value_filter: Values to search for, and their column.
        report: Called for each malformed row; may raise.
    """

    def __init__(
        self,
        schema: CsvSchema,
        columns: list[str],
        keep: Collection[str] | None,
        value_filter: ValueFilter,
        report: ReportBadRow,
    ) -> None:
        self._columns = columns
        self._kept_columns = [name for name in columns if keep is None or name in keep]
        self._number_columns = [name for name in self._kept_columns if name in schema.numbers]
        self._filter = value_filter
        self._report = report
        self._value_column = columns[value_filter.column]
        self._rows: list[bytes] = []
        self._positions: list[int] = []
        self._size_bytes = 0
        self._tables: list[pd.DataFrame] = []

    def add(self, rows: list[bytes], positions: list[int]) -> None:
        """Add rows that have the right number of fields.

        Args:
            rows: The rows, each with its newline.
            positions: Position of each row in the file, for reports.
        """
        self._rows += rows
        self._positions += positions
        self._size_bytes += sum(map(len, rows))
        if self._size_bytes > _BATCH_BYTES:
            self._parse_batch()

    def table(self) -> pd.DataFrame:
        """Return the matching rows of all that were added."""
        self._parse_batch()
        tables = [table for table in self._tables if len(table)]
        if not tables:
            return pd.DataFrame(
                {
                    name: pd.Series(dtype=float if name in self._number_columns else str)
                    for name in self._kept_columns
                }
            )
        return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)

    def _parse_batch(self) -> None:
        """Parse the collected rows into a table."""
        rows, positions = self._rows, self._positions
        self._rows, self._positions, self._size_bytes = [], [], 0
        if not rows:
            return
        text = b"".join(rows)
        table = self._read_csv(text, text_only=False) if self._is_unambiguous(text) else None
        if table is None or len(table) != len(rows) or not self._has_only_numbers(table):
            chosen = [
                (row, position)
                for row, position in zip(rows, positions, strict=True)
                if self._is_well_formed_match(row, position)
            ]
            if not chosen:
                return
            table = self._read_csv(b"".join(row for row, _ in chosen), text_only=False)
            if not self._has_only_numbers(table):
                table = self._parse_numbers(chosen)
        else:
            table = table[table[self._value_column].isin(self._filter.values)]
        self._tables.append(table[self._kept_columns])

    def _is_unambiguous(self, rows: bytes) -> bool:
        """Return whether pandas reads the rows exactly as the rules of ``record_reader`` do."""
        if self._value_column in self._number_columns or b"\0" in rows:
            return False
        if b"\r" in rows and rows.count(b"\r") != rows.count(b"\r\n"):
            return False
        try:
            rows.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _has_only_numbers(self, table: pd.DataFrame) -> bool:
        return all(_are_finite(table[name]) for name in self._number_columns)

    def _is_well_formed_match(self, row: bytes, position: int) -> bool:
        """Return whether a row matches and is readable; report a match that is unreadable."""
        record = record_reader.read_record(row, 0)
        if record is None or record.fields is None:
            raise AssertionError("the search passes on only rows with regular quotes")
        if not self._filter.has_value(record.fields):
            return False
        if not record_reader.is_readable(row):
            self._report(position, "malformed row", "one line of UTF-8 text", excerpt(row))
            return False
        return True

    def _read_csv(self, rows: bytes, *, text_only: bool) -> pd.DataFrame:
        """Parse rows; a number column stays text if one of its values is not a number."""
        text_columns = [n for n in self._columns if text_only or n not in self._number_columns]
        return pd.read_csv(
            io.BytesIO(rows),
            names=self._columns,
            usecols=list({*self._kept_columns, self._value_column}),
            index_col=False,
            dtype=dict.fromkeys(text_columns, str),
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL,
        )

    def _parse_numbers(self, chosen: list[tuple[bytes, int]]) -> pd.DataFrame:
        """Parse rows number by number; report and drop those with a malformed number.

        Args:
            chosen: Each row with its position in the file.
        """
        table = self._read_csv(b"".join(row for row, _ in chosen), text_only=True)
        good = np.ones(len(table), bool)
        numbers = {
            name: [_parse_number(text) for text in table[name]] for name in self._number_columns
        }
        for row, (_, position) in enumerate(chosen):
            wrong = next(
                (name for name in self._number_columns if numbers[name][row] is None), None
            )
            if wrong is not None:
                good[row] = False
                found = repr(shorten(table[wrong].iloc[row]))
                self._report(position, f"{wrong} is not a number", "a finite number", found)
        table = table[good].reset_index(drop=True)
        for name, values in numbers.items():
            table[name] = pd.Series([value for value, ok in zip(values, good, strict=True) if ok])
        return table


def _are_finite(column: pd.Series[float]) -> bool:
    return column.dtype.kind in "iuf" and bool(np.isfinite(column.to_numpy()).all())


def _parse_number(text: str) -> float | int | None:
    """Parse a finite number, a whole one as ``int``; return ``None`` if the text is not one."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    is_whole = text.strip(" +-").isdecimal() and abs(value) < _INT64_LIMIT
    return int(text) if is_whole else value
