"""Group images that share a key, directly or through other images."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Member:
    """An image and the keys that it may share with others.

    Attributes:
        image_id: The image.
        keys: Images with an equal key stay together; the strongest reason comes first.
        split: The split that it already has; "" for a new image.
        is_counted: Whether it counts towards the ratios (one that is no longer selected does not).
        classes: The classes of its boxes; empty for a negative.
    """

    image_id: str
    keys: tuple[str, ...]
    split: str = ""
    is_counted: bool = True
    classes: tuple[str, ...] = ()


@dataclass(eq=False)
class Group:
    """Images that stay together; a node of a union-find structure until all are grouped.

    Attributes:
        members: The images.
        split: The split that they have; "" if none.
    """

    members: list[Member]
    split: str
    _merged_into: Group | None = None

    @cached_property
    def name(self) -> str:
        """The smallest id in the group."""
        return min(member.image_id for member in self.members)

    @cached_property
    def size(self) -> int:
        """Number of its images that count towards the ratios."""
        return sum(member.is_counted for member in self.members)

    @cached_property
    def by_class(self) -> Mapping[str, int]:
        """Number of these images by class; negatives are class ``""``."""
        counted = (member.classes or ("",) for member in self.members if member.is_counted)
        return Counter(name for classes in counted for name in classes) or {"": 0}

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
    by_key: dict[str, list[Group]] = defaultdict(list)  # at most one group in each split
    groups: list[Group] = []
    conflicts = {}
    for member in sorted(members, key=lambda m: (not m.split, m.image_id)):
        shared = [(group.root(), key) for key in member.keys for group in by_key[key]]
        if member.split:
            # Images that got their splits under other keys may share a key now: they keep them.
            shared = [(group, key) for group, key in shared if group.split == member.split]
        first_key_by_split = {group.split: key for group, key in reversed(shared) if group.split}
        if len(first_key_by_split) > 1:
            conflicts[member.image_id] = dict(sorted(first_key_by_split.items()))
            continue
        group = Group([member], member.split)
        for other in dict.fromkeys(other for other, _ in shared):
            group.absorb(other)
        groups.append(group)
        for key in member.keys:
            by_key[key] = [other for other in by_key[key] if other.root() is not group] + [group]
    return [group for group in groups if group.members], conflicts


def keys_across_splits(members: Iterable[Member]) -> dict[str, dict[str, list[str]]]:
    """Return the keys whose images are in different splits.

    Args:
        members: Images; those without a split are ignored.

    Returns:
        For each such key its images by split, in order of ids.
    """
    first_split: dict[str, str] = {}
    ids_by_key: dict[str, dict[str, list[str]]] = {}
    assigned = [member for member in members if member.split]
    for member in assigned:
        for key in member.keys:
            if first_split.setdefault(key, member.split) != member.split:
                ids_by_key[key] = {}
    for member in assigned:
        for key in member.keys:
            if key in ids_by_key:
                ids_by_key[key].setdefault(member.split, []).append(member.image_id)
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
    holders: dict[str, list[str]] = defaultdict(list)
    ordered = sorted(members, key=lambda member: member.image_id)
    for member in ordered:
        for key in dict.fromkeys(member.keys):
            if len(holders[key]) < 2:  # noqa: PLR2004  (a pair)
                holders[key].append(member.image_id)
    link_by_id = {}
    for member in ordered:
        own_id = member.image_id
        shared = ((key, other) for key in member.keys for other in holders[key] if other != own_id)
        if link := next(shared, None):
            link_by_id[own_id] = link
    return link_by_id
