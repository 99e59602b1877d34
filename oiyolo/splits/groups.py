"""Group images that share a key, directly or through other images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Member:
    """An image and the keys that it may share with others.

    Attributes:
        image_id: The image.
        keys: Images with an equal key stay together; the strongest reason comes first.
        split: The split that it already has; ``None`` for a new image.
        is_counted: Whether it counts towards the ratios (one that is no longer selected does not).
        classes: The classes of its boxes; empty for a negative.
    """

    image_id: str
    keys: tuple[str, ...]
    split: str | None = None
    is_counted: bool = True
    classes: tuple[str, ...] = ()


class Group:
    """Images that stay together; a node of a union-find structure."""

    def __init__(self, member: Member) -> None:
        self.members = [member]
        self.split = member.split
        self._merged_into: Group | None = None

    @property
    def name(self) -> str:
        """The smallest id in the group."""
        return min(member.image_id for member in self.members)

    def image_counts(self) -> tuple[int, dict[str, int]]:
        """Return the number of counted images, in all and by class; negatives are class ``""``."""
        counted = [member for member in self.members if member.is_counted]
        by_class = Counter(name for member in counted for name in member.classes or ("",))
        return len(counted), dict(by_class) or {"": 0}

    def root(self) -> Group:
        """Return the group that this one was merged into, or itself."""
        group = self
        while group._merged_into is not None:
            group = group._merged_into
        return group

    def absorb(self, other: Group) -> None:
        """Merge another group into this one."""
        if len(other.members) > len(self.members):
            self.members, other.members = other.members, self.members
        self.members += other.members
        self.split = self.split or other.split
        other.members, other._merged_into = [], self


def group_members(members: Iterable[Member]) -> tuple[list[Group], dict[str, dict[str, str]]]:
    """Group images with equal keys, starting with those that have a split.

    Returns:
        The groups, and the conflicts: new images that would join groups of different splits; for
        each image, those splits, each with a key that the image shares there. Such an image
        belongs to no group and does not connect other images.
    """
    by_key: dict[str, list[Group]] = {}
    groups: list[Group] = []
    conflicts = {}
    for member in sorted(members, key=lambda m: (m.split is None, m.image_id)):
        joined = {id(g): g for k in member.keys for g in _groups_of(by_key, k)}
        if member.split is not None:
            # Images that got their splits under other keys may share a key now: they keep them.
            joined = {i: g for i, g in joined.items() if g.split == member.split}
        elif len({g.split for g in joined.values()} - {None}) > 1:
            conflicts[member.image_id] = _conflict(by_key, member)
            continue
        group = Group(member)
        for other in joined.values():
            group.absorb(other)
        groups.append(group)
        for key in member.keys:
            others = [other for other in by_key.get(key, ()) if other.root() is not group]
            by_key[key] = [*others, group]
    return [group for group in groups if group.members], conflicts


def _groups_of(by_key: dict[str, list[Group]], key: str) -> list[Group]:
    """Return the groups that have a key: one, or one in each of several splits."""
    return [group.root() for group in by_key.get(key, ())]


def _conflict(by_key: dict[str, list[Group]], member: Member) -> dict[str, str]:
    """Return the splits that a member would join, each with the first key that it shares there."""
    key_by_split: dict[str, str] = {}
    for key in member.keys:
        for group in _groups_of(by_key, key):
            if group.split is not None:
                key_by_split.setdefault(group.split, key)
    return dict(sorted(key_by_split.items()))


def keys_across_splits(members: Iterable[Member]) -> dict[str, dict[str, list[str]]]:
    """Return the keys whose images are in different splits.

    Args:
        members: Images; those without a split are ignored.

    Returns:
        For each such key its images by split, in order of ids.
    """
    first_split: dict[str, str] = {}
    ids_by_key: dict[str, dict[str, list[str]]] = {}
    assigned = [(member, member.split) for member in members if member.split is not None]
    for member, split in assigned:
        for key in member.keys:
            if first_split.setdefault(key, split) != split:
                ids_by_key[key] = {}
    for member, split in assigned:
        for key in member.keys:
            if key in ids_by_key:
                ids_by_key[key].setdefault(split, []).append(member.image_id)
    return {
        key: {split: sorted(ids) for split, ids in sorted(ids_by_split.items())}
        for key, ids_by_split in ids_by_key.items()
    }


def links(members: Sequence[Member]) -> dict[str, tuple[str, str]]:
    """Return why each member is in its group: a key, and another member that shares it.

    Returns:
        For each image, its first key that another image also has, and the smallest id of these.
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
    link_by_id = {}
    for member in ordered:
        for key in member.keys:
            others = [i for i in holders[key] if i != member.image_id]
            if others:
                link_by_id[member.image_id] = (key, others[0])
                break
    return link_by_id
