"""Download images into a store and report each outcome to the caller.

``fetch`` records the outcomes in the ledger, a shard in its own journal. In both cases an outcome
is recorded first, and only then is its file renamed to its final name.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import disks
from oiyolo.core.errors import UnavailableError
from oiyolo.net.retry import StoppedError
from oiyolo.net.urls import display_url
from oiyolo.project.imports import is_import_source
from oiyolo.project.value_types import AUTO
from oiyolo.sources.image import NoImagesError
from oiyolo.sources.imported import ImportFolder
from oiyolo.sources.web import Mirror
from oiyolo.stages.fetch.source_monitor import SourceMonitor, split_doubtful

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Sequence

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
_MAX_MISSING_AT_FIRST: Final = 20
"""If this many images fail before the first one is fetched, the sources are not the right ones."""
_MAX_WAITING: Final = 128
"""Images that may wait for a rate-limited site, in addition to the downloads in progress."""
_AUTO_BLOCKING_JOBS: Final = 16


class Trust(enum.Enum):
    """What failures mean while no image has been fetched yet."""

    NONE = "none"
    """The sources have never had an image: if they have none now, they are the wrong ones."""
    SOME = "some"
    """A few images may be missing, but not all of many."""
    FULL = "full"
    """Every failure is recorded."""


class Timer:
    """Is due at intervals, first when one has passed."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._started_s = interval_s, time.monotonic()

    def is_due(self) -> bool:
        """Return whether the interval has passed; if so, start the next one."""
        now_s = time.monotonic()
        if now_s - self._started_s <= self._interval_s:
            return False
        self._started_s = now_s
        return True


def is_on_network(source: str) -> bool:
    """Return whether a source, as the ledger names it, is on the network."""
    # A folder source is named by its absolute path.
    return not (Path(source).is_absolute() or is_import_source(source))


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
            if is_on_network(outcome.source):
                self.network_bytes += outcome.size_bytes
        self.unreached_in_a_row = 0 if outcome.reached else self.unreached_in_a_row + 1

    def as_fields(self) -> dict[str, Any]:
        """Return the counts as the fields of a ``FetchResult``."""
        return {
            "new": self.new,
            "failed": dict(self.failed),
            "size_bytes": self.size_bytes,
            "by_source": dict(self.by_source.most_common()),
        }


