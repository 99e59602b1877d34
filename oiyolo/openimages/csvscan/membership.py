"""Vectorized membership test: a lookup table rejects most candidates before the exact comparison.

The members are hashed into a sparse table of flags: 64 slots or more for each of up to 65,000
members, and at most 4 million slots. A number whose slot is not set cannot be a member, so one
multiplication and one table access settle nearly all numbers. Only the few that remain are compared
exactly, by binary search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.unsignedinteger[Any]]
    Indices = NDArray[np.int64]

HASH_MULTIPLIER: Final = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: multiplying by it spreads similar keys over the whole range
(Fibonacci hashing; Knuth, TAOCP 6.4)."""
_MULTIPLIER_BITS: Final = 64
_FEW: Final = 8
"""Up to this number of members, comparing with each is faster than the table."""


class MembershipTest:
    """Finds the members of a set in large arrays.

    Args:
        members: Unsigned numbers in any order.
    """

    def __init__(self, members: Numbers) -> None:
        self._members: Numbers = np.sort(members)
        number, bits = members.dtype.type, 8 * members.dtype.itemsize
        table_bits = max(16, min(22, len(members).bit_length() + 6))
        self._multiplier = number(HASH_MULTIPLIER >> (_MULTIPLIER_BITS - bits))
        self._shift = number(bits - table_bits)
        self._table = np.zeros(1 << table_bits, bool)
        self._table[self._slots(self._members)] = True

    def indices_of_members(self, numbers: Numbers) -> Indices:
        """Return the indices of the numbers that are members, in ascending order.

        Args:
            numbers: Numbers of the same type as the members.
        """
        if len(self._members) <= _FEW:
            return np.flatnonzero(np.isin(numbers, self._members))
        candidates = np.flatnonzero(self._table[self._slots(numbers)])
        nearest = np.searchsorted(self._members, numbers[candidates]).clip(
            max=len(self._members) - 1
        )
        matches: Indices = candidates[self._members[nearest] == numbers[candidates]]
        return matches

    def _slots(self, numbers: Numbers) -> NDArray[np.signedinteger[Any]]:
        slots = numbers * self._multiplier >> self._shift
        # numpy converts unsigned indices; these are small enough to be viewed as signed instead.
        return slots.view(f"i{numbers.dtype.itemsize}")
