"""Take items of an iterable in batches, or call a function for them ahead of time, in threads."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
U = TypeVar("U")


def map_ahead(function: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """Yield the result for each item in order, computed in threads a few items ahead.

    An error of the function is raised where its result would be yielded. It, or an iteration that
    ends early, cancels the calls that have not begun.
    """
    running: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def batched(iterable: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive lists of ``size`` items; the last one may be shorter.

    ``itertools.batched`` exists only from Python 3.12 on.
    """
    remaining = iter(iterable)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
