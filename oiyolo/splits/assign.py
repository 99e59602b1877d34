"""Assign images to the splits train, valid and test, in whole groups; pure functions.

Images that share a key (identical bytes, near-duplicates, the same author) form a group, which is
never divided. An image that has a split keeps it permanently. A new image gets the split of the
group that it joins; one that would join groups of different splits is left out. New groups are
assigned by stratification: they go to the splits that are furthest below their share of all images
and of each class, so that the shares approach the ratios as the dataset grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.splits.groups import Member, group_members, keys_across_splits, links
from oiyolo.splits.stratify import SplitUnit, stratify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CONFLICT_REASON", "Assignment", "Member", "assign", "keys_across_splits"]

CONFLICT_REASON: Final = "would join groups of different splits"


@dataclass(frozen=True)
class Assignment:
    """The splits and groups of images.

    Attributes:
        split_by_id: The split of every image that has one now.
        group_by_id: The group of each of these images: the smallest id in it.
        link_by_id: Why an image is in its group: a key, and another image that shares it. Images
            that are alone in their group are missing.
        conflicts: New images that get no split because they would join groups of different splits;
            for each image, those splits, each with a key that the image shares there.
    """

    split_by_id: dict[str, str]
    group_by_id: dict[str, str]
    link_by_id: dict[str, tuple[str, str]]
    conflicts: dict[str, dict[str, str]]


def assign(members: Iterable[Member], ratios: Mapping[str, float], seed: int) -> Assignment:
    """Assign a split to every image.

    Args:
        members: All images, including those that have a split.
        ratios: The share of each split; they sum to 1.
        seed: Decides between equally good assignments of new groups.

    Returns:
        The assignment, which does not depend on the order of ``members``.
    """
    groups, conflicts = group_members(members)
    units = [SplitUnit(group.name, group.split, *group.image_counts()) for group in groups]
    splits = stratify(units, ratios, seed)
    split_by_id, group_by_id = {}, {}
    link_by_id: dict[str, tuple[str, str]] = {}
    for group, unit, split in zip(groups, units, splits, strict=True):
        for member in group.members:
            split_by_id[member.image_id] = split
            group_by_id[member.image_id] = unit.name
        link_by_id |= links(group.members)
    return Assignment(split_by_id, group_by_id, link_by_id, conflicts)
