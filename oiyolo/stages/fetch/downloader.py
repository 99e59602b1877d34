"""Download images into a store and report each outcome to the caller.

``fetch`` records the outcomes in the ledger, a shard in its own journal. In both cases an outcome
is recorded first, and only then is its file renamed to its final name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.net.download import StoppedError
from oiyolo.project.value_types import AUTO
from oiyolo.sources.store import FolderStore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from oiyolo.core.progress import Progress
    from oiyolo.project.project import Project
    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.image import ImageRequest
    from oiyolo.sources.store import Store

RECORD_EVERY_S: Final = 0.02
"""Interval between records; after a ``kill -9``, images since the last one are fetched again."""
_CHECK_DISK_EVERY_S: Final = 0.2
MIN_FREE_BYTES: Final = 200_000_000
"""Space that must stay free on the disk; a fetch stops when less is free."""
_MAX_UNREACHED_IN_A_ROW: Final = 20
"""After this many consecutive images without an answer from any source, the site is unreachable."""
_MAX_WAITING: Final = 128
"""Images that may wait for a rate-limited site, in addition to the downloads in progress."""
_AUTO_BLOCKING_JOBS: Final = 16
_DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = logging.getLogger("oiyolo")


class Tally:
    """Running counts of a fetch.

    Attributes:
        new: Number of images fetched.
        size_bytes: Their total size.
        network_bytes: The part of ``size_bytes`` that was downloaded over the network.
        by_source: Number of images fetched, by source.
        failed: Number of images that failed, by reason.
        example: The message of the last failed image.
        unreached_in_a_row: Consecutive images, up to now, for which no source answered.
    """

    def __init__(self) -> None:
        self.new = 0
        self.size_bytes = 0
        self.network_bytes = 0
        self.by_source: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.example = ""
        self.unreached_in_a_row = 0

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of one image."""
        if outcome.source is None:
            self.failed[outcome.reason] += 1
            self.example = outcome.message
        else:
            self.new += 1
            self.size_bytes += outcome.size_bytes
            self.by_source[outcome.source] += 1
            # A folder source is named by its absolute path; all others are on the network.
            if not Path(outcome.source).is_absolute():
                self.network_bytes += outcome.size_bytes
        self.unreached_in_a_row = 0 if outcome.reached else self.unreached_in_a_row + 1


