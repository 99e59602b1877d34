"""Call a function for many files in a few threads, with one progress bar for all of them."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from oiyolo.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

THREADS: Final = 32
"""A request for a small object waits for the server most of the time."""

T = TypeVar("T")


def for_each(items: Iterable[T], act: Callable[[T], object], stop: threading.Event) -> None:
    """Call a function for each item, in ``THREADS`` threads and in no particular order.

    The first error ends the work, and is raised when the calls in progress have ended. The threads
    are daemons, so that a request that hangs cannot delay a Ctrl-C.

    Args:
        items: The items, taken one at a time.
        act: The function; calls in progress should end soon after ``stop`` is set.
        stop: Event that is set when the work ends early.
    """
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    remaining = _Shared(iter(items))

    def work() -> None:
        try:
            for item in itertools.takewhile(lambda _: not stop.is_set(), remaining):
                act(item)
        except BaseException as error:  # noqa: BLE001  (raised again in the calling thread)
            errors.put(error)
            stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        raise
    if not errors.empty():
        raise errors.get()


class _Shared(Iterator[T]):
    """An iterator that threads share."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


class SharedProgress(Progress):
    """A progress display that threads share."""

    def __init__(self, display: Progress) -> None:
        self._display, self._lock = display, threading.Lock()

    def advance(self, count: int = 1) -> None:
        """Add ``count`` to the work that is done."""
        with self._lock:
            self._display.advance(count)
