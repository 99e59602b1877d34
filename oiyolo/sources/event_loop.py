"""Many images at once: one event loop in a thread of its own asks the sources and keeps what comes.

The caller's thread feeds it, so many images ahead and no more, and takes the outcomes: memory stays
the same whatever the number of images.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.sources.image import NotFetchedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence

    from oiyolo.net.workers import Threads
    from oiyolo.sources.image import Check, FetchedImage, Source, WantedImage
    from oiyolo.sources.store import Store

_GATHERED_FOR_S: Final = 0.01
"""Outcomes are handed over this often, not one by one: each hand-over wakes a thread."""
_QUIET_S: Final = 0.1
_FAREWELL_S: Final = 0.7
_JOIN_S: Final = 0.2


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        image_id: The image.
        told: What happened, at length.
        attempts: Requests in all.
        source: The source that had it; ``None`` if none had.
        size_bytes: Its size.
        md5: Its MD5 in hexadecimal.
        reason: Why no source had it, in a form that can be counted.
        transient: A later try may go better.
        reached: Some source answered at all.
    """

    image_id: str
    told: str
    attempts: int
    source: str | None = None
    size_bytes: int = 0
    md5: str = ""
    reason: str = ""
    transient: bool = False
    reached: bool = True


def fetch_images(
    wanted: Iterable[WantedImage],
    sources: Sequence[Source],
    store: Store,
    *,
    threads: Threads,
    in_work: int,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Generator[list[Outcome], None, None]:
    """Fetch images into a store, and give their outcomes as they come, some at a time.

    Where none come for a moment it gives an empty list, so that the caller can see to its books.

    An image that was fetched has no final name yet: the caller enters it in its books and then
    calls ``store.finish``. When the caller stops taking outcomes (an exception, Ctrl-C), all ends
    within two seconds, and what was not handed over is dropped.

    Args:
        wanted: The images; taken as they are needed.
        sources: Where to ask, in this order.
        store: Where they are kept.
        threads: Where files are verified and written.
        in_work: Images in work at the same time, those included that wait for their turn.
        close: Is awaited at the end, in the event loop.
    """
    engine = _Engine(sources, store, threads, in_work, close)
    left = iter(wanted)
    engine.start()
    try:
        under_way = engine.feed(itertools.islice(left, in_work))
        while under_way:
            outcomes = engine.take()
            under_way += engine.feed(itertools.islice(left, len(outcomes))) - len(outcomes)
            engine.handed_over(outcomes)
            yield outcomes
    finally:
        engine.stop()


class _Engine:
    """The thread with the event loop, and how others speak to it."""

    def __init__(
        self,
        sources: Sequence[Source],
        store: Store,
        threads: Threads,
        in_work: int,
        close: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._sources, self._store, self._threads = sources, store, threads
        self._in_work, self._close = in_work, close
        self._outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._todo: asyncio.Queue[WantedImage] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._asked_to_stop = asyncio.Event()
        self._put: set[str] = set()
        # A daemon, because one that hangs must not hold up a Ctrl-C.
        self._thread = threading.Thread(target=self._run, name="oiyolo-fetch", daemon=True)

    # --- in the caller's thread ---------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def feed(self, images: Iterable[WantedImage]) -> int:
        """Hand over images to fetch; give how many these are."""
        batch = list(images)
        if batch:
            self._loop.call_soon_threadsafe(self._take_up, batch)
        return len(batch)

    def take(self) -> list[Outcome]:
        """Wait a moment for outcomes; raise what went wrong in the other thread."""
        try:
            found = [self._outcomes.get(timeout=_QUIET_S)]
        except queue.Empty:
            return []
        time.sleep(_GATHERED_FOR_S)
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._outcomes.get_nowait())
        outcomes = []
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    def handed_over(self, outcomes: Iterable[Outcome]) -> None:
        """Note what is the caller's by now, to finish or to drop."""
        self._put.difference_update([outcome.image_id for outcome in outcomes])

    def stop(self) -> None:
        """End within moments, and leave nothing that nobody knows of."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._asked_to_stop.set)
        self._thread.join(2 * _FAREWELL_S)
        self._threads.close()
        self._threads.join(_JOIN_S)
        self._store.drop(sorted(self._put))

    # --- in the loop's thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  (raised again by the caller's thread)
            self._outcomes.put(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            await self._asked_to_stop.wait()
        finally:
            for worker in self._workers:
                worker.cancel()
            if self._workers:
                await asyncio.wait(self._workers, timeout=_FAREWELL_S)
            if self._close is not None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._close(), _FAREWELL_S)

    def _take_up(self, images: list[WantedImage]) -> None:
        for image in images:
            self._todo.put_nowait(image)
        while len(self._workers) < min(self._in_work, self._todo.qsize() + len(self._workers)):
            self._workers.append(self._loop.create_task(self._work()))
            if len(self._workers) >= self._in_work:
                break

    async def _work(self) -> None:
        """Be one worker: take an image, fetch it, tell."""
        while True:
            image = await self._todo.get()
            try:
                self._outcomes.put(await self._fetch_one(image))
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001  (raised again by the caller's thread)
                self._outcomes.put(error)

    async def _fetch_one(self, image: WantedImage) -> Outcome:
        """Try the sources in their order."""
        failures: list[tuple[str, NotFetchedError]] = []
        for source in self._sources:
            try:
                check = await source.get(image)
                self._put.add(image.image_id)
                keep = functools.partial(_keep, self._store, image.image_id, check)
                fetched = await self._threads.run(keep)
            except NotFetchedError as failure:
                self._put.discard(image.image_id)
                failures.append((source.name, failure))
                continue
            return _came(image, source, fetched, failures)
        return _failed(image, failures)


def _keep(store: Store, image_id: str, check: Check) -> FetchedImage:
    """Verify and write, in a thread."""
    fetched = check()
    store.put(image_id, fetched.content)
    _ = fetched.md5  # computed here, where it holds up nobody
    return fetched


def _came(
    image: WantedImage,
    source: Source,
    fetched: FetchedImage,
    failures: Sequence[tuple[str, NotFetchedError]],
) -> Outcome:
    size_bytes = len(fetched.content)
    before = "".join(f"; not from {name}: {failure.detail}" for name, failure in failures)
    return Outcome(
        image.image_id,
        f"fetched from {source.name}{source.told}, {size_bytes:,} bytes{before}",
        fetched.attempts + sum(failure.attempts for _, failure in failures),
        source=source.name,
        size_bytes=size_bytes,
        md5=fetched.md5,
    )


def _failed(image: WantedImage, failures: Sequence[tuple[str, NotFetchedError]]) -> Outcome:
    asked = [failure for _, failure in failures if failure.attempts]
    return Outcome(
        image.image_id,
        "; ".join(f"{name}: {failure.detail}" for name, failure in failures),
        sum(failure.attempts for _, failure in failures),
        reason=", ".join(f"{name}: {failure.reason}" for name, failure in failures),
        transient=any(failure.transient for _, failure in failures),
        reached=not asked or any(failure.reached for failure in asked),
    )
