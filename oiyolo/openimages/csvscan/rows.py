"""Locate the rows and fields of a chunk of CSV text from its newlines, quotes and commas.

A newline ends a row, and a comma ends a field, if the number of quotes before it is even; if it is
odd, the character is inside a quoted field. This holds as long as quotes surround whole fields only
(``Rows.quotes_are_regular``).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.openimages.csvscan.record_reader import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Offsets = NDArray[np.int64]
    """Byte offsets in a buffer, or row numbers, in ascending order."""

_COMMA: Final = ord(",")
_NEWLINE: Final = ord("\n")
_QUOTE: Final = ord('"')
_RETURN: Final = ord("\r")
_NEXT_TO_QUOTES: Final = np.zeros(256, bool)
_NEXT_TO_QUOTES[[_COMMA, _NEWLINE, _QUOTE]] = True
"""What may precede an opening quote and follow a closing one; two quotes are an escape."""
_HEAD_BYTES: Final = 64
_KEY_BYTES: Final = 8
_LONGEST_KEY_STOP: Final = 64


class Rows:
    """The whole rows of a chunk of CSV text.

    Args:
        text: Buffer with ``window.MARGIN_BYTES`` before and after the chunk.
        start: Offset of the chunk, at which a row begins.
        stop: Offset of the chunk's end.

    Attributes:
        text: The buffer.
        start: Offset of the chunk.
        starts: Offset of each row in ``text``.
        stops: Offset of each row's end, after its newline.
    """

    def __init__(self, text: bytearray, start: int, stop: int) -> None:
        self.text, self.start, self._stop = text, start, stop
        self._octets = np.frombuffer(text, np.uint8)
        self._quotes = self._offsets_of(_QUOTE)
        self._newlines = self._offsets_of(_NEWLINE)
        self.stops = self._newlines[np.searchsorted(self._quotes, self._newlines) % 2 == 0] + 1
        self.starts = np.concatenate([[start], self.stops[:-1]])[: len(self.stops)]

    @property
    def size_bytes(self) -> int:
        """Size of all rows together, including the last newline."""
        return int(self.stops[-1] - self.start) if len(self.stops) else 0

    @property
    def quotes_are_regular(self) -> bool:
        """Whether every quote in the rows opens a field, closes one, or is one of an escape."""
        quotes = self._quotes[: np.searchsorted(self._quotes, self.start + self.size_bytes)]
        opening, closing = quotes[0::2], quotes[1::2]
        opens = _NEXT_TO_QUOTES[self._octets[opening - 1]] | (opening == self.start)
        following = self._octets[closing + 1]
        crlf = (following == _RETURN) & (self._octets[closing + 2] == _NEWLINE)
        return bool(opens.all() and (_NEXT_TO_QUOTES[following] | crlf).all())

    @property
    def field_counts(self) -> NDArray[np.int32]:
        """The number of fields of each row."""
        is_comma = self._is_comma[: self.size_bytes].view(np.int8)
        counts: NDArray[np.int32] = np.add.reduceat(
            is_comma, self.starts - self.start, dtype=np.int32
        )
        return counts + 1

    def count_lines(self, offsets: Offsets) -> Offsets:
        """Return the number of newlines from the chunk's start to each offset."""
        counts: Offsets = np.searchsorted(self._newlines, offsets)
        return counts

    def field_starts(self) -> Offsets:
        """Return the offset of the first field of each row, after an opening quote."""
        starts: Offsets = self.starts + (self._octets[self.starts] == _QUOTE)
        return starts

    def field_ends(self, column: int, *, is_last: bool) -> Offsets:
        """Return the offset at which a field of each row ends, before a closing quote.

        For a row that lacks the field, the offset is meaningless.

        Args:
            column: 0-based position of the field.
            is_last: Whether it is the last column.
        """
        if is_last:
            ends: Offsets = self.stops - 1
            ends -= self._octets[ends - 1] == _RETURN
        else:
            ends = self._commas_after(column)
        ends -= self._octets[ends - 1] == _QUOTE
        return ends

    def words_before(self, offsets: Offsets) -> NDArray[np.uint64]:
        """Return the 8 bytes before each offset as a little-endian number."""
        words = np.ndarray((len(self.text) - _KEY_BYTES,), "<u8", self.text, 0, (1,))
        before: NDArray[np.uint64] = words[offsets - _KEY_BYTES]
        return before

    def _commas_after(self, column: int) -> Offsets:
        """Return the offset of the comma after a field of each row."""
        if not len(self._quotes):
            # Most such commas are near the row's start. One bit per byte makes each step cheap.
            shape = (len(self.text) - _HEAD_BYTES,)
            heads = np.ndarray(shape, f"V{_HEAD_BYTES}", self.text, 0, (1,))[self.starts]
            bits = np.packbits(heads.view(np.uint8) == _COMMA, bitorder="little").view("<u8")
            for _ in range(column):
                bits &= bits - 1  # clears the lowest bit, which is the next comma
            if bits.all():
                lowest_bits = bits & ~(bits - 1)
                nearest: Offsets = self.starts + np.bitwise_count(lowest_bits - 1)
                return nearest
        # The chunk's end stands for the commas that are missing.
        commas = np.append(np.flatnonzero(self._is_comma), self._stop - self.start)
        commas_before_start = np.searchsorted(commas, self.starts - self.start)
        offsets: Offsets = commas.take(commas_before_start + column, mode="clip") + self.start
        return offsets

    @cached_property
    def _is_comma(self) -> NDArray[np.bool_]:
        """Whether each byte of the chunk is a comma outside quotes."""
        is_comma: NDArray[np.bool_] = self._octets[self.start : self._stop] == _COMMA
        if len(self._quotes):
            # Before the first quote is outside, up to the second inside, and so on.
            lengths = np.diff(self._quotes, prepend=self.start, append=self._stop)
            is_comma &= np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)
        return is_comma

    def _offsets_of(self, value: int) -> Offsets:
        offsets: Offsets = np.flatnonzero(self._octets[self.start : self._stop] == value)
        offsets += self.start
        return offsets


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

    def has_value(self, fields: list[bytes]) -> bool:
        """Return whether a record has one of the values.

        Args:
            fields: All fields of the record, as written.
        """
        return unquote(fields[self.column]) in self.encoded

    def candidates(self, rows: Rows) -> Offsets:
        """Return the numbers of the rows that may have one of the values."""
        if not self.encoded or not self._key_length:  # an empty value has no bytes to compare
            return np.arange(len(rows.starts) if self.encoded else 0)
        if self.column == 0:  # avoids locating the commas
            key_ends = rows.field_starts() + self._key_stop
        else:
            is_last = self.column == self.column_count - 1
            key_ends = rows.field_ends(self.column, is_last=is_last)
        found = rows.words_before(key_ends) >> self._key_shift
        nearest = np.searchsorted(self._keys, found).clip(max=len(self._keys) - 1)
        return np.flatnonzero(self._keys[nearest] == found)

    @cached_property
    def _escaped(self) -> list[bytes]:
        return [value.replace(b'"', b'""') for value in self.encoded]

    @cached_property
    def _key_stop(self) -> int:
        """Offset in a value of the first column at which its key ends."""
        return min((_LONGEST_KEY_STOP, *map(len, self._escaped)))

    @property
    def _key_length(self) -> int:
        return min(_KEY_BYTES, self._key_stop)

    @property
    def _key_shift(self) -> np.uint64:
        return np.uint64(8 * (_KEY_BYTES - self._key_length))

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        """The bytes of each value that are compared, as sorted numbers.

        In the first column these are the bytes before ``_key_stop``, the same for all values; in
        other columns the last bytes of each value.
        """
        first = slice(self._key_stop - self._key_length, self._key_stop)
        cut = slice(-self._key_length, None) if self.column else first
        padded = (value[cut].ljust(_KEY_BYTES, b"\0") for value in self._escaped)
        return np.sort(np.frombuffer(b"".join(padded), "<u8"))
