"""Shards of a dataset: which images one machine of several takes.

A shard is written ``i/n``: the i-th of n, counted from 0, as batch systems count their tasks. An
ImageID alone decides its shard, so that no machine has to ask another one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from oiyolo.core.errors import UsageError

_WRITTEN: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
MOST: Final = 10_000
"""More shards than that would be smaller than what a machine takes to begin."""


@dataclass(frozen=True)
class Shard:
    """One of ``of`` parts, which have no image in common and together have all.

    Attributes:
        index: Counted from 0.
        of: How many there are.
    """

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """The name of its folder, which sorts as its number does."""
        return f"{self.index:05}-of-{self.of:05}"

    def holds(self, image_id: str) -> bool:
        """Tell whether an image belongs to it."""
        digest = hashlib.sha256(image_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.index


def shard(text: str) -> Shard:
    """Read ``i/n``.

    Raises:
        UsageError: It is not in this form, or there is no such part.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            "wrong --shard",
            expected="i/n, as 0/8 for the first of eight parts",
            found=repr(text),
            remedy="An empty number means that the batch system's variable is not set",
        )
    index, of = int(found[1]), int(found[2])
    _check_count(of)
    if index >= of:
        raise UsageError(
            "there is no such shard",
            expected=f"0/{of} to {of - 1}/{of}, because shards are counted from 0",
            found=text.strip(),
        )
    return Shard(index, of)


def all_shards(of: int) -> tuple[Shard, ...]:
    """Give all of so many parts.

    Raises:
        UsageError: None, or too many.
    """
    _check_count(of)
    return tuple(Shard(index, of) for index in range(of))


def _check_count(of: int) -> None:
    if not 1 <= of <= MOST:
        raise UsageError("wrong number of shards", expected=f"1 to {MOST}", found=str(of))
