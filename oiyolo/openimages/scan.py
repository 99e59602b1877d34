"""Rows of a large CSV that hold one of some words, found without reading the rest as a table.

The 14.6 million rows of train's boxes are passed over in blocks, in flat memory, at about the speed
of reading the file; only the rows that hold a wanted word are cut out, and only they are parsed.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from oiyolo.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

_BLOCK_BYTES: Final = 16 << 20
_FEW: Final = 8
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True)
class CsvForm:
    """What a kind of CSV must look like.

    Attributes:
        name: What it is called in messages.
        required: Columns it must have, in any order, beside others.
        quoted: Fields may be quoted and hold commas and newlines. Where they may not, the number
            of fields of every row is checked, also of those that are not wanted.
    """

    name: str
    required: tuple[str, ...]
    quoted: bool = False


BOXES: Final = CsvForm(
    "Open Images boxes",
    ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
)
IMAGES: Final = CsvForm(
    "Open Images image list",
    ("ImageID", "Subset", "OriginalURL", "License", "Author", "OriginalSize", "OriginalMD5"),
    quoted=True,
)
LABELS: Final = CsvForm(
    "Open Images image labels", ("ImageID", "Source", "LabelName", "Confidence")
)


def read_header(path: Path, form: CsvForm) -> list[str]:
    """Give a CSV's column names.

    Raises:
        InputFormError: The file is absent or empty, or lacks a required column.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16)
    except OSError as error:
        raise InputFormError(
            f"{form.name}: the file cannot be read", where=str(path), found=error.strerror or ""
        ) from None
    columns = _fields(line.decode("utf-8", errors="replace"))
    missing = [name for name in form.required if name not in columns]
    if missing:
        raise InputFormError(
            f"this is no {form.name} file",
            where=f"{path}:1",
            expected="a header line with " + ", ".join(form.required),
            found=_shown(line.decode("utf-8", errors="replace")) or "an empty file",
            remedy="Remove the file, so that it is fetched again",
        )
    return columns


def matching_rows(path: Path, form: CsvForm, column: str, wanted: Iterable[str]) -> pd.DataFrame:
    """Give the rows whose ``column`` is one of ``wanted``, all values as text.

    Args:
        path: A CSV with a header line, LF or CRLF, with or without a final newline.
        form: What it must look like.
        column: The column to look in.
        wanted: The values to look for.

    Raises:
        InputFormError: The file is not of this form; the message has the line.
    """
    columns = read_header(path, form)
    words = {word.encode() for word in wanted}
    position = columns.index(column)
    blocks = _checked_blocks(path, form, len(columns))
    if len(words) <= _FEW:
        lines = b"".join(_lines_holding(blocks, words, quoted=form.quoted))
    elif form.quoted and position:  # commas before it may stand in quotes
        lines = b"".join(blocks)
    else:
        lines = b"".join(_lines_by_field(blocks, words, position))
    if form.quoted and _has_broken_row(lines, len(columns)):
        _complain_about_width(path, form, len(columns))
    try:
        table = pd.read_csv(
            io.BytesIO(lines),
            names=columns,
            index_col=False,
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
        )
    except pd.errors.ParserError:
        _complain_about_width(path, form, len(columns))
        raise
    is_wanted = table[column].isin([word.decode() for word in words])
    return table.loc[is_wanted].reset_index(drop=True)


def numbers(
    table: pd.DataFrame, columns: Sequence[str], path: Path, form: CsvForm, expected: str
) -> pd.DataFrame:
    """Turn text columns of matching rows into numbers.

    Args:
        table: Rows as ``matching_rows`` gave them.
        columns: The columns to turn.
        path: The file that they came from, for the message.
        form: Its form.
        expected: What a value must be, for the message: "a number".

    Raises:
        InputFormError: A value is no finite number; the message has its line.
    """
    turned = table.copy()
    for column in columns:
        values = pd.to_numeric(table[column], errors="coerce")
        bad = ~np.isfinite(values.to_numpy(dtype=float))
        if bad.any():
            row = table[bad].iloc[0]
            raise InputFormError(
                f"{form.name}: wrong {column}",
                where=f"{path}:{_line_of(path, ','.join(row))}",
                expected=expected,
                found=repr(row[column]),
                remedy="Remove the file, so that it is fetched again",
            )
        turned[column] = values
    return turned


