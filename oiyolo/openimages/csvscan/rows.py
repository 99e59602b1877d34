"""Locate the rows and fields of a chunk of CSV text with bitmaps (a structural index).

Every byte of the chunk becomes one bit in each of three bitmaps of 64-bit words: is the byte a
comma, a newline, a quote? Everything else is arithmetic on these words:

1. A running parity over the quote bits tells which bytes are inside quotes.
2. Newlines outside quotes end rows; commas outside quotes end fields.
3. The number of fields of a row is the number of comma bits in it, plus one.
4. A field ends at the n-th comma bit after the row's start: clear the lowest set bit n times.

After the first step one operation handles 64 bytes, so all rows are checked exactly in less time
than finding each comma takes. This is the approach of simdjson (Langdale and Lemire,
arXiv:1902.08318) in numpy. Bit i of a bitmap is bit i % 64 of word i // 64, lowest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.openimages.csvscan.membership import MembershipTest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]  # a bitmap, or 8 bytes of text in each word
    Indices = NDArray[np.int64]
    """Byte offsets or row numbers, in ascending order."""

_COMMA: Final = ord(",")
_NEWLINE: Final = ord("\n")
_QUOTE: Final = ord('"')
_RETURN: Final = ord("\r")

_WORD_BITS: Final = 64
_STEP_BYTES: Final = 256 << 10
"""Number of bytes compared at a time; small enough to stay in a core's own cache."""
_ONE: Final = np.uint64(1)
_NEAR_COLUMNS: Final = 5
"""Columns before this one are located by clearing bits; later ones by a list of all commas."""
_KEY_BYTES: Final = 8
_LONGEST_KEY_STOP: Final = 64
_LAST_BYTES: Final = np.array(
    [((1 << 8 * n) - 1) << 8 * (_KEY_BYTES - n) for n in range(_KEY_BYTES + 1)], np.uint64
)
"""Masks that keep the last n bytes of a little-endian 8-byte word, for n from 0 to 8."""


