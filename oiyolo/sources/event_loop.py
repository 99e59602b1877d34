"""Fetches many images at once: an event loop in its own thread asks the sources and stores files.

The caller's thread submits a limited number of images in advance and takes the outcomes, so memory
use does not depend on the number of images.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.batches import batched
from oiyolo.core.disks import DISK_FULL_ERRNOS
from oiyolo.sources.image import NotFetchedError

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterable,
        Mapping,
        Sequence,
    )

    from oiyolo.net.workers import WorkerThreads
    from oiyolo.sources.image import FetchedImage, ImageRequest, Source, Verifier
    from oiyolo.sources.imported import ImportFolder
    from oiyolo.sources.store import Store

OTHER_BYTES: Final = "another file than expected"
"""The reason of an image whose file does not have the expected checksum."""
_COPIES_PER_TASK: Final = 32
"""Copying a small file takes less time than handing it over to a thread."""
_BATCH_S: Final = 0.01
"""Outcomes are collected for this long, because each hand-over wakes a thread."""
_POLL_S: Final = 0.1
_SHUTDOWN_TIMEOUT_S: Final = 0.7
_JOIN_TIMEOUT_S: Final = 0.2


@dataclass(frozen=True)
class SourceFailure:
    """A source that was asked for an image and does not have it, or could not be reached.

    Attributes:
        source: Name of the source.
        detail: What happened, with the URL or path.
        reached: Whether the source responded at all.
    """

    source: str
    detail: str
    reached: bool


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image.

    Attributes:
        image_id: ImageID.
        message: What happened, in full, for the ledger.
        attempts: Number of requests, over all sources.
        source: Name of the source that had the image; ``None`` if none had it.
        size_bytes: Size of the file.
        md5: MD5 of the file, in hexadecimal.
        reason: Why no source had the image, in short parts that can be counted.
        transient: Whether a later attempt may succeed.
        reached: Whether any source responded at all and this machine could store what it sent; true
            if none was sent a request.
        failures: Sources that lack the image or could not be reached.
        is_imported: Whether its import was asked for it, and no other source.
    """

    image_id: str
    message: str
    attempts: int
    source: str | None = None
    size_bytes: int = 0
    md5: str = ""
    reason: str = ""
    transient: bool = False
    reached: bool = True
    failures: tuple[SourceFailure, ...] = ()
    is_imported: bool = False


def fetch_images(
    requests: Iterable[ImageRequest],
    sources: Sequence[Source],
    store: Store,
    *,
    threads: WorkerThreads,
    max_in_flight: int,
    close: Callable[[], Awaitable[None]] | None = None,
    imports: Mapping[str, ImportFolder] | None = None,
) -> Generator[list[Outcome], None, None]:
    """Fetch images into a store; yield their outcomes in batches, as they arrive.

    If none arrives for a moment, it yields an empty list, so that the caller can do periodic work.

    A fetched image has no final name yet: the caller records it and then calls ``store.finish``.
    When the caller stops taking outcomes (an exception, Ctrl-C), everything ends within two
    seconds, and files whose outcomes were not yielded are dropped.

    Args:
        requests: The images, taken as they are needed.
        sources: Sources to ask, in this order.
        store: Store for the files.
        threads: Threads that verify and write files; closed at the end.
        max_in_flight: Maximum number of images in progress at the same time, including those that
            wait for their turn at a site.
        close: Coroutine function that is awaited at the end, in the event loop.
        imports: The folder of each import by its name, whose images are copied.
    """
    engine = _FetchThread(sources, store, threads, close, imports or {})
    left = iter(requests)
    engine.start()
    try:
        in_flight = engine.submit(itertools.islice(left, max_in_flight))
        while in_flight:
            outcomes = engine.collect()
            in_flight += engine.submit(itertools.islice(left, len(outcomes))) - len(outcomes)
            engine.release(outcomes)
            yield outcomes
    finally:
        engine.stop()


