"""Daemon worker threads that run blocking functions for an event loop.

The interpreter waits for the threads of ``concurrent.futures`` when it exits. It does not wait for
daemons, so a read that hangs cannot delay a Ctrl-C.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass
class _Task:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class WorkerThreads:
    """A bounded pool of daemon threads; each thread starts when there is work for it.

    Args:
        max_threads: Maximum number of threads.
        name: Name of the threads, for debuggers.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads, self._name = max_threads, name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pending = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Return what a function returns in a worker thread, or raise what it raises.

        Cancelling stops the wait. The function is not called if it has not started yet.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._tasks.put(_Task(function, loop, future))
        self._pending += 1
        if self._pending > len(self._threads) < self._max_threads:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            return await future
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Make the threads end after the queued work, without waiting for them."""
        for _ in self._threads:
            self._tasks.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end after ``close``, at most ``timeout_s`` for each."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            if task.future.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = task.function()
            except BaseException as raised:  # noqa: BLE001  (raised again in the waiting coroutine)
                error = raised
            try:
                task.loop.call_soon_threadsafe(_resolve, task.future, result, error)
            except RuntimeError:  # the loop is closed, so nothing waits for the result
                return


def _resolve(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
