"""Rows that may be wanted, out of one piece of a CSV.

A few words are looked for with stringzilla, at several times the speed of ``bytes.find``.
For more, and where there are quotes, ``rows`` gives every row's field; it also checks all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import stringzilla

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.row_index import hashes_of
from oiyolo.openimages.csvscan.row_starts import Begins
from oiyolo.openimages.csvscan.rows import Wanted, index_rows
from oiyolo.openimages.csvscan.schema import shown
from oiyolo.openimages.csvscan.window import LONGEST_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oiyolo.openimages.csvscan.row_index import Hashes
    from oiyolo.openimages.csvscan.rows import Places, RowIndex

_FEW: Final = 8
"""So many passes over a text cost what its index costs."""
_EMPTY_LINES: Final = frozenset({b"\n", b"\r\n"})
"""Which are no rows."""
_SEARCHED_BYTES: Final = 256 << 10
_INDEXED_BYTES: Final = 1 << 20
"""Each step in numpy has a cost of its own, so that smaller blocks take longer in all."""


@dataclass(frozen=True)
class Part:
    """What a piece gave.

    Places are relative to the piece's: in lines if all rows are checked, otherwise in bytes.

    Attributes:
        rows: Rows that may be wanted, of the right width, each with its newline.
        places: Where each begins.
        bad: The place of each broken row, and what was found there.
        size: How much was read of the piece, as places are counted.
        read_bytes: The same in bytes.
        in_bad_line: What was read ends within a broken line.
        mapped: Where each row of it begins, in bytes, and the hash of its field (``rowmap``), if
            that was asked for and all could be told.
    """

    rows: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    size: int = 0
    read_bytes: int = 0
    in_bad_line: bool = False
    mapped: tuple[Places, Hashes] | None = None


def best_block_bytes(word_count: int, *, check_all: bool) -> int:
    """Tell how long pieces are best for a search of so many words."""
    return _SEARCHED_BYTES if word_count <= _FEW and not check_all else _INDEXED_BYTES


class Search:
    """What is looked for in a file.

    Args:
        words: The wanted values.
        column: The 0-based place of the column that has them.
        width: How many columns there are.
        check_all: Check the width of rows too that cannot be wanted, and count lines.
        map_rows: With ``check_all``, also tell where all rows are.
    """

    def __init__(
        self,
        words: Iterable[str],
        column: int,
        width: int,
        *,
        check_all: bool,
        map_rows: bool = False,
    ) -> None:
        self.wanted = Wanted(words, column, width)
        self._check_all = check_all
        self.map_rows = map_rows
        self._needles: list[bytes] | None = None
        if len(self.wanted.words) <= _FEW:
            before, after = b"," * (column > 0), b"," * (column < width - 1)
            # With one of these in it, a field stands in quotes; such pieces are not searched so.
            plain = [word for word in self.wanted.words if not set(word) & set(b',"\n')]
            self._needles = [before + word + after for word in plain]

    def whole_rows(self, text: bytearray, start: int, stop: int) -> Part | None:
        """Search the rows that end in a piece; ``None`` if its quotes are not in order.

        Args:
            text: Has ``reading.MARGIN_BYTES`` before and behind the piece.
            start: Where the piece, and a row, begins.
            stop: Where the piece ends.
        """
        newline = text.rfind(b"\n", start, stop)
        if newline < 0:
            return Part()
        spans = None
        if self._needles is not None and text.find(b'"', start, newline) < 0:
            spans = _spans(self._needles, text, start, newline + 1)
            if not self._check_all:
                return self._unchecked(text, start, newline + 1, spans)
        if not self._check_all and self.wanted.stand_at_begins:
            part = self._at_begins(text, start, newline + 1)
            if part is not None:
                return part
        index = index_rows(text, start, stop)
        if index is None:
            return None
        if not self._check_all:
            chosen, bad = self._by_width(index, self.wanted.candidates(index, index.all_rows()))
            places, size = index.starts[chosen], index.size_bytes
        else:
            good, bad = self._by_width(index, index.all_rows())
            if spans is None:
                chosen = self.wanted.candidates(index, good)
            else:
                begins = np.array([begin - start for begin, _ in spans], np.int64)
                found = np.searchsorted(index.starts, begins)
                chosen = np.intersect1d(found, good) if bad else found
            places, size = index.lines(chosen), index.count_lines()
        found_rows = index.bytes_of(chosen), places.tolist(), bad
        mapped = self._mapped(index, good) if self._check_all and self.map_rows else None
        return Part(*found_rows, size, index.size_bytes, mapped=mapped)

    def _mapped(self, index: RowIndex, rows: Places) -> tuple[Places, Hashes]:
        is_last = self.wanted.column == self.wanted.width - 1
        keys = index.keys(rows, self.wanted.column, is_last=is_last)
        return index.starts[rows], hashes_of(keys)

    def _at_begins(self, text: bytearray, start: int, stop: int) -> Part | None:
        """Search for values of the first column; ``None`` if quotes stand in other places too."""
        rows = Begins(text, start, stop)
        if not rows.in_order:
            return None
        size_bytes = rows.size_bytes
        part = Part(size=size_bytes, read_bytes=size_bytes)
        for number in self.wanted.at_begins(text, rows.starts).tolist():
            begin = int(rows.starts[number])
            row = bytes(text[begin : rows.stops[number]])
            width = 1 + sum(piece.count(b",") for piece in row.split(b'"')[::2])
            if width == self.wanted.width:
                part.rows.append(row)
                part.places.append(begin - start)
            elif row not in _EMPTY_LINES:
                part.bad.append((begin - start, f"{width} in {_shown(row)}"))
        return part

    def one_by_one(self, text: bytes, *, final: bool) -> Part:
        """Search rows one after the other, whatever the quotes, as far as they are whole.

        Args:
            text: Begins with a row.
            final: Nothing follows it.
        """
        part = Part()
        rows, places, bad = part.rows, part.places, part.bad
        at, line = 0, 0
        in_bad_line = False
        while at < len(text):
            record = record_reader.read_record(text, at)
            if record is None and not final and len(text) - at < LONGEST_ROW_BYTES:
                break
            place = line if self._check_all else at
            if record is None or record.fields is None:
                stop = text.find(b"\n", at) + 1 or len(text)
                in_bad_line = not text.endswith(b"\n", at, stop)
                bad.append((place, f"a quote out of place in {_shown(text[at:stop])}"))
            else:
                stop, fields = record.stop, record.fields
                if len(fields) != self.wanted.width:
                    if fields != [b""]:  # an empty line is no row
                        bad.append((place, f"{len(fields)} in {_shown(text[at:stop])}"))
                elif record_reader.plain(fields[self.wanted.column]) in self.wanted.words:
                    rows.append(text[at:stop])
                    places.append(place)
            line += text.count(b"\n", at, stop)
            at = stop
        return Part(rows, places, bad, line if self._check_all else at, at, in_bad_line)

    def rest_of_line(self, text: bytearray, start: int, stop: int) -> Part:
        """Pass over what follows of a broken line."""
        end = text.find(b"\n", start, stop) + 1
        read_bytes = (end or stop) - start
        size = int(end > 0) if self._check_all else read_bytes
        return Part(size=size, read_bytes=read_bytes, in_bad_line=not end)

    def _unchecked(
        self, text: bytearray, start: int, stop: int, spans: list[tuple[int, int]]
    ) -> Part:
        part = Part(size=stop - start, read_bytes=stop - start)
        for begin, end in spans:
            row = bytes(text[begin:end])
            width = row.count(b",") + 1
            if width == self.wanted.width:
                part.rows.append(row)
                part.places.append(begin - start)
            else:
                part.bad.append((begin - start, f"{width} in {_shown(row)}"))
        return part

    def _by_width(self, index: RowIndex, rows: Places) -> tuple[Places, list[tuple[int, str]]]:
        """Give the rows of the right width, and what to say of the others that are not empty."""
        widths = index.widths(rows)
        is_good = widths == self.wanted.width
        if is_good.all():
            return rows, []
        wrong = rows[~is_good]
        places = index.lines(wrong) if self._check_all else index.starts[wrong]
        told = zip(places.tolist(), widths[~is_good].tolist(), index.bytes_of(wrong), strict=True)
        bad = [
            (place, f"{found} in {_shown(row)}")
            for place, found, row in told
            if row not in _EMPTY_LINES
        ]
        return rows[is_good], bad


def _spans(needles: list[bytes], text: bytearray, start: int, stop: int) -> list[tuple[int, int]]:
    """Give where the lines begin and end that hold one of some needles, in order."""
    return sorted({span for needle in needles for span in _lines_with(needle, text, start, stop)})


def _lines_with(needle: bytes, text: bytearray, start: int, stop: int) -> list[tuple[int, int]]:
    """Give where the lines begin and end that hold a needle."""
    spans = []
    at = stringzilla.find(text, needle, start, stop)
    while at >= 0:
        begin, end = text.rfind(b"\n", start, at) + 1 or start, text.find(b"\n", at) + 1
        spans.append((begin, end))
        at = stringzilla.find(text, needle, end, stop) if end < stop else -1
    return spans


def _shown(row: bytes) -> str:
    return repr(shown(row[:1000].decode("utf-8", errors="replace")))
