"""Who trains, who validates, who tests: pure decisions about groups of images.

Images that share a key (the same bytes, the same author) stay together. An image that has a split
keeps it for ever; a new image follows the group that it joins, and one that would join groups of
different splits is left out. New groups go where the ratios lack most, so that they heal as the
dataset grows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STRADDLES: Final = "would join groups of different splits"


@dataclass(frozen=True)
class Member:
    """An image and what binds it to others.

    Attributes:
        image_id: The image.
        keys: Equal keys keep images together.
        split: The split that it has already; ``None`` for a new image.
        counts: Whether it counts towards the ratios (an image no longer selected does not).
    """

    image_id: str
    keys: tuple[str, ...]
    split: str | None = None
    counts: bool = True


@dataclass(frozen=True)
class Assignment:
    """The outcome.

    Attributes:
        split_by_id: The split of every image that has one now.
        group_by_id: The group of each of them: the smallest id in it.
        left_out: New images that would join groups of different splits.
    """

    split_by_id: dict[str, str]
    group_by_id: dict[str, str]
    left_out: list[str]


class _Group:
    """Images that stay together; one that was merged into another knows which."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.split: str | None = None
        self._merged_into: _Group | None = None

    @property
    def size(self) -> int:
        """How many of its images count towards the ratios."""
        return sum(member.counts for member in self.members)

    @property
    def name(self) -> str:
        """The smallest id in it."""
        return min(member.image_id for member in self.members)

    def root(self) -> _Group:
        """Give the group that this one has become."""
        group = self
        while group._merged_into is not None:
            group = group._merged_into
        return group

    def take(self, other: _Group) -> None:
        """Merge another group into this one."""
        if len(other.members) > len(self.members):
            self.members, other.members = other.members, self.members
        self.members += other.members
        self.split = self.split or other.split
        other.members, other._merged_into = [], self


def assign(members: Iterable[Member], ratios: Mapping[str, float], seed: int) -> Assignment:
    """Give every image a split.

    Args:
        members: All images, those that have a split among them.
        ratios: The share of each split; they sum to 1.
        seed: Another seed deals new groups differently.

    Returns:
        The assignment; deterministic, whatever the order of ``members``.
    """
    groups, left_out = _group(members)
    have = Counter[str]()
    for group in groups:
        if group.split is not None:
            have[group.split] += group.size
    total = sum(group.size for group in groups)
    # The largest first, so that the small ones can even out what is left.
    new = [group for group in groups if group.split is None]
    for group in sorted(new, key=lambda g: (-g.size, _dealt(g.name, seed))):
        lacking = {name: share * total - have[name] for name, share in ratios.items()}
        group.split = _most_lacking(lacking, ratios, group.size)
        have[group.split] += group.size
    split_by_id, group_by_id = {}, {}
    for group in groups:
        for member in group.members:
            split_by_id[member.image_id] = str(group.split)
            group_by_id[member.image_id] = group.name
    return Assignment(split_by_id, group_by_id, sorted(left_out))


def _most_lacking(lacking: Mapping[str, float], ratios: Mapping[str, float], size: int) -> str:
    """Choose the split that lacks the largest part of its share, of those the group fits in."""
    wanted = [name for name in lacking if ratios[name] > 0]
    fitting = [name for name in wanted if lacking[name] >= size]
    if fitting:
        return max(fitting, key=lambda name: lacking[name] / ratios[name])
    return max(wanted, key=lambda name: lacking[name])


def _dealt(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _group(members: Iterable[Member]) -> tuple[list[_Group], list[str]]:
    """Bring images with equal keys together, those that have a split first."""
    by_key: dict[str, _Group] = {}
    made: list[_Group] = []
    left_out = []
    for member in sorted(members, key=lambda m: (m.split is None, m.image_id)):
        joined = {id(g): g for g in (by_key[k].root() for k in member.keys if k in by_key)}
        if member.split is not None:
            # Images assigned under other keys may share one now: they stay where they are.
            joined = {i: g for i, g in joined.items() if g.split == member.split}
        elif len({g.split for g in joined.values() if g.split is not None}) > 1:
            left_out.append(member.image_id)
            continue
        group = _Group()
        group.members.append(member)
        group.split = member.split
        for other in joined.values():
            group.take(other)
        made.append(group)
        for key in member.keys:
            if key not in by_key or by_key[key].root() is group:
                by_key[key] = group
    return [group for group in made if group.members], left_out
