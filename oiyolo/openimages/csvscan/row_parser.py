"""Rows that a search let through: looked at closely, and parsed."""

from __future__ import annotations

import csv
import io
import math
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.schema import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from oiyolo.openimages.csvscan.rows import Wanted
    from oiyolo.openimages.csvscan.schema import CsvForm

    Complain = Callable[[int, str, str, str], None]
    """Takes the place, what is wrong, what was expected, and what was found."""

_BATCH_BYTES: Final = 4 << 20
_LARGEST_WHOLE: Final = 1 << 63
_NUMBER: Final = re.compile(r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *", re.ASCII)


class Hits:
    """Gathers rows, and makes a table of those that are wanted and not broken.

    Args:
        form: The file's form.
        columns: The file's columns.
        keep: Columns of the table; ``None`` for all.
        wanted: The wanted values.
        complain: Called for a broken row; may raise.
    """

    def __init__(
        self,
        form: CsvForm,
        columns: list[str],
        keep: Collection[str] | None,
        wanted: Wanted,
        complain: Complain,
    ) -> None:
        self._columns = columns
        self._kept = [name for name in columns if keep is None or name in keep]
        self._numbers = [name for name in self._kept if name in form.numbers]
        self._wanted = wanted
        self._complain = complain
        self._column = columns[wanted.column]
        self._texts: list[bytes] = []
        self._sizes: list[int] = []
        self._places: list[int] = []
        self._size_bytes = 0
        self._tables: list[pd.DataFrame] = []

    def add(self, text: bytes, sizes: list[int], places: list[int]) -> None:
        """Add rows of the right width, each with its newline.

        Args:
            text: The rows, one after the other.
            sizes: How many bytes each row has.
            places: Where each row begins in the file.
        """
        self._texts.append(text)
        self._sizes += sizes
        self._places += places
        self._size_bytes += len(text)
        if self._size_bytes > _BATCH_BYTES:
            self._parse()

    def table(self) -> pd.DataFrame:
        """Give the table."""
        self._parse()
        tables = [table for table in self._tables if len(table)]
        if not tables:
            return pd.DataFrame(
                {
                    name: pd.Series(dtype=float if name in self._numbers else str)
                    for name in self._kept
                }
            )
        return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)

    def _parse(self) -> None:
        """Turn the gathered rows into a table."""
        text, sizes, places = b"".join(self._texts), self._sizes, self._places
        self._texts, self._sizes, self._places, self._size_bytes = [], [], [], 0
        if not text:
            return
        table = self._read(text, text_only=False) if self._are_plain(text) else None
        if table is None or len(table) != len(sizes) or not self._are_numbers(table):
            rows = (
                text[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)
            )
            chosen = [
                (row, place)
                for row, place in zip(rows, places, strict=True)
                if self._is_good(row, place)
            ]
            if not chosen:
                return
            table = self._read(b"".join(row for row, _ in chosen), text_only=False)
            if not self._are_numbers(table):
                table = self._with_numbers(chosen)
        else:
            table = table[table[self._column].isin(self._wanted.texts)]
        self._tables.append(table[self._kept])

    def _are_plain(self, rows: bytes) -> bool:
        """Tell whether ``pandas`` cannot mistake any of the rows."""
        if self._column in self._numbers or b"\0" in rows:
            return False
        if b"\r" in rows and rows.count(b"\r") != rows.count(b"\r\n"):
            return False
        try:
            rows.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _are_numbers(self, table: pd.DataFrame) -> bool:
        return all(_are_finite(table[name]) for name in self._numbers)

    def _is_good(self, row: bytes, place: int) -> bool:
        """Tell whether a row is wanted, and complain if it is broken."""
        record = record_reader.read_record(row, 0)
        if record is None or record.fields is None:
            raise AssertionError("the search has seen to the quotes")
        if record_reader.plain(record.fields[self._wanted.column]) not in self._wanted.words:
            return False
        if not record_reader.is_readable(row):
            self._complain(place, "a broken row", "one line of UTF-8 text", _shown(row))
            return False
        return True

    def _read(self, rows: bytes, *, text_only: bool) -> pd.DataFrame:
        """Parse rows; what shall be numbers becomes so if all of a column are."""
        texts = [name for name in self._columns if text_only or name not in self._numbers]
        return pd.read_csv(
            io.BytesIO(rows),
            names=self._columns,
            usecols=list({*self._kept, self._column}),
            index_col=False,
            dtype=dict.fromkeys(texts, str),
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL,
        )

    def _with_numbers(self, chosen: list[tuple[bytes, int]]) -> pd.DataFrame:
        """Parse rows of which some have no number where one must be: complain of each."""
        table = self._read(b"".join(row for row, _ in chosen), text_only=True)
        good = np.ones(len(table), bool)
        numbers = {name: [_number(text) for text in table[name]] for name in self._numbers}
        for number, (_, place) in enumerate(chosen):
            wrong = next((name for name in self._numbers if numbers[name][number] is None), None)
            if wrong is not None:
                good[number] = False
                found = repr(shown(table[wrong].iloc[number]))
                self._complain(place, f"wrong {wrong}", "a number", found)
        table = table[good].reset_index(drop=True)
        for name, values in numbers.items():
            table[name] = pd.Series([value for value, so in zip(values, good, strict=True) if so])
        return table


def _are_finite(column: pd.Series[float]) -> bool:
    return column.dtype.kind in "iuf" and bool(np.isfinite(column.to_numpy()).all())


def _number(text: str) -> float | int | None:
    """Give the finite number that a text is, or ``None``; a whole one as such."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    is_whole = text.strip(" +-").isdecimal() and abs(value) < _LARGEST_WHOLE
    return int(text) if is_whole else value


def _shown(row: bytes) -> str:
    return repr(shown(row[:1000].decode("utf-8", errors="replace")))
