"""Where the rows and fields of a piece of CSV lie, found by arithmetic on bits.

Every byte becomes one bit in each of three rows of 64-bit words: is it a comma, a newline, a quote?
What stands in quotes then follows from a running parity, the number of commas in each row from
counts of bits, and the place of a field from the lowest bits after the row's start. So all rows
are checked exactly, in less time than finding each comma takes: after the first step, 64 bytes
cost one operation. The way of simdjson (Langdale and Lemire, arXiv:1902.08318), in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.openimages.csvscan.membership import Among

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Places = NDArray[np.int64]
    """Places of bytes, or numbers of rows, in order."""

_COMMA: Final = ord(",")
_NEWLINE: Final = ord("\n")
_QUOTE: Final = ord('"')
_RETURN: Final = ord("\r")

_WORD_BITS: Final = 64
_STEP_BYTES: Final = 256 << 10
"""What is compared at a time stays in a core's own cache."""
_ONE: Final = np.uint64(1)
_NEAR_COLUMNS: Final = 5
"""Fields up to here are looked for by dropping bits; later ones by a list of all commas."""
_KEY_BYTES: Final = 8
_LONGEST_KEY_STOP: Final = 64
_LAST_BYTES: Final = np.array(
    [((1 << 8 * n) - 1) << 8 * (_KEY_BYTES - n) for n in range(_KEY_BYTES + 1)], np.uint64
)
"""What leaves so many of the last bytes of a little-endian number of 8."""


