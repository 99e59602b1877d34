"""Which images stay together: those that share a key, directly or through others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Member:
    """An image and what binds it to others.

    Attributes:
        image_id: The image.
        keys: Equal keys keep images together; the strongest reason first.
        split: The split that it has already; ``None`` for a new image.
        counts: Whether it counts towards the ratios (an image no longer selected does not).
        classes: The classes that it shows; none for a negative.
    """

    image_id: str
    keys: tuple[str, ...]
    split: str | None = None
    counts: bool = True
    classes: tuple[str, ...] = ()


class Group:
    """Images that stay together; one that was merged into another knows which."""

    def __init__(self, member: Member) -> None:
        self.members = [member]
        self.split = member.split
        self._merged_into: Group | None = None

    @property
    def name(self) -> str:
        """The smallest id in it."""
        return min(member.image_id for member in self.members)

    def weights(self) -> tuple[int, dict[str, int]]:
        """Count its images that count, all of them and by class; negatives are a class, ``""``."""
        counted = [member for member in self.members if member.counts]
        by_class = Counter(name for member in counted for name in member.classes or ("",))
        return len(counted), dict(by_class) or {"": 0}

    def root(self) -> Group:
        """Give the group that this one has become."""
        group = self
        while group._merged_into is not None:
            group = group._merged_into
        return group

    def take(self, other: Group) -> None:
        """Merge another group into this one."""
        if len(other.members) > len(self.members):
            self.members, other.members = other.members, self.members
        self.members += other.members
        self.split = self.split or other.split
        other.members, other._merged_into = [], self


def group_members(members: Iterable[Member]) -> tuple[list[Group], dict[str, dict[str, str]]]:
    """Bring images with equal keys together, those that have a split first.

    Returns:
        The groups; and the new images that would join groups of different splits, each with those
        splits and a key that binds it to them: they belong to no group and bind nobody.
    """
    by_key: dict[str, list[Group]] = {}
    made: list[Group] = []
    left_out = {}
    for member in sorted(members, key=lambda m: (m.split is None, m.image_id)):
        joined = {id(g): g for k in member.keys for g in _groups_of(by_key, k)}
        if member.split is not None:
            # Images assigned under other keys may share one now: they stay where they are.
            joined = {i: g for i, g in joined.items() if g.split == member.split}
        elif len({g.split for g in joined.values()} - {None}) > 1:
            left_out[member.image_id] = _torn_between(by_key, member)
            continue
        group = Group(member)
        for other in joined.values():
            group.take(other)
        made.append(group)
        for key in member.keys:
            held = [other for other in by_key.get(key, ()) if other.root() is not group]
            by_key[key] = [*held, group]
    return [group for group in made if group.members], left_out


def _groups_of(by_key: dict[str, list[Group]], key: str) -> list[Group]:
    """Give the groups with a key: one, or one in each split if they were assigned apart."""
    return [group.root() for group in by_key.get(key, ())]


def _torn_between(by_key: dict[str, list[Group]], member: Member) -> dict[str, str]:
    """Give the splits that a member would join, each with its first key that leads there."""
    found: dict[str, str] = {}
    for key in member.keys:
        for group in _groups_of(by_key, key):
            if group.split is not None:
                found.setdefault(group.split, key)
    return dict(sorted(found.items()))


def straddling(members: Iterable[Member]) -> dict[str, dict[str, list[str]]]:
    """Find the keys whose images are in different splits.

    Args:
        members: Images; those without a split are passed over.

    Returns:
        For each such key its images by split, in order of their ids.
    """
    first_split: dict[str, str] = {}
    torn: dict[str, dict[str, list[str]]] = {}
    placed = [(member, member.split) for member in members if member.split is not None]
    for member, split in placed:
        for key in member.keys:
            if first_split.setdefault(key, split) != split:
                torn[key] = {}
    for member, split in placed:
        for key in member.keys:
            if key in torn:
                torn[key].setdefault(split, []).append(member.image_id)
    return {
        key: {split: sorted(ids) for split, ids in sorted(found.items())}
        for key, found in torn.items()
    }


def bonds(members: Sequence[Member]) -> dict[str, tuple[str, str]]:
    """Tell for the members of a group which key binds each to which other one.

    Returns:
        The first of an image's keys that another one has too, and the smallest id of those.
    """
    if len(members) == 1:
        return {}
    holders: dict[str, list[str]] = {}
    ordered = sorted(members, key=lambda member: member.image_id)
    for member in ordered:
        for key in member.keys:
            first_two = holders.setdefault(key, [])
            if len(first_two) < 2 and member.image_id not in first_two:  # noqa: PLR2004  (a pair)
                first_two.append(member.image_id)
    found = {}
    for member in ordered:
        for key in member.keys:
            others = [i for i in holders[key] if i != member.image_id]
            if others:
                found[member.image_id] = (key, others[0])
                break
    return found
