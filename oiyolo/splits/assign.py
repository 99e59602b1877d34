"""Assign images to the splits train, valid and test, in whole groups; pure functions.

Images that share a key (identical bytes, near-duplicates, the same author) form a group, which is
never divided. An image that has a split keeps it permanently. A new image gets the split of the
group that it joins; one that would join groups of different splits is left out. New groups are
assigned by stratification: they go to the splits that are furthest below their share of all images
and of each class, so that the shares approach the ratios as the dataset grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from oiyolo.splits.groups import group_members, links
from oiyolo.splits.stratify import stratify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oiyolo.splits.groups import Member

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

    def of(self, image_ids: Iterable[str]) -> Assignment:
        """Return the splits and groups of some images, those that have a split, in order of ids."""
        ids = sorted(self.split_by_id.keys() & set(image_ids))
        return replace(
            self,
            split_by_id={i: self.split_by_id[i] for i in ids},
            group_by_id={i: self.group_by_id[i] for i in ids},
        )


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
    stratify(groups, ratios, seed)
    assignment = Assignment({}, {}, {}, conflicts)
    for group in groups:
        for member in group.members:
            assignment.split_by_id[member.image_id] = group.split
            assignment.group_by_id[member.image_id] = group.name
        assignment.link_by_id.update(links(group.members))
    return assignment