@dataclass(frozen=True)
class StructuralIndex:
    """Positions of the whole rows of a chunk and of their fields.

    Attributes:
        text: Buffer that contains the chunk.
        origin: Offset of the chunk in ``text``; all other offsets are relative to it.
        starts: Offset of each row.
        ends: Offset of each row's newline.
        commas: Bitmap of the commas that end fields.
        newlines: Bitmap of all newlines, including those in quoted fields.
        has_quotes: Whether the chunk contains quotes.
    """

    text: bytearray
    origin: int
    starts: Indices
    ends: Indices
    commas: Words
    newlines: Words
    has_quotes: bool

    @property
    def size_bytes(self) -> int:
        """Size of all rows together, including the last newline."""
        return int(self.ends[-1]) + 1 if len(self.ends) else 0

    def all_rows(self) -> Indices:
        """Return the numbers of all rows."""
        return np.arange(len(self.ends))

    def count_lines(self) -> int:
        """Return the number of newlines up to the end of the last row."""
        if not self.has_quotes:
            return len(self.ends)
        return int(_count_bits_before(self.newlines, np.array([self.size_bytes]))[0])

    def line_numbers(self, rows: Indices) -> Indices:
        """Return the 0-based number of the line on which each row begins."""
        return _count_bits_before(self.newlines, self.starts[rows]) if self.has_quotes else rows

    def field_counts(self, rows: Indices) -> Indices:
        """Return the number of fields of each row."""
        if len(rows) == len(self.ends):
            counts = _count_bits_before(self.commas, self.ends)
            counts[1:] -= counts[:-1].copy()
        else:
            counts = _count_bits_before(self.commas, self.ends[rows])
            counts -= _count_bits_before(self.commas, self.starts[rows])
        counts += 1
        return counts

    def field_starts(self, rows: Indices) -> Indices:
        """Return the offset of the first field of each row, after an opening quote."""
        starts = self.starts[rows]
        return starts + (self._octets()[starts] == _QUOTE) if self.has_quotes else starts

    def field_ends(self, rows: Indices, column: int, *, is_last: bool) -> Indices:
        """Return the offset at which a field of each row ends, before a closing quote.

        For a row that lacks the field, the offset is meaningless.

        Args:
            rows: Row numbers.
            column: 0-based position of the field.
            is_last: Whether it is the last column.
        """
        octets = self._octets()
        ends = self.ends[rows] if is_last else self._separators(rows, column)
        if is_last:
            ends = ends - (octets[ends - 1] == _RETURN)
        return ends - (octets[ends - 1] == _QUOTE) if self.has_quotes else ends

    def keys(self, rows: Indices, column: int, *, is_last: bool) -> Words:
        """Return the last 8 bytes of a field of each row; zeros precede a shorter one."""
        ends = self.field_ends(rows, column, is_last=is_last)
        if column:
            starts = self._separators(rows, column - 1) + 1
            starts = starts + (self._octets()[starts] == _QUOTE) if self.has_quotes else starts
        else:
            starts = self.field_starts(rows)
        keys: Words = self.words_before()[ends] & _LAST_BYTES[np.clip(ends - starts, 0, _KEY_BYTES)]
        return keys

    def words_before(self) -> Words:
        """Return a view whose element i is the 8 bytes before offset i, as a number."""
        origin = self.origin - _KEY_BYTES
        return np.ndarray((len(self.text) - origin - _KEY_BYTES,), "<u8", self.text, origin, (1,))

    def row_bytes(self, rows: Indices) -> list[bytes]:
        """Return the text of rows, each with its newline."""
        text = memoryview(self.text)
        starts, ends = self.starts[rows] + self.origin, self.ends[rows] + self.origin + 1
        return [
            text[start:end].tobytes()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def _octets(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.text, np.uint8, offset=self.origin)

    def _separators(self, rows: Indices, column: int) -> Indices:
        """Return the offset of the comma after a field, or of the row's end if it comes first."""
        starts, ends = self.starts[rows], self.ends[rows]
        if column < _NEAR_COLUMNS:
            at, shift = starts >> 6, (starts & 63).astype(np.uint64)
            # Comma bits of the 64 bytes from the row's start. The upper word is shifted twice,
            # because a single shift by 64 would leave it unchanged.
            near = self.commas[at] >> shift
            near |= (self.commas[at + 1] << _ONE) << (np.uint64(_WORD_BITS - 1) - shift)
            for _ in range(column):
                near &= near - _ONE
            if near.all():
                offsets: Indices = starts + np.bitwise_count(_lowest_bits(near) - _ONE)
                return np.minimum(offsets, ends)
        commas = np.append(_offsets_of_bits(self.commas), self.ends[-1])
        offsets = commas.take(_count_bits_before(self.commas, starts) + column, mode="clip")
        return np.minimum(offsets, ends)


def index_rows(text: bytearray, start: int, stop: int) -> StructuralIndex | None:
    """Find the rows that end in a chunk of text.

    Args:
        text: Buffer with at least 64 bytes before and after the chunk.
        start: Offset of the chunk, at which a row begins.
        stop: Offset of the chunk's end.

    Returns:
        The rows; ``None`` if one of them contains a misplaced quote.
    """
    octets = np.frombuffer(text, np.uint8, count=stop - start, offset=start)
    commas, newlines = _bitmap(octets, _COMMA), _bitmap(octets, _NEWLINE)
    has_quotes = text.find(b'"', start, stop) >= 0
    if not has_quotes:
        ends = _offsets_of_bits(newlines)
    else:
        returns = _bitmap(octets, _RETURN) if text.find(b"\r", start, stop) >= 0 else None
        inside, misplaced = _inside_quotes(_bitmap(octets, _QUOTE), commas, newlines, returns)
        commas = commas & ~inside
        ends = _offsets_of_bits(newlines & ~inside)
        # The text after the last row may continue in the next chunk, so its quotes do not count.
        if len(ends) and _count_bits_before(misplaced, ends[-1:])[0]:
            return None
    starts = np.zeros_like(ends)
    np.add(ends[:-1], 1, out=starts[1:])
    return StructuralIndex(text, start, starts, ends, commas, newlines, has_quotes)


def _bitmap(octets: NDArray[np.uint8], value: int) -> Words:
    """Return the bitmap of the bytes that equal ``value``, with one word more than necessary."""
    packed = np.zeros((len(octets) // _WORD_BITS + 2) * 8, np.uint8)
    is_value = np.empty(_STEP_BYTES, bool)
    for at in range(0, len(octets), _STEP_BYTES):
        step = octets[at : at + _STEP_BYTES]
        bits = np.packbits(np.equal(step, value, out=is_value[: len(step)]), bitorder="little")
        packed[at // 8 : at // 8 + len(bits)] = bits
    words: Words = packed.view("<u8")
    return words


def _count_bits_before(words: Words, offsets: Indices) -> Indices:
    """Return the number of set bits before each offset."""
    counts = np.bitwise_count(words).astype(np.int64)  # cumsum is slow where it has to convert
    sums = np.cumsum(counts)
    sums -= counts
    at = offsets >> 6
    below = (_ONE << (offsets & 63).astype(np.uint64)) - _ONE
    total: Indices = sums[at] + np.bitwise_count(words[at] & below)
    return total


def _offsets_of_bits(words: Words) -> Indices:
    """Return the offsets of all set bits, in ascending order."""
    at = np.flatnonzero(words)
    nonzero = words[at]
    lowest = _lowest_bits(nonzero)
    if np.array_equal(nonzero, lowest):  # at most one bit per word, as always with long rows
        offsets: Indices = (at << 6) + np.bitwise_count(lowest - _ONE)
        return offsets
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.flatnonzero(np.unpackbits(octets, bitorder="little"))


def _lowest_bits(words: Words) -> Words:
    return words & (~words + _ONE)


def _inside_quotes(
    quotes: Words, commas: Words, newlines: Words, returns: Words | None
) -> tuple[Words, Words]:
    """Return the bitmaps of the bytes inside quotes and of the misplaced quotes.

    Returns:
        Two bitmaps. The first has the bytes from an opening quote up to, not including, its closing
        quote; the first of two doubled quotes closes and the second opens. The second has the
        quotes that open where no field begins, or close where none ends; after the first misplaced
        quote, the other bits are meaningless.
    """
    inside = quotes.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        inside ^= inside << np.uint64(shift)
    odd = (np.bitwise_count(quotes) & 1).astype(np.uint64)
    carried = (np.cumsum(odd) - odd) & _ONE
    inside ^= ~carried + _ONE  # inverts the words that begin inside quotes

    boundaries = commas | newlines | quotes
    before = boundaries << _ONE
    before[1:] |= boundaries[:-1] >> np.uint64(_WORD_BITS - 1)
    before[0] |= _ONE  # the first row begins here
    after = boundaries if returns is None else boundaries | (returns & _next_bits(newlines))
    return inside, (quotes & inside & ~before) | (quotes & ~inside & ~_next_bits(after))


def _next_bits(words: Words) -> Words:
    """Return a bitmap that has at each offset the bit of the following offset."""
    moved = words >> _ONE
    moved[:-1] |= words[1:] << np.uint64(_WORD_BITS - 1)
    return moved


class ValueFilter:
    """Selects the rows that may have one of some values in one column.

    It compares up to 8 bytes of each row's field, so it never rejects a row with one of the values,
    but may accept others.

    Args:
        values: Values to search for.
        column: 0-based position of the column.
        column_count: Number of columns.

    Attributes:
        values: Values to search for.
        encoded: The values in UTF-8.
        column: 0-based position of the column.
        column_count: Number of columns.
    """

    def __init__(self, values: Iterable[str], column: int, column_count: int) -> None:
        self.values = frozenset(values)
        # A value with a lone surrogate only matches rows that are not valid UTF-8.
        self.encoded = frozenset(value.encode(errors="surrogatepass") for value in self.values)
        self.column = column
        self.column_count = column_count

    def candidates(self, index: StructuralIndex, rows: Indices) -> Indices:
        """Return those of the rows that may have one of the values."""
        if not self.encoded or not len(rows):
            return rows[:0]
        if not self._keys.length:  # one value is empty, so it has no bytes to compare
            return rows
        if self.column == 0:
            key_ends = index.field_starts(rows) + self._keys.stop
        else:
            is_last = self.column == self.column_count - 1
            key_ends = index.field_ends(rows, self.column, is_last=is_last)
        candidates: Indices = rows[self._keys.indices_of_matches(index.words_before()[key_ends])]
        return candidates

    @property
    def needs_only_row_starts(self) -> bool:
        """Whether the column is the first one and no value is empty."""
        return self.column == 0 and self._keys.length > 0

    def candidates_by_start(self, text: bytearray, starts: Indices) -> Indices:
        """Return the indices of those rows that may begin with one of the values.

        Args:
            text: Buffer with ``window.MARGIN_BYTES`` before and after the rows.
            starts: Offset of each row in ``text``.
        """
        if not self.needs_only_row_starts:
            raise ValueError("row starts suffice only for non-empty values of the first column")
        octets = np.frombuffer(text, np.uint8)
        key_ends = starts + self._keys.stop + (octets[starts] == _QUOTE)
        words = np.ndarray((len(text) - _KEY_BYTES,), "<u8", text, 0, (1,))
        return self._keys.indices_of_matches(words[key_ends - _KEY_BYTES])

    @cached_property
    def _keys(self) -> _Keys:
        return _Keys(self.encoded, in_first_column=self.column == 0)


class _Keys:
    """Up to 8 bytes of each value as one number, for a fast comparison.

    In the first column a key consists of the bytes before ``stop``, the same for all values. In
    other columns it consists of the last bytes of the value.

    Args:
        values: Values in UTF-8.
        in_first_column: Whether the values are those of the first column.

    Attributes:
        length: Number of bytes of each key.
        stop: Offset in a value of the first column at which its key ends.
    """

    def __init__(self, values: Iterable[bytes], *, in_first_column: bool) -> None:
        escaped = [value.replace(b'"', b'""') for value in values]
        self.stop = min((_LONGEST_KEY_STOP, *map(len, escaped)))
        self.length = min(_KEY_BYTES, self.stop)
        self._shift = np.uint64(8 * (_KEY_BYTES - self.length))
        first = slice(self.stop - self.length, self.stop)
        cut = first if in_first_column else slice(-self.length, None)
        padded = (
            b"".join(value[cut].ljust(_KEY_BYTES, b"\0") for value in escaped)
            if self.length
            else b""
        )
        self._members = MembershipTest(np.frombuffer(padded, "<u8"))

    def indices_of_matches(self, words: Words) -> Indices:
        """Return the indices of the 8-byte words that end in one of the keys."""
        return self._members.indices_of_members(words >> self._shift)
