"""Iterative stratification, of groups of images rather than of single images.

The class with the fewest remaining images comes first, because it has the fewest chances to reach
its share. Each of its groups, the largest first, goes to the split with the largest deficit of that
class. This is the method of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label
Data" (ECML PKDD 2011), with two changes: the unit is a group, and a split that already has its
share of all images gets no more groups, so that the overall shares are exact as well.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TOLERANCE: Final = 1e-9
_MAX_COMPARED: Final = 200
"""Maximum number of equally good moves that are compared by their classes."""


@dataclass(frozen=True)
class SplitUnit:
    """A group of images that is assigned to a split as a whole.

    Attributes:
        name: A unique name, which with the seed determines the order of units of the same size.
        split: The split that it already has, if any.
        size: Number of its images that count towards the ratios.
        by_class: Number of these images by class; negatives are a class of their own.
    """

    name: str
    split: str | None
    size: int
    by_class: Mapping[str, int]


class _Deficits:
    """The deficit of each split, in all images and in those of each class; negative: a surplus."""

    def __init__(self, units: Iterable[SplitUnit], ratios: Mapping[str, float]) -> None:
        total = 0
        by_class: dict[str, int] = defaultdict(int)
        for unit in units:
            total += unit.size
            for name, number in unit.by_class.items():
                by_class[name] += number
        self.splits = [split for split, share in ratios.items() if share > 0]
        self.images = {split: share * total for split, share in ratios.items()}
        self.by_class = {
            name: {split: share * number for split, share in ratios.items()}
            for name, number in by_class.items()
        }

    def add(self, split: str, unit: SplitUnit, times: int = 1) -> None:
        """Add a unit to a split (or remove it, if ``times`` is -1)."""
        self.images[split] = self.images.get(split, 0.0) - times * unit.size
        for name, number in unit.by_class.items():
            deficit = self.by_class[name]
            deficit[split] = deficit.get(split, 0.0) - times * number

    def best_for(self, name: str) -> str:
        """Return the split with the largest deficit of a class, among those that need images."""
        deficit = self.by_class[name]
        below = [split for split in self.splits if self.images[split] > _TOLERANCE] or self.splits
        return max(below, key=lambda split: (deficit[split], self.images[split]))

    def gain_of_move(self, unit: SplitUnit, source: str, target: str) -> float:
        """Return how much closer a move brings the classes to their shares, in squared images."""
        return sum(
            number * (deficit[target] - deficit[source] - number)
            for name, number in unit.by_class.items()
            for deficit in (self.by_class[name],)
        )


def stratify(units: Sequence[SplitUnit], ratios: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of each unit; units that have a split keep it.

    If no unit has a split yet, the share of each split in all images is exact to within the size of
    the largest unit.

    Args:
        units: All units, in any order.
        ratios: The share of each split; they sum to 1.
        seed: Determines the order of units of the same size.
    """
    deficits = _Deficits(units, ratios)
    split_of = {unit.name: unit.split for unit in units if unit.split is not None}
    for unit in units:
        if unit.split is not None:
            deficits.add(unit.split, unit)
    new = [unit for unit in units if unit.split is None]
    new.sort(key=lambda unit: (-unit.size, _random_key(unit.name, seed)))
    for name, unit in _rarest_first(new):
        split = deficits.best_for(name)
        split_of[unit.name] = split
        deficits.add(split, unit)
    _even_out(new, split_of, deficits)
    return [split_of[unit.name] for unit in units]


def _random_key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _rarest_first(new: Sequence[SplitUnit]) -> Iterable[tuple[str, SplitUnit]]:
    """Yield each unit once, with the rarest class at that moment, which it contains."""
    units_by_class: dict[str, list[SplitUnit]] = defaultdict(list)
    remaining: dict[str, int] = defaultdict(int)
    for unit in new:
        for name, number in unit.by_class.items():
            units_by_class[name].append(unit)
            remaining[name] += number
    done: set[str] = set()
    while remaining:
        rarest = min(remaining, key=lambda name: (remaining[name], name))
        for unit in units_by_class[rarest]:
            if unit.name not in done:
                done.add(unit.name)
                for name, number in unit.by_class.items():
                    remaining[name] -= number
                yield rarest, unit
        del remaining[rarest]


def _even_out(new: Sequence[SplitUnit], split_of: dict[str, str], deficits: _Deficits) -> None:
    """Move new units from the split with the largest surplus to that with the largest deficit.

    Stops when no move brings the two splits closer to their shares.
    """
    largest = max((unit.size for unit in new), default=0)
    in_split: dict[str, list[SplitUnit]] = defaultdict(list)
    for unit in new:
        in_split[split_of[unit.name]].append(unit)
    # Each useful move brings two splits closer to their shares by at least one image.
    for _ in range(2 * largest * len(deficits.splits)):
        over = min(deficits.splits, key=lambda split: deficits.images[split])
        under = max(deficits.splits, key=lambda split: deficits.images[split])
        surplus, deficit = -deficits.images[over], deficits.images[under]

        def error_after(
            unit: SplitUnit, surplus: float = surplus, deficit: float = deficit
        ) -> float:
            return abs(surplus - unit.size) + abs(deficit - unit.size)

        best = min(map(error_after, in_split[over]), default=abs(surplus) + abs(deficit))
        if best > abs(surplus) + abs(deficit) - _TOLERANCE:
            return
        ties = [u for u in in_split[over] if error_after(u) <= best + _TOLERANCE]
        chosen = max(ties[:_MAX_COMPARED], key=lambda u: deficits.gain_of_move(u, over, under))
        in_split[over].remove(chosen)
        in_split[under].append(chosen)
        deficits.add(over, chosen, times=-1)
        deficits.add(under, chosen)
        split_of[chosen.name] = under
