"""Iterative stratification, of groups of images rather than of single images.

The class with the fewest remaining images comes first, because it has the fewest chances to reach
its share. Each of its groups, the largest first, goes to the split with the largest deficit of that
class. This is the method of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label
Data" (ECML PKDD 2011), with two changes: the unit is a group, and a split that already has its
share of all images gets no more groups, so that the overall shares are exact as well.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.splits.groups import Group

_TOLERANCE: Final = 1e-9
_MAX_COMPARED: Final = 200
"""Maximum number of equally good moves that are compared by their classes."""


class _Deficits:
    """The deficit of each split, in all images and in those of each class; negative: a surplus."""

    def __init__(self, groups: Sequence[Group], ratios: Mapping[str, float]) -> None:
        totals = Counter[str]()
        for group in groups:
            totals.update(group.by_class)
        total = sum(group.size for group in groups)
        self.splits = [split for split, share in ratios.items() if share > 0]
        self.images = defaultdict(float, {split: share * total for split, share in ratios.items()})
        self.by_class = {
            name: defaultdict(float, {split: share * number for split, share in ratios.items()})
            for name, number in totals.items()
        }
        for group in groups:
            if group.split:
                self.add(group.split, group)

    def add(self, split: str, group: Group, times: int = 1) -> None:
        """Add a group to a split (or remove it, if ``times`` is -1)."""
        self.images[split] -= times * group.size
        for name, number in group.by_class.items():
            self.by_class[name][split] -= times * number

    def best_for(self, name: str) -> str:
        """Return the split with the largest deficit of a class, among those that need images."""
        deficit = self.by_class[name]
        below = [split for split in self.splits if self.images[split] > _TOLERANCE] or self.splits
        return max(below, key=lambda split: (deficit[split], self.images[split]))

    def gain_of_move(self, group: Group, target: str) -> float:
        """Return how much closer a move brings the classes to their shares, in squared images."""
        return sum(
            number * (deficit[target] - deficit[group.split] - number)
            for name, number in group.by_class.items()
            for deficit in (self.by_class[name],)
        )


def stratify(groups: Sequence[Group], ratios: Mapping[str, float], seed: int) -> None:
    """Set the split of each group that has none.

    If no group has a split yet, the share of each split in all images is exact to within the size
    of the largest group.

    Args:
        groups: All groups, in any order.
        ratios: The share of each split; they sum to 1.
        seed: Determines, with their names, the order of groups of the same size.
    """
    deficits = _Deficits(groups, ratios)
    new = [group for group in groups if not group.split]
    new.sort(key=lambda group: (-group.size, _random_key(group.name, seed)))
    for name, group in _rarest_first(new):
        group.split = deficits.best_for(name)
        deficits.add(group.split, group)
    _even_out(new, deficits)


def _random_key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _rarest_first(new: Sequence[Group]) -> Iterator[tuple[str, Group]]:
    """Yield each group once, with the rarest class at that moment, which it contains."""
    groups_by_class: dict[str, list[Group]] = defaultdict(list)
    remaining = Counter[str]()
    for group in new:
        remaining.update(group.by_class)
        for name in group.by_class:
            groups_by_class[name].append(group)
    while remaining:
        rarest = min(remaining, key=lambda name: (remaining[name], name))
        for group in groups_by_class[rarest]:
            if not group.split:
                remaining.subtract(group.by_class)
                yield rarest, group
        del remaining[rarest]


def _even_out(new: Sequence[Group], deficits: _Deficits) -> None:
    """Move new groups from the split with the largest surplus to that with the largest deficit.

    Stops when no move brings the two splits closer to their shares.
    """
    largest = max((group.size for group in new), default=0)
    in_split: dict[str, list[Group]] = defaultdict(list)
    for group in new:
        in_split[group.split].append(group)
    # Each useful move brings two splits closer to their shares by at least one image.
    for _ in range(2 * largest * len(deficits.splits)):
        over = min(deficits.splits, key=lambda split: deficits.images[split])
        under = max(deficits.splits, key=lambda split: deficits.images[split])
        surplus, deficit = -deficits.images[over], deficits.images[under]

        def error_after(group: Group, surplus: float = surplus, deficit: float = deficit) -> float:
            return abs(surplus - group.size) + abs(deficit - group.size)

        best = min(map(error_after, in_split[over]), default=abs(surplus) + abs(deficit))
        if best > abs(surplus) + abs(deficit) - _TOLERANCE:
            return
        ties = [group for group in in_split[over] if error_after(group) <= best + _TOLERANCE]
        chosen = max(ties[:_MAX_COMPARED], key=lambda group: deficits.gain_of_move(group, under))
        deficits.add(over, chosen, times=-1)
        deficits.add(under, chosen)
        in_split[over].remove(chosen)
        in_split[under].append(chosen)
        chosen.split = under
