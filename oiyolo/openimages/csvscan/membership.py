"""Which of many numbers are among some: a table tells of most that they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.unsignedinteger[Any]]
    Places = NDArray[np.int64]

SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 by the golden ratio: it spreads near keys far apart (Knuth, TAOCP 6.4)."""
_SPREAD_BITS: Final = 64
_FEW: Final = 8
"""To compare with each of so many takes less time than to look in a table of them."""


class Among:
    """Some numbers, to look for among many.

    Args:
        values: The numbers, unsigned, in any order.
    """

    def __init__(self, values: Numbers) -> None:
        self._values: Numbers = np.sort(values)
        number, bits = values.dtype.type, 8 * values.dtype.itemsize
        table_bits = max(16, min(22, len(values).bit_length() + 6))
        self._spread = number(SPREAD >> (_SPREAD_BITS - bits))
        self._shift = number(bits - table_bits)
        self._known = np.zeros(1 << table_bits, bool)
        self._known[self._slots(self._values)] = True

    def places(self, numbers: Numbers) -> Places:
        """Give the places of those numbers that are among them; these are of the same type."""
        if len(self._values) <= _FEW:
            return np.flatnonzero(np.isin(numbers, self._values))
        maybe = np.flatnonzero(self._known[self._slots(numbers)])
        nearest = np.searchsorted(self._values, numbers[maybe]).clip(max=len(self._values) - 1)
        found: Places = maybe[self._values[nearest] == numbers[maybe]]
        return found

    def _slots(self, numbers: Numbers) -> NDArray[np.signedinteger[Any]]:
        slots = numbers * self._spread >> self._shift
        # As they are, but signed, as numpy wants its indices.
        return slots.view(f"i{numbers.dtype.itemsize}")