def _checked_blocks(path: Path, form: CsvForm, width: int) -> Iterator[bytes]:
    """Give the file after its header in blocks of whole lines, each ending in a newline."""
    with path.open("rb") as file:
        file.readline()
        while block := file.read(_BLOCK_BYTES):
            block += file.readline()
            if form.quoted and block.count(b'"') % 2:
                block += _rest_of_record(file)
            if not block.endswith(b"\n"):
                block += b"\n"
            if not form.quoted:
                # Two counts over the block cost a tenth of looking at each line.
                octets = np.frombuffer(block, dtype=np.uint8)
                commas = np.count_nonzero(octets == ord(","))
                if commas != np.count_nonzero(octets == ord("\n")) * (width - 1):
                    _complain_about_width(path, form, width)
            yield block


def _rest_of_record(file: BinaryIO) -> bytes:
    """Read on to the end of the line that ends a quoted field."""
    lines = []
    for line in file:
        lines.append(line)
        if line.count(b'"') % 2:
            break
    return b"".join(lines)


def _lines_holding(blocks: Iterator[bytes], words: set[bytes], *, quoted: bool) -> Iterator[bytes]:
    """Give the lines in which a word stands anywhere; quick while the words are few and rare."""
    for block in blocks:
        spans: set[tuple[int, int]] = set()
        for word in words:
            at = block.find(word)
            while at >= 0:
                start = block.rfind(b"\n", 0, at) + 1
                while quoted and block.count(b'"', 0, start) % 2:  # in the middle of a field
                    start = block.rfind(b"\n", 0, start - 1) + 1
                end = _record_end(block, start, at)
                spans.add((start, end))
                at = block.find(word, end)
        for start, end in sorted(spans):
            yield block[start:end]


def _lines_by_field(blocks: Iterator[bytes], words: set[bytes], position: int) -> Iterator[bytes]:
    """Give the lines whose field at ``position`` is a word; for many words, or frequent ones."""
    for block in blocks:
        at = 0
        for line in block.split(b"\n"):
            field = line.split(b",", position + 1)[position : position + 1]
            if field and field[0].rstrip(b"\r") in words:
                yield block[at : _record_end(block, at, at)]
            at += len(line) + 1


def _record_end(block: bytes, start: int, at: int) -> int:
    """Give the end of the record that begins at ``start``: a quoted field may hold newlines."""
    end = block.find(b"\n", at) + 1
    while block.count(b'"', start, end) % 2 and end < len(block):
        end = block.find(b"\n", end) + 1
    return end


def _has_broken_row(lines: bytes, width: int) -> bool:
    """Tell whether a row among quoted ones has not ``width`` fields."""
    text = io.StringIO(lines.decode("utf-8", errors="replace"), newline="")
    try:
        return any(len(row) != width for row in csv.reader(text))
    except csv.Error:  # an endless field: a quote is missing
        return True


def _complain_about_width(path: Path, form: CsvForm, width: int) -> None:
    """Raise for the first row that has not ``width`` fields, if there is one."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE)
        found = ""
        try:
            for row in rows:
                if len(row) != width:
                    found = f"{len(row)} in {_shown(','.join(row))!r}"
                    break
        except csv.Error as error:
            found = str(error)
        if found:
            raise InputFormError(
                f"{form.name}: a broken row",
                where=f"{path}:{rows.line_num}",
                expected=f"{width} fields",
                found=found,
                remedy="Remove the file, so that it is fetched again",
            )


def _line_of(path: Path, wanted: str) -> int:
    """Give the 1-based number of the first line that is ``wanted``; 0 if there is none."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.rstrip("\r\n") == wanted:
                return number
    return 0


def _fields(line: str) -> list[str]:
    return next(csv.reader([line.strip("\ufeff\r\n")]), [])


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
