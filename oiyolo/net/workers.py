"""Threads for work that blocks, beside an event loop.

They are daemons, unlike those of ``concurrent.futures``, which the interpreter waits for at its
end: a read that hangs must not hold up a Ctrl-C.
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
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    promise: asyncio.Future[Any]


class Threads:
    """So many threads, each begun when there is work for it.

    Args:
        most: Threads at most.
        name: What they do, for a person who looks at them.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in a thread, and wait for what it gives or raises.

        Cancelling stops the waiting, and the work if it has not begun.
        """
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[T] = loop.create_future()
        self._tasks.put(_Task(work, loop, promise))
        self._waiting += 1
        if self._waiting > len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            return await promise
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let the threads end after what they are at; nothing waits for them."""
        for _ in self._threads:
            self._tasks.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads after ``close``, so long each at most."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            if task.promise.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = task.work()
            except BaseException as raised:  # noqa: BLE001  (handed to who waits for it)
                error = raised
            try:
                task.loop.call_soon_threadsafe(_keep, task.promise, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _keep(promise: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if promise.done():
        return
    if error is None:
        promise.set_result(result)
    else:
        promise.set_exception(error)