def download_images(
    project: Project,
    images: Iterable[ImageRequest],
    *,
    on_outcomes: Callable[[Sequence[Outcome]], None],
    progress: Progress,
    store: Store | None = None,
    tally: Tally | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Download images, passing their outcomes to ``on_outcomes`` every few hundredths of a second.

    Takes no lock and does not use the ledger, so two calls may run at once if their images and the
    tags of their stores differ. Each image has exactly one outcome, in no particular order. Files
    get their final names after ``on_outcomes`` has returned. If it raises, or on Ctrl-C, the
    download ends within two seconds and unrecorded files are discarded. After a kill, the caller
    cleans up with ``store.recover``.

    Args:
        project: The project, whose ``[images]`` options apply.
        images: The images to download; consumed lazily, in the calling thread.
        on_outcomes: Callback that durably records all given outcomes or none; called in the calling
            thread.
        progress: Progress display, advanced for each image.
        store: Store for the files; by default the project's image folder. Where several processes
            write to one folder, each needs a ``FolderStore`` with its own tag.
        tally: Counts to add to; by default a new tally.
        stop: Event that stops the download, which then raises ``StoppedError``.

    Returns:
        The tally.

    Raises:
        StoppedError: ``stop`` was set.
        UnavailableError: No site is reachable, or the disk is full.
    """
    from oiyolo.net.client_pool import HttpClientPool  # noqa: PLC0415  (aiohttp is slow to import)
    from oiyolo.net.workers import WorkerThreads  # noqa: PLC0415
    from oiyolo.sources.event_loop import fetch_images  # noqa: PLC0415
    from oiyolo.sources.registry import make_sources  # noqa: PLC0415

    options = project.config.images
    jobs = None if options.jobs == AUTO else int(options.jobs)
    tally = tally or Tally()
    store = store or FolderStore(project.images_folder)
    storing = WorkerThreads(store.concurrent_puts, "oiyolo-store")
    blocking = WorkerThreads(jobs or _AUTO_BLOCKING_JOBS, "oiyolo-source")
    web = HttpClientPool(blocking, jobs=jobs, flickr_per_second=options.flickr_per_second)
    sources = make_sources(
        options.sources,
        mirror_url=options.mirror_url,
        base=project.folder,
        web=web,
        threads=blocking,
    )
    outcomes = fetch_images(
        images,
        sources,
        store,
        threads=storing,
        max_in_flight=(jobs or _MAX_WAITING) + _MAX_WAITING,
        close=web.close,
    )
    recorder = _OutcomeRecorder(on_outcomes, store)
    report, disk = _ProgressReport(progress), _DiskMonitor(store.folder)
    try:
        with _convert_disk_full_error(store.folder), contextlib.closing(outcomes), recorder:
            for batch in outcomes:
                for outcome in batch:
                    tally.add(outcome)
                recorder.add(batch)
                report.advance(len(batch), tally)
                recorder.flush_if_due()
                disk.check_if_due()
                if stop is not None and stop.is_set():
                    raise StoppedError
                if tally.unreached_in_a_row >= max(_MAX_UNREACHED_IN_A_ROW, jobs or 0):
                    raise _unreachable_error(tally)
    finally:
        blocking.close()
    return tally


class _OutcomeRecorder:
    """Collects outcomes, records them through the callback, and finalizes their files."""

    def __init__(self, on_outcomes: Callable[[Sequence[Outcome]], None], store: Store) -> None:
        self._record, self._store = on_outcomes, store
        self._unrecorded: list[Outcome] = []
        self._flushed_s = time.monotonic()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Collect outcomes to record with the next flush."""
        self._unrecorded += outcomes

    def flush_if_due(self) -> None:
        """Flush if the last flush is more than ``RECORD_EVERY_S`` ago."""
        if time.monotonic() - self._flushed_s > RECORD_EVERY_S:
            self.flush()
            self._flushed_s = time.monotonic()

    def flush(self) -> None:
        """Record the collected outcomes, then give their files their final names."""
        batch, self._unrecorded = self._unrecorded, []
        if not batch:
            return
        fetched_ids = [outcome.image_id for outcome in batch if outcome.source is not None]
        try:
            self._record(batch)
        except BaseException:
            self._store.drop(fetched_ids)
            raise
        self._store.finish(fetched_ids)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.flush()


class _ProgressReport:
    """Shows the count of images, the download rate and the failures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started_s = self._updated_s = time.monotonic()
        self._updated_bytes = 0

    def advance(self, done: int, tally: Tally) -> None:
        """Count ``done`` more images as finished."""
        now_s = time.monotonic()
        if now_s - self._updated_s > 1.0 or not self._updated_bytes:
            rate = (tally.size_bytes - self._updated_bytes) / max(now_s - self._updated_s, 1e-3)
            self._updated_s, self._updated_bytes = now_s, tally.size_bytes
            figures: dict[str, object] = {"MB/s": f"{rate / 1e6:.1f}"}
            if tally.failed:
                figures["failed"] = sum(tally.failed.values())
                reasons = tally.failed.most_common(2)
                figures["mostly"] = ", ".join(f"{n} {reason}" for reason, n in reasons)
            self._progress.set_postfix(**figures)
        self._progress.advance(done)


class _DiskMonitor:
    """Checks the free space of the store's disk at intervals; does nothing for a remote store."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._checked_s = folder, time.monotonic()

    def check_if_due(self) -> None:
        """Raise if the disk is nearly full and the last check is long enough ago."""
        if self._folder and time.monotonic() - self._checked_s > _CHECK_DISK_EVERY_S:
            check_disk(self._folder)
            self._checked_s = time.monotonic()


def check_disk(folder: Path, needed_bytes: float = 0.0) -> None:
    """Raise if a disk has too little free space.

    Args:
        folder: A folder on the disk.
        needed_bytes: Size of the files that are still to be written; 0 during a fetch.

    Raises:
        UnavailableError: Less than ``needed_bytes`` plus ``MIN_FREE_BYTES`` is free.
    """
    free = shutil.disk_usage(folder).free
    if free >= MIN_FREE_BYTES + needed_bytes:
        return
    if not needed_bytes:
        raise _disk_full_error(folder)
    raise UnavailableError(
        "the images do not fit on the disk",
        where=str(folder),
        expected=f"about {(MIN_FREE_BYTES + needed_bytes) / 1e6:,.0f} MB free",
        found=f"{free / 1e6:,.0f} MB",
        remedy="Free some space, lower [dataset] limit, or move the project to a larger disk; "
        "`oiyolo plan` shows how much is needed",
    )


@contextlib.contextmanager
def _convert_disk_full_error(folder: Path | None) -> Iterator[None]:
    """Turn the operating system's errors about a full disk into ``UnavailableError``."""
    try:
        yield
    except OSError as error:
        if folder and error.errno in _DISK_FULL_ERRNOS:
            raise _disk_full_error(folder) from error
        raise


def _disk_full_error(folder: Path) -> UnavailableError:
    free = shutil.disk_usage(folder).free
    return UnavailableError(
        "the disk is nearly full, so fetching stopped",
        where=str(folder),
        expected=f"{MIN_FREE_BYTES / 1e6:.0f} MB left free",
        found=f"{free / 1e6:.0f} MB",
        remedy="Free some space, then run the same command again; fetched images are kept",
    )


def _unreachable_error(tally: Tally) -> UnavailableError:
    return UnavailableError(
        f"no source answered for {tally.unreached_in_a_row} images in a row",
        found=tally.example,
        remedy="Check the network and [images] mirror_url, then run the same command again",
    )
