"""Rows whose first field is one of some words, without finding any other field of any row.

An image list has four quoted fields in nearly every row, and one row in seventy is wanted. Where
quotes stand only round whole fields, their places alone tell which newlines end a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Places = NDArray[np.int64]

_NEWLINE: Final = ord("\n")
_QUOTE: Final = ord('"')
_OPENS_AFTER: Final = np.zeros(256, bool)
_OPENS_AFTER[[ord(","), _NEWLINE, _QUOTE]] = True
_CLOSES_BEFORE: Final = _OPENS_AFTER
"""A closing quote may stand before a comma, a line's end, or the quote that makes it one of two."""


class Begins:
    """The rows that begin in a piece of a CSV.

    Args:
        text: Has ``reading.MARGIN_BYTES`` before and behind the piece.
        start: Where the piece, and a row, begins.
        stop: Where it ends.

    Attributes:
        starts: Where each whole row begins.
        stops: Where each ends, behind its newline.
    """

    def __init__(self, text: bytearray, start: int, stop: int) -> None:
        octets = np.frombuffer(text, np.uint8)
        self.text = text
        quotes = np.flatnonzero(octets[start:stop] == _QUOTE) + start
        newlines = np.flatnonzero(octets[start:stop] == _NEWLINE) + start
        # An odd number of quotes before a newline: it stands in a field.
        ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0] + 1
        self.stops = ends
        self.starts = np.concatenate([[start], ends[:-1]])[: len(ends)]
        self._quotes = quotes[: np.searchsorted(quotes, ends[-1])] if len(ends) else quotes[:0]

    @property
    def size_bytes(self) -> int:
        """How long the rows are, with the last newline."""
        return int(self.stops[-1] - self.starts[0]) if len(self.stops) else 0

    @property
    def in_order(self) -> bool:
        """Every quote opens a field, closes one, or is one of two in a field."""
        octets = np.frombuffer(self.text, np.uint8)
        opening, closing = self._quotes[0::2], self._quotes[1::2]
        opens = _OPENS_AFTER[octets[opening - 1]]
        if len(opening) and opening[0] == self.starts[0]:
            opens[0] = True
        behind = octets[closing + 1]
        crlf = (behind == ord("\r")) & (octets[closing + 2] == _NEWLINE)
        return bool(opens.all() and (_CLOSES_BEFORE[behind] | crlf).all())