class _FetchThread:
    """The thread with the event loop, and the methods that other threads call."""

    def __init__(
        self,
        sources: Sequence[Source],
        store: Store,
        threads: WorkerThreads,
        close: Callable[[], Awaitable[None]] | None,
        imports: Mapping[str, ImportFolder],
    ) -> None:
        self._imports = imports
        self._sources, self._store, self._threads, self._close = sources, store, threads, close
        self._outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_requested = asyncio.Event()
        self._unreleased_ids: set[str] = set()
        # A daemon, so that a hanging loop cannot delay a Ctrl-C.
        self._thread = threading.Thread(target=self._run, name="oiyolo-fetch", daemon=True)

    # --- called in the caller's thread --------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, requests: Iterable[ImageRequest]) -> int:
        """Pass images to the event loop; return how many."""
        batch = list(requests)
        if batch:
            self._loop.call_soon_threadsafe(self._start_tasks, batch)
        return len(batch)

    def collect(self) -> list[Outcome]:
        """Wait a moment for outcomes; raise an exception of the event loop's thread after them."""
        try:
            items = [self._outcomes.get(timeout=_POLL_S)]
        except queue.Empty:
            return []
        time.sleep(_BATCH_S)
        with contextlib.suppress(queue.Empty):
            while True:
                items.append(self._outcomes.get_nowait())
        outcomes = [item for item in items if isinstance(item, Outcome)]
        errors = [item for item in items if isinstance(item, BaseException)]
        if errors and not outcomes:
            raise errors[0]
        if errors:
            self._outcomes.put(errors[0])
        return outcomes

    def release(self, outcomes: Iterable[Outcome]) -> None:
        """Hand over the files of these images to the caller, which finishes or drops them."""
        self._unreleased_ids.difference_update([outcome.image_id for outcome in outcomes])

    def stop(self) -> None:
        """End the thread within two seconds, and drop the files that are not the caller's."""
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        self._thread.join(2 * _SHUTDOWN_TIMEOUT_S)
        self._threads.close()
        self._threads.join(_JOIN_TIMEOUT_S)
        self._store.drop(sorted(self._unreleased_ids))

    # --- called in the event loop's thread ----------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._outcomes.put(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            await self._stop_requested.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_SHUTDOWN_TIMEOUT_S)
            if self._close is not None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._close(), _SHUTDOWN_TIMEOUT_S)

    def _start_tasks(self, requests: Iterable[ImageRequest]) -> None:
        imported = []
        for request in requests:
            if request.import_name:
                imported.append(request)
            else:
                self._start_task(self._report(request))
        for chunk in batched(imported, _COPIES_PER_TASK):
            self._start_task(self._report_copies(chunk))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _report_copies(self, requests: Sequence[ImageRequest]) -> None:
        """Copy images from imports and report their outcomes.

        A copy that is missing or damaged is fetched from the other sources.
        """
        self._unreleased_ids.update(request.image_id for request in requests)
        copy = functools.partial(_copy_all, self._imports, self._store, requests)
        try:
            outcomes = await self._threads.run(copy)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._outcomes.put(error)
            return
        for request, outcome in zip(requests, outcomes, strict=True):
            if outcome.source is None:
                self._unreleased_ids.discard(outcome.image_id)
            if outcome.source is None and request.is_copy and self._sources:
                self._start_task(self._report(replace(request, import_name="")))
            else:
                self._outcomes.put(outcome)

    async def _report(self, request: ImageRequest) -> None:
        """Fetch one image and report its outcome."""
        try:
            self._outcomes.put(await self._fetch_one(request))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._outcomes.put(error)

    async def _fetch_one(self, request: ImageRequest) -> Outcome:
        """Try the sources in their order."""
        failures: list[tuple[str, NotFetchedError]] = []
        for source in self._sources:
            try:
                verify = await source.get(request)
                self._unreleased_ids.add(request.image_id)
                put = functools.partial(_verify_and_put, self._store, request, verify)
                fetched = await self._threads.run(put)
            except NotFetchedError as failure:
                self._unreleased_ids.discard(request.image_id)
                failures.append((source.name, failure))
                if isinstance(failure, _NotStoredError):
                    break
                continue
            return _success(request, source, fetched, failures)
        return _failure(request, failures)


def _copy_all(
    imports: Mapping[str, ImportFolder], store: Store, requests: Sequence[ImageRequest]
) -> list[Outcome]:
    """Copy images from imports, and return an outcome for each; called in a worker thread."""
    outcomes = []
    for request in requests:
        source = imports[request.import_name]
        try:
            fetched = _verify_and_put(store, request, functools.partial(source.get, request))
        except NotFetchedError as failure:
            outcomes.append(_failure(request, [(source.name, failure)]))
        else:
            outcomes.append(_success(request, source, fetched, []))
    return outcomes


class _NotStoredError(NotFetchedError):
    """This machine cannot write the image; the other sources would not help."""


def _verify_and_put(store: Store, request: ImageRequest, verify: Verifier) -> FetchedImage:
    """Verify a file and write it; called in a worker thread."""
    fetched = verify()
    if request.expected_md5 not in {"", fetched.md5}:
        raise NotFetchedError(
            OTHER_BYTES,
            f"another file: MD5 {fetched.md5}, expected {request.expected_md5}",
            attempts=fetched.attempts,
        )
    try:
        store.put(request.image_id, fetched.content)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        raise _NotStoredError(
            f"not written: {error.strerror}",
            f"{error.filename or store.folder}: {error.strerror}",
            transient=True,
            reached=False,
            attempts=fetched.attempts,
        ) from error
    _ = fetched.md5  # computed here, where it blocks nothing else
    return fetched


def _success(
    request: ImageRequest,
    source: Source | ImportFolder,
    fetched: FetchedImage,
    failures: Sequence[tuple[str, NotFetchedError]],
) -> Outcome:
    size_bytes = len(fetched.content)
    before = "".join(f"; not from {name}: {failure.detail}" for name, failure in failures)
    return Outcome(
        request.image_id,
        f"fetched from {source.name}{source.note}, {size_bytes:,} bytes{before}",
        fetched.attempts + sum(failure.attempts for _, failure in failures),
        source=source.name,
        size_bytes=size_bytes,
        md5=fetched.md5,
        failures=_source_failures(failures),
        is_imported=bool(request.import_name),
    )


def _failure(request: ImageRequest, failures: Sequence[tuple[str, NotFetchedError]]) -> Outcome:
    requested = [failure for _, failure in failures if failure.attempts]
    stored = not any(isinstance(failure, _NotStoredError) for failure in requested)
    return Outcome(
        request.image_id,
        "; ".join(f"{name}: {failure.detail}" for name, failure in failures),
        sum(failure.attempts for _, failure in failures),
        reason=", ".join(f"{name}: {failure.reason}" for name, failure in failures),
        transient=any(failure.transient for _, failure in failures),
        reached=not requested or (stored and any(failure.reached for failure in requested)),
        failures=_source_failures(failures),
        is_imported=bool(request.import_name),
    )


def _source_failures(
    failures: Iterable[tuple[str, NotFetchedError]],
) -> tuple[SourceFailure, ...]:
    """Return the failures that say something about a source rather than about one response."""
    return tuple(
        SourceFailure(name, failure.detail, failure.reached)
        for name, failure in failures
        if failure.attempts
        and not isinstance(failure, _NotStoredError)
        and not (failure.reached and failure.transient)
    )