@dataclass(frozen=True)
class RowIndex:
    """The whole rows of a piece of text, each without its newline.

    Attributes:
        text: The text.
        origin: Where the piece begins in it; other places count from there.
        starts: Where each row begins.
        ends: Where its newline is.
        commas: One bit a byte: a comma that ends a field.
        newlines: One bit a byte: a newline, also in a quoted field.
        quoted: There are quotes.
    """

    text: bytearray
    origin: int
    starts: Places
    ends: Places
    commas: Words
    newlines: Words
    quoted: bool

    @property
    def size_bytes(self) -> int:
        """How long the rows are, with the last newline."""
        return int(self.ends[-1]) + 1 if len(self.ends) else 0

    def all_rows(self) -> Places:
        """Give the numbers of all rows."""
        return np.arange(len(self.ends))

    def count_lines(self) -> int:
        """Count the newlines up to the last row's."""
        if not self.quoted:
            return len(self.ends)
        return int(_count_before(self.newlines, np.array([self.size_bytes]))[0])

    def lines(self, rows: Places) -> Places:
        """Give the 0-based number of the line on which each row begins."""
        return _count_before(self.newlines, self.starts[rows]) if self.quoted else rows

    def widths(self, rows: Places) -> Places:
        """Give how many fields each row has."""
        if len(rows) == len(self.ends):
            widths = _count_before(self.commas, self.ends)
            widths[1:] -= widths[:-1].copy()
        else:
            widths = _count_before(self.commas, self.ends[rows])
            widths -= _count_before(self.commas, self.starts[rows])
        widths += 1
        return widths

    def field_starts(self, rows: Places) -> Places:
        """Give where the first field of each row begins, behind its quote."""
        starts = self.starts[rows]
        return starts + (self._octets()[starts] == _QUOTE) if self.quoted else starts

    def field_ends(self, rows: Places, column: int, *, is_last: bool) -> Places:
        """Give where a field of each row ends, before its quote; anywhere if the row lacks it."""
        octets = self._octets()
        ends = self.ends[rows] if is_last else self._separators(rows, column)
        if is_last:
            ends = ends - (octets[ends - 1] == _RETURN)
        return ends - (octets[ends - 1] == _QUOTE) if self.quoted else ends

    def keys(self, rows: Places, column: int, *, is_last: bool) -> Words:
        """Give the last 8 bytes of a field of each row, zeros before those of a shorter one."""
        ends = self.field_ends(rows, column, is_last=is_last)
        if column:
            begins = self._separators(rows, column - 1) + 1
            begins = begins + (self._octets()[begins] == _QUOTE) if self.quoted else begins
        else:
            begins = self.field_starts(rows)
        keys: Words = self.loads()[ends] & _LAST_BYTES[np.clip(ends - begins, 0, _KEY_BYTES)]
        return keys

    def loads(self) -> Words:
        """Give a view of the 8 bytes before every place."""
        origin = self.origin - _KEY_BYTES
        return np.ndarray((len(self.text) - origin - _KEY_BYTES,), "<u8", self.text, origin, (1,))

    def bytes_of(self, rows: Places) -> list[bytes]:
        """Give rows with their newlines."""
        text = memoryview(self.text)
        starts, ends = self.starts[rows] + self.origin, self.ends[rows] + self.origin + 1
        return [
            text[start:end].tobytes()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def _octets(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.text, np.uint8, offset=self.origin)

    def _separators(self, rows: Places, column: int) -> Places:
        """Give the first comma or end of the row behind a field."""
        starts, ends = self.starts[rows], self.ends[rows]
        if column < _NEAR_COLUMNS:
            at, shift = starts >> 6, (starts & 63).astype(np.uint64)
            # The commas of the 64 bytes from the row's start; two shifts, as one by 64 is none.
            near = self.commas[at] >> shift
            near |= (self.commas[at + 1] << _ONE) << (np.uint64(_WORD_BITS - 1) - shift)
            for _ in range(column):
                near &= near - _ONE
            if near.all():
                found: Places = starts + np.bitwise_count(_lowest(near) - _ONE)
                return np.minimum(found, ends)
        commas = np.append(_places(self.commas), self.ends[-1])
        found = commas.take(_count_before(self.commas, starts) + column, mode="clip")
        return np.minimum(found, ends)


def index_rows(text: bytearray, start: int, stop: int) -> RowIndex | None:
    """Find the rows that end in a piece of text.

    Args:
        text: Has at least 64 bytes before and behind the piece.
        start: Where the piece, and a row, begins.
        stop: Where it ends.

    Returns:
        The rows; ``None`` if a quote stands in them where none may.
    """
    octets = np.frombuffer(text, np.uint8, count=stop - start, offset=start)
    commas, newlines = _bits(octets, _COMMA), _bits(octets, _NEWLINE)
    quoted = text.find(b'"', start, stop) >= 0
    if not quoted:
        ends = _places(newlines)
    else:
        returns = _bits(octets, _RETURN) if text.find(b"\r", start, stop) >= 0 else None
        inside, wrong = _inside_quotes(_bits(octets, _QUOTE), commas, newlines, returns)
        commas = commas & ~inside
        ends = _places(newlines & ~inside)
        # What is behind the last row may go on beyond this piece.
        if len(ends) and _count_before(wrong, ends[-1:])[0]:
            return None
    starts = np.zeros_like(ends)
    np.add(ends[:-1], 1, out=starts[1:])
    return RowIndex(text, start, starts, ends, commas, newlines, quoted)


def _bits(octets: NDArray[np.uint8], value: int) -> Words:
    """Give one bit a byte, lowest first: is it this value? There is one word more than needed."""
    packed = np.zeros((len(octets) // _WORD_BITS + 2) * 8, np.uint8)
    is_value = np.empty(_STEP_BYTES, bool)
    for at in range(0, len(octets), _STEP_BYTES):
        step = octets[at : at + _STEP_BYTES]
        found = np.packbits(np.equal(step, value, out=is_value[: len(step)]), bitorder="little")
        packed[at // 8 : at // 8 + len(found)] = found
    words: Words = packed.view("<u8")
    return words


def _count_before(words: Words, places: Places) -> Places:
    """Count the bits before each place."""
    counts = np.bitwise_count(words).astype(np.int64)  # cumsum is slow where it has to convert
    sums = np.cumsum(counts)
    sums -= counts
    at = places >> 6
    below = (_ONE << (places & 63).astype(np.uint64)) - _ONE
    total: Places = sums[at] + np.bitwise_count(words[at] & below)
    return total


def _places(words: Words) -> Places:
    """Give the places of all bits, in order."""
    at = np.flatnonzero(words)
    left = words[at]
    lowest = _lowest(left)
    if np.array_equal(left, lowest):  # as always with long rows
        places: Places = (at << 6) + np.bitwise_count(lowest - _ONE)
        return places
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.flatnonzero(np.unpackbits(octets, bitorder="little"))


def _lowest(words: Words) -> Words:
    return words & (~words + _ONE)


def _inside_quotes(
    quotes: Words, commas: Words, newlines: Words, returns: Words | None
) -> tuple[Words, Words]:
    """Tell what stands in quotes.

    Returns:
        One bit a byte, set from an opening quote to before its closing one; a doubled quote closes
        and opens. And one for each quote that opens where no field begins or closes where none
        ends: from the first of them on, the others mean nothing.
    """
    inside = quotes.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        inside ^= inside << np.uint64(shift)
    odd = (np.bitwise_count(quotes) & 1).astype(np.uint64)
    carried = (np.cumsum(odd) - odd) & _ONE
    inside ^= ~carried + _ONE  # all ones where an earlier word leaves a quote open

    around = commas | newlines | quotes
    before = around << _ONE
    before[1:] |= around[:-1] >> np.uint64(_WORD_BITS - 1)
    before[0] |= _ONE  # the first row
    after = around if returns is None else around | (returns & _next_bits(newlines))
    return inside, (quotes & inside & ~before) | (quotes & ~inside & ~_next_bits(after))


def _next_bits(words: Words) -> Words:
    """Give for each byte the bit of the next."""
    moved = words >> _ONE
    moved[:-1] |= words[1:] << np.uint64(_WORD_BITS - 1)
    return moved


class Wanted:
    """The values to look for in one column.

    Args:
        texts: The values.
        column: The column's 0-based place.
        width: How many columns there are.

    Attributes:
        texts: The values.
        words: The values as they stand in a file.
        column: The column's 0-based place.
        width: How many columns there are.
    """

    def __init__(self, texts: Iterable[str], column: int, width: int) -> None:
        self.texts = frozenset(texts)
        # What is no Unicode can then only be found in a row that is no UTF-8.
        self.words = frozenset(text.encode(errors="surrogatepass") for text in self.texts)
        self.column = column
        self.width = width

    def candidates(self, index: RowIndex, rows: Places) -> Places:
        """Give those of the rows that may hold a wanted value."""
        if not self.words or not len(rows):
            return rows[:0]
        if not self._keys.length:  # nothing is wanted too: it has no bytes
            return rows
        if self.column == 0:
            key_ends = index.field_starts(rows) + self._keys.stop
        else:
            is_last = self.column == self.width - 1
            key_ends = index.field_ends(rows, self.column, is_last=is_last)
        found: Places = rows[self._keys.found_in(index.loads()[key_ends])]
        return found

    @property
    def stand_at_begins(self) -> bool:
        """The values are those of the first column, and none is empty."""
        return self.column == 0 and self._keys.length > 0

    def at_begins(self, text: bytearray, begins: Places) -> Places:
        """Give the numbers of those rows that may begin with a wanted value.

        Args:
            text: Has ``reading.MARGIN_BYTES`` before and behind the rows.
            begins: Where each row begins.
        """
        if not self.stand_at_begins:
            raise ValueError("only values of the first column stand at a row's begin")
        octets = np.frombuffer(text, np.uint8)
        key_ends = begins + self._keys.stop + (octets[begins] == _QUOTE)
        loads = np.ndarray((len(text) - _KEY_BYTES,), "<u8", text, 0, (1,))
        return self._keys.found_in(loads[key_ends - _KEY_BYTES])

    @cached_property
    def _keys(self) -> _Keys:
        return _Keys(self.words, in_first_column=self.column == 0)


class _Keys:
    """Some bytes of each value as one number.

    They are the last ones, or in the first column some that have the same place in all values.
    This may also let through what is not wanted, and never leaves out what is.

    Args:
        words: The values.
        in_first_column: They begin where a row does.

    Attributes:
        length: How many bytes make a key.
        stop: Where the key's bytes end in a value of the first column.
    """

    def __init__(self, words: Iterable[bytes], *, in_first_column: bool) -> None:
        raw = [word.replace(b'"', b'""') for word in words]
        self.stop = min((_LONGEST_KEY_STOP, *map(len, raw)))
        self.length = min(_KEY_BYTES, self.stop)
        self._drop = np.uint64(8 * (_KEY_BYTES - self.length))
        first = slice(self.stop - self.length, self.stop)
        cut = first if in_first_column else slice(-self.length, None)
        padded = (
            b"".join(word[cut].ljust(_KEY_BYTES, b"\0") for word in raw) if self.length else b""
        )
        self._among = Among(np.frombuffer(padded, "<u8"))

    def found_in(self, loads: Words) -> Places:
        """Give which numbers may be a value's: 8 bytes each, of which the key is the last."""
        return self._among.places(loads >> self._drop)
