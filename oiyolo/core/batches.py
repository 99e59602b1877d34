"""Batches of an iterable; ``itertools.batched`` exists only from Python 3.12 on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def batched(iterable: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive lists of ``size`` items; the last one may be shorter."""
    remaining = iter(iterable)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