def download_images(
    project: Project,
    images: Iterable[ImageRequest],
    *,
    on_outcomes: Callable[[Sequence[Outcome]], None],
    progress: Progress,
    store: Store,
    tally: Tally,
    stop: threading.Event | None = None,
    trust: Trust = Trust.SOME,
    known: Collection[str] = (),
) -> None:
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
        store: Store for the files. Where several processes write to one folder, each needs a
            ``FolderStore`` with its own tag.
        tally: Counts to add to.
        stop: Event that stops the download, which then raises ``StoppedError``.
        trust: What failures mean while no image has been fetched yet. Until then no outcome is
            passed on, so sources without any of the images change nothing.
        known: Names of the sources that are known to have some of the images. Until one of the
            others has an image, no outcome of an image that it lacked is passed on.

    Raises:
        StoppedError: ``stop`` was set.
        UnavailableError: A source does not exist, is unreachable or has none of the images, or the
            disk is full.
    """
    # aiohttp is slow to import, so what needs it is imported here.
    from oiyolo.net.client_pool import AUTO_MAX_CONCURRENCY, HttpClientPool  # noqa: PLC0415
    from oiyolo.net.workers import WorkerThreads  # noqa: PLC0415
    from oiyolo.sources.event_loop import fetch_images  # noqa: PLC0415
    from oiyolo.sources.registry import make_sources  # noqa: PLC0415

    options = project.config.images
    jobs = None if options.jobs == AUTO else int(options.jobs)
    storing = WorkerThreads(store.concurrent_puts, "oiyolo-store")
    blocking = WorkerThreads(jobs or _AUTO_BLOCKING_JOBS, "oiyolo-source")
    web = HttpClientPool(blocking, jobs=jobs, flickr_per_second=options.flickr_per_second)
    report, disk = _ProgressReport(progress), _DiskMonitor(store.folder)
    with contextlib.closing(blocking):
        sources = make_sources(
            options.sources if project.uses_open_images else (),
            mirror_url=options.mirror_url,
            base=project.folder,
            web=web,
            threads=blocking,
        )
        places = {Mirror.name: display_url(options.mirror_url)}
        monitor = SourceMonitor([source.name for source in sources], known, places)
        recorder = _OutcomeRecorder(on_outcomes, store, trust, monitor)
        outcomes = fetch_images(
            images,
            sources,
            store,
            threads=storing,
            max_in_flight=(jobs or AUTO_MAX_CONCURRENCY) + _MAX_WAITING,
            close=web.close,
            imports={name: ImportFolder(record) for name, record in project.imports().items()},
        )
        with disk.errors_converted(), contextlib.closing(outcomes), recorder:
            for batch in outcomes:
                for outcome in batch:
                    tally.add(outcome)
                recorder.add(batch)
                report.advance(len(batch), tally)
                disk.check_if_due()
                if stop is not None and stop.is_set():
                    raise StoppedError
                if tally.unreached_in_a_row >= max(_MAX_UNREACHED_IN_A_ROW, jobs or 0):
                    raise _unreachable_error(tally)
                recorder.check(options.sources, tally)
            recorder.check(options.sources, tally, at_end=True)


class _OutcomeRecorder:
    """Collects outcomes, records them at intervals and on exit, and finalizes their files.

    Permanent failures are held back until an image is fetched, unless the sources are trusted. So
    are the outcomes of images that a source in doubt lacked.
    """

    def __init__(
        self,
        on_outcomes: Callable[[Sequence[Outcome]], None],
        store: Store,
        trust: Trust,
        monitor: SourceMonitor,
    ) -> None:
        self._record, self._store = on_outcomes, store
        self._trust, self._monitor = trust, monitor
        self._unrecorded: list[Outcome] = []
        self._timer = Timer(RECORD_EVERY_S)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Collect outcomes, and record all collected ones if that is due."""
        self._unrecorded += outcomes
        for outcome in outcomes:
            self._monitor.add(outcome)
        # That an import has its images says nothing about the other sources.
        if any(outcome.source is not None and not outcome.is_imported for outcome in outcomes):
            self._trust = Trust.FULL
        if not self._held and self._timer.is_due():
            self._flush()

    @property
    def _held(self) -> int:
        """Number of permanent failures that are held back."""
        if self._trust is Trust.FULL:
            return 0
        failed = (outcome for outcome in self._unrecorded if outcome.source is None)
        return sum(not (outcome.transient or outcome.is_imported) for outcome in failed)

    def check(self, sources: Sequence[str], tally: Tally, *, at_end: bool = False) -> None:
        """Raise if the sources, or one of them, seem to have none of the images.

        Args:
            sources: Names of the sources.
            tally: Counts of the outcomes.
            at_end: Whether no further image follows.

        Raises:
            NoImagesError: No image was fetched, and too many failed; or as for ``SourceMonitor``.
        """
        max_held = 0 if at_end and self._trust is Trust.NONE else _MAX_MISSING_AT_FIRST - 1
        if self._held > max_held:
            raise _no_image_error(sources, tally)
        self._monitor.check(at_end=at_end)

    def _flush(self) -> None:
        """Record the collected outcomes, then give their files their final names."""
        batch, self._unrecorded = split_doubtful(self._monitor, self._unrecorded)
        if batch:
            self._record_and_finish(batch)

    def _record_and_finish(self, batch: Sequence[Outcome]) -> None:
        fetched_ids = _fetched_ids(batch)
        try:
            self._record(batch)
        except BaseException:
            self._store.drop(fetched_ids)
            raise
        self._store.finish(fetched_ids)

    def __enter__(self) -> None:
        pass

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None or not self._held:
            self._flush()
        if error_type is not None and issubclass(error_type, NoImagesError):
            self._store.drop(_fetched_ids(self._unrecorded))
        elif fetched := [outcome for outcome in self._unrecorded if outcome.source is not None]:
            self._record_and_finish(
                fetched
            )  # an interruption: these are good, whatever is in doubt


def _fetched_ids(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.image_id for outcome in outcomes if outcome.source is not None]


class _ProgressReport:
    """Shows the count of images, the download rate and the failures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._updated_s = time.monotonic()
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

    _what = "the images"
    _remedy = "then run the same command again; fetched images are kept"

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._timer = folder, Timer(_CHECK_DISK_EVERY_S)

    def check_if_due(self) -> None:
        """Raise if the disk is nearly full and the last check is long enough ago."""
        if self._folder and self._timer.is_due():
            disks.check_free_space(
                self._folder, MIN_FREE_BYTES, what=self._what, remedy=self._remedy
            )

    def errors_converted(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that turns errors about a full disk into ours."""
        if self._folder is None:
            return contextlib.nullcontext()
        return disks.convert_disk_full_error(self._folder, what=self._what, remedy=self._remedy)


def _unreachable_error(tally: Tally) -> UnavailableError:
    return UnavailableError(
        f"{tally.unreached_in_a_row} images in a row could not be fetched",
        found=tally.example,
        remedy="Check the network, the disk and [images] sources, then run the same command again; "
        "fetched images are kept",
    )


def _no_image_error(sources: Sequence[str], tally: Tally) -> NoImagesError:
    count = tally.failed.total()
    tried = "the only image" if count == 1 else f"any of the first {count} images"
    return NoImagesError(
        f"{' and '.join(sources)} did not provide {tried}",
        found=tally.example,
        remedy="No image was changed. Check [images] sources and mirror_url (--sources, "
        "--mirror-url), then run the same command again",
    )
