"""Shards of a dataset: the images that one of several machines fetches.

A shard is written ``i/n``: the i-th of n, counted from 0, as batch systems count their tasks. The
ImageID alone determines the shard of an image, so machines need no communication.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from oiyolo.core.errors import UsageError

_PATTERN: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
MAX_SHARDS: Final = 10_000
"""With more, a shard would take less time than a machine takes to start."""


@dataclass(frozen=True)
class Shard:
    """One of ``total`` disjoint parts, which together contain all images.

    Attributes:
        index: Its number, counted from 0.
        total: Number of shards.
    """

    index: int
    total: int

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"

    @property
    def name(self) -> str:
        """The name of its folder; names sort like numbers."""
        return f"{self.index:05}-of-{self.total:05}"

    def contains(self, image_id: str) -> bool:
        """Return whether an image belongs to this shard."""
        digest = hashlib.sha256(image_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.total == self.index


def parse_shard(text: str) -> Shard:
    """Parse ``i/n``.

    Raises:
        UsageError: The text has another form, or there is no such shard.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            "invalid --shard",
            expected="i/n, such as 0/8 for the first of eight shards",
            found=repr(text),
            remedy="A missing number means that the batch system's variable is not set",
        )
    index, total = int(match[1]), int(match[2])
    _check_total(total)
    if index >= total:
        raise UsageError(
            "there is no such shard",
            expected=f"0/{total} to {total - 1}/{total}, because shards are counted from 0",
            found=text.strip(),
        )
    return Shard(index, total)


def all_shards(total: int) -> tuple[Shard, ...]:
    """Return all shards of a dataset that is divided into ``total``.

    Raises:
        UsageError: The number is 0 or too large.
    """
    _check_total(total)
    return tuple(Shard(index, total) for index in range(total))


def _check_total(total: int) -> None:
    if not 1 <= total <= MAX_SHARDS:
        raise UsageError(
            "invalid number of shards", expected=f"1 to {MAX_SHARDS}", found=str(total)
        )
