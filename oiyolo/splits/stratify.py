"""Which split each new group goes to: iterative stratification, of groups rather than of images.

The class with the fewest images left comes first, because it has the fewest chances to come out
right; each of its groups, the largest first, goes where that class lacks most. This is the method
of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011),
with two changes: what is dealt is a group, and only splits that still lack images in all are dealt
to, so that the shares of the whole come out exact, too.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NOTHING: Final = 1e-9
_MOST_COMPARED: Final = 200
"""Of the groups that would even the shares out as well, so many are compared by their classes."""


@dataclass(frozen=True)
class Bundle:
    """Images that go to a split together.

    Attributes:
        name: Its name, by which it is dealt.
        split: The split that it has already, if any.
        size: How many of its images count.
        by_class: How many of them show each class; negatives are a class, too.
    """

    name: str
    split: str | None
    size: int
    by_class: Mapping[str, int]


class _Lacks:
    """How many images each split lacks: of all, and of each class. Below 0 it has too many."""

    def __init__(self, bundles: Iterable[Bundle], ratios: Mapping[str, float]) -> None:
        total = 0
        by_class: dict[str, int] = defaultdict(int)
        for bundle in bundles:
            total += bundle.size
            for name, number in bundle.by_class.items():
                by_class[name] += number
        self.open = [split for split, share in ratios.items() if share > 0]
        self.images = {split: share * total for split, share in ratios.items()}
        self.of_class = {
            name: {split: share * number for split, share in ratios.items()}
            for name, number in by_class.items()
        }

    def give(self, split: str, bundle: Bundle, times: int = 1) -> None:
        """Let a split have a bundle (or, with -1, give it back)."""
        self.images[split] = self.images.get(split, 0.0) - times * bundle.size
        for name, number in bundle.by_class.items():
            lacks = self.of_class[name]
            lacks[split] = lacks.get(split, 0.0) - times * number

    def best_for(self, name: str) -> str:
        """Choose the split that lacks most of a class, of those that lack images at all."""
        lacks = self.of_class[name]
        lacking = [split for split in self.open if self.images[split] > _NOTHING] or self.open
        return max(lacking, key=lambda split: (lacks[split], self.images[split]))

    def worth_of_moving(self, bundle: Bundle, source: str, target: str) -> float:
        """Tell by how much a move brings the classes nearer to their shares, in squared images."""
        return sum(
            number * (lacks[target] - lacks[source] - number)
            for name, number in bundle.by_class.items()
            for lacks in (self.of_class[name],)
        )


def deal(bundles: Sequence[Bundle], ratios: Mapping[str, float], seed: int) -> list[str]:
    """Give the split of each bundle; those that have one keep it.

    The first time, each split gets its share of all images to within the largest bundle.

    Args:
        bundles: All of them, in any order.
        ratios: The share of each split; they sum to 1.
        seed: Another seed deals bundles of equal worth differently.
    """
    lacks = _Lacks(bundles, ratios)
    split_of = {bundle.name: bundle.split for bundle in bundles if bundle.split is not None}
    for bundle in bundles:
        if bundle.split is not None:
            lacks.give(bundle.split, bundle)
    new = [bundle for bundle in bundles if bundle.split is None]
    new.sort(key=lambda bundle: (-bundle.size, _drawn(bundle.name, seed)))
    for name, bundle in _rarest_first(new):
        split = lacks.best_for(name)
        split_of[bundle.name] = split
        lacks.give(split, bundle)
    _even_out(new, split_of, lacks)
    return [split_of[bundle.name] for bundle in bundles]


def _drawn(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _rarest_first(new: Sequence[Bundle]) -> Iterable[tuple[str, Bundle]]:
    """Give each bundle once, with the class for whose sake it comes now."""
    with_class: dict[str, list[Bundle]] = defaultdict(list)
    left: dict[str, int] = defaultdict(int)
    for bundle in new:
        for name, number in bundle.by_class.items():
            with_class[name].append(bundle)
            left[name] += number
    done: set[str] = set()
    while left:
        rarest = min(left, key=lambda name: (left[name], name))
        for bundle in with_class[rarest]:
            if bundle.name not in done:
                done.add(bundle.name)
                for name, number in bundle.by_class.items():
                    left[name] -= number
                yield rarest, bundle
        del left[rarest]


def _even_out(new: Sequence[Bundle], split_of: dict[str, str], lacks: _Lacks) -> None:
    """Move new bundles from a split that has too much to one that lacks, while that helps."""
    largest = max((bundle.size for bundle in new), default=0)
    in_split: dict[str, list[Bundle]] = defaultdict(list)
    for bundle in new:
        in_split[split_of[bundle.name]].append(bundle)
    # A move that helps brings two splits nearer to their shares by a whole image at least.
    for _ in range(2 * largest * len(lacks.open)):
        over = min(lacks.open, key=lambda split: lacks.images[split])
        under = max(lacks.open, key=lambda split: lacks.images[split])
        surplus, lack = -lacks.images[over], lacks.images[under]

        def error_after(bundle: Bundle, surplus: float = surplus, lack: float = lack) -> float:
            return abs(surplus - bundle.size) + abs(lack - bundle.size)

        best = min(map(error_after, in_split[over]), default=abs(surplus) + abs(lack))
        if best > abs(surplus) + abs(lack) - _NOTHING:
            return
        as_good = [b for b in in_split[over] if error_after(b) <= best + _NOTHING]
        chosen = max(as_good[:_MOST_COMPARED], key=lambda b: lacks.worth_of_moving(b, over, under))
        in_split[over].remove(chosen)
        in_split[under].append(chosen)
        lacks.give(over, chosen, times=-1)
        lacks.give(under, chosen)
        split_of[chosen.name] = under
