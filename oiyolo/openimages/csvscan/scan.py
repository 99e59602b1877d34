"""Rows of a large CSV whose field is one of some words, at about the speed of reading the file.

One pass in flat memory: the file comes in blocks (``reading``), each is searched while it is in the
core's cache (``search``), and only rows that may be wanted are looked at closely and parsed
(``hits``). A source that can be read only once, such as a socket, is enough to check every row.
Checking a file that stays leaves a map of its rows (``rowmap``), by which later passes find theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.csvscan.row_index import RowMap, RowMapWriter, written
from oiyolo.openimages.csvscan.schema import BOXES, IMAGES, LABELS, REFETCH, CsvForm, column_names
from oiyolo.openimages.csvscan.search import Search, best_block_bytes
from oiyolo.openimages.csvscan.window import LONGEST_ROW_BYTES, Mapped, OnDisk, Readable, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from contextlib import AbstractContextManager

    import pandas as pd

    from oiyolo.openimages.csvscan.row_parser import Hits
    from oiyolo.openimages.csvscan.search import Part

__all__ = ["BOXES", "IMAGES", "LABELS", "CsvForm", "Found", "OnDisk", "Readable", "matching_rows"]

_COUNTED_BYTES: Final = 256 << 10


@dataclass(frozen=True)
class Found:
    """The rows that were looked for.

    Attributes:
        rows: In the file's order; the form's numbers as numbers, all else as text.
        bad_rows: How many broken rows were left out.
    """

    rows: pd.DataFrame
    bad_rows: int


def matching_rows(
    file: Readable,
    form: CsvForm,
    column: str,
    wanted: Iterable[str],
    *,
    keep: Collection[str] | None = None,
    check_all: bool = True,
    skip_bad_rows: bool = False,
) -> Found:
    """Give the rows whose ``column`` is one of ``wanted``.

    Fields may be quoted, and hold commas, newlines and doubled quotes then; lines end in LF or
    CRLF; empty lines are no rows. A row is broken if it has more or fewer fields than the header,
    or a quote out of place; a wanted one also if it is no UTF-8, has a NUL or a lone carriage
    return, or something else where a number must stand.

    Args:
        file: A CSV with a header line.
        form: What it must look like.
        column: The column to look in, one that the form requires.
        wanted: The values to look for.
        keep: Columns of the result; without it, all that the file has.
        check_all: Check every row's number of fields. Rows that cannot be wanted may go unchecked
            otherwise, which takes less time, and least where a check has left a map: right for a
            file that was checked before and can be read again, as it is to find the line of a
            broken row.
        skip_bad_rows: Leave broken rows out and count them.

    Raises:
        InputFormError: The file is not of this form; the message has the line. Also what
            ``file.blocks`` raises.
    """
    wanted = frozenset(wanted)
    window = Window(file, best_block_bytes(len(wanted), check_all=check_all))
    header = window.take_header()
    columns = column_names(header, form, file.where)
    complain = _Complaints(file, form, len(columns), in_lines=check_all, skip=skip_bad_rows)
    search = Search(wanted, columns.index(column), len(columns), check_all=check_all)
    from oiyolo.openimages.csvscan.row_parser import Hits  # noqa: PLC0415  (pandas: half a second)

    hits = Hits(form, columns, keep, search.wanted, complain.other)
    if check_all:
        with _map_of(file, column) as row_map:
            search.map_rows = row_map.is_wanted
            _search_all(window, search, hits, complain, row_map=row_map, header_bytes=len(header))
            if complain.count:
                row_map.give_up()
    elif (known := _known_map(file, column)) is not None:
        for rows in known.rows(search.wanted.words):
            hits.add(*rows)
    else:
        no_map = RowMapWriter(None)
        _search_all(window, search, hits, complain, row_map=no_map, header_bytes=len(header))
    return Found(hits.table(), complain.count)


def _known_map(file: Readable, column: str) -> RowMap | None:
    if not isinstance(file, Mapped):
        return None
    return RowMap.opened(file.path, file.map_path, column, file.version)


def _map_of(file: Readable, column: str) -> AbstractContextManager[RowMapWriter]:
    """Give what writes a file's map, if it is one that can have one and has none yet."""
    if not isinstance(file, Mapped) or _known_map(file, column) is not None:
        return written(None, column, "", 0)
    return written(file.map_path, column, file.version, file.path.stat().st_size)


def _search_all(
    window: Window,
    search: Search,
    hits: Hits,
    complain: _Complaints,
    *,
    row_map: RowMapWriter,
    header_bytes: int,
) -> None:
    """Go through the file behind its header."""
    place, read_bytes = 1 if complain.in_lines else header_bytes, header_bytes
    for part in _parts(window, search):
        for at, found in part.bad:
            complain.width(place + at, found)
        sizes, places = list(map(len, part.rows)), [place + at for at in part.places]
        hits.add(b"".join(part.rows), sizes, places)
        if part.mapped is not None:
            row_map.add(part.mapped[0] + read_bytes, part.mapped[1])
        elif part.read_bytes:
            row_map.give_up()
        place += part.size
        read_bytes += part.read_bytes


class _Complaints:
    """Broken rows: raised for, or counted.

    Args:
        file: Where they are.
        form: Its form.
        width: How many columns it has.
        in_lines: A row's place is the number of lines before it; otherwise of bytes.
        skip: Count only.
    """

    def __init__(
        self, file: Readable, form: CsvForm, width: int, *, in_lines: bool, skip: bool
    ) -> None:
        self.count = 0
        self._file = file
        self._form = form
        self._width = width
        self.in_lines = in_lines
        self._skip = skip

    def width(self, place: int, found: str) -> None:
        """Take note of a row that has not as many fields as the header."""
        self.other(place, "a broken row", f"{self._width} fields", found)

    def other(self, place: int, what: str, expected: str, found: str) -> None:
        """Take note of a row that is broken in another way."""
        self.count += 1
        if not self._skip:
            line = 1 + (place if self.in_lines else _lines_before(self._file, place))
            raise InputFormError(
                f"{self._form.name}: {what}",
                where=f"{self._file.where}:{line}",
                expected=expected,
                found=found,
                remedy=f"{REFETCH}, or pass over such rows with --skip-bad-rows",
            )


def _lines_before(file: Readable, place: int) -> int:
    """Count the newlines before a byte."""
    lines = 0
    for block in file.blocks(_COUNTED_BYTES):
        lines += block.count(b"\n", 0, max(0, place))
        place -= len(block)
        if place <= 0:
            break
    return lines


def _parts(window: Window, search: Search) -> Iterator[Part]:
    """Give what is found in the file, from the window's start on."""
    in_bad_line = False
    while True:
        if in_bad_line:
            part = search.rest_of_line(window.text, window.start, window.stop)
        else:
            found = search.whole_rows(window.text, window.start, window.stop)
            if found is None or window.left_bytes - found.read_bytes > LONGEST_ROW_BYTES:
                found = search.one_by_one(window.rest, final=False)
            part = found
        window.start += part.read_bytes
        in_bad_line = part.in_bad_line
        yield part
        is_searched = not (window.left_bytes and part.read_bytes)
        if is_searched and not window.more():
            break
    if window.left_bytes:
        window.end_with_newline()
        yield search.one_by_one(window.rest, final=True)
