"""Who trains, who validates, who tests: pure decisions about groups of images.

Images that share a key (the same bytes, the same look, the same author) stay together. An image
that has a split keeps it for ever; a new image follows the group that it joins, and one that would
join groups of different splits is left out. New groups go where the shares lack most, those of the
whole and those of each class, so that they heal as the dataset grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.splits.groups import Member, bonds, group_members, straddling
from oiyolo.splits.stratify import Bundle, deal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["STRADDLES", "Assignment", "Member", "assign", "straddling"]

STRADDLES: Final = "would join groups of different splits"


@dataclass(frozen=True)
class Assignment:
    """The outcome.

    Attributes:
        split_by_id: The split of every image that has one now.
        group_by_id: The group of each of them: the smallest id in it.
        bond_by_id: What binds an image to its group: a key, and another image that has it too. An
            image that is alone is missing.
        left_out: New images that would join groups of different splits: those splits, each with a
            key that binds the image to it.
    """

    split_by_id: dict[str, str]
    group_by_id: dict[str, str]
    bond_by_id: dict[str, tuple[str, str]]
    left_out: dict[str, dict[str, str]]


def assign(members: Iterable[Member], ratios: Mapping[str, float], seed: int) -> Assignment:
    """Give every image a split.

    Args:
        members: All images, those that have a split among them.
        ratios: The share of each split; they sum to 1.
        seed: Another seed deals new groups differently.

    Returns:
        The assignment; deterministic, whatever the order of ``members``.
    """
    groups, left_out = group_members(members)
    bundles = [Bundle(group.name, group.split, *group.weights()) for group in groups]
    dealt = deal(bundles, ratios, seed)
    split_by_id, group_by_id = {}, {}
    bond_by_id: dict[str, tuple[str, str]] = {}
    for group, bundle, split in zip(groups, bundles, dealt, strict=True):
        for member in group.members:
            split_by_id[member.image_id] = split
            group_by_id[member.image_id] = bundle.name
        bond_by_id |= bonds(group.members)
    return Assignment(split_by_id, group_by_id, bond_by_id, left_out)
