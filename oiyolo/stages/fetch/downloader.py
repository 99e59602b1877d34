"""The work of a fetch, without its books: images come into a store, outcomes go to the caller.

``fetch`` enters the outcomes in the ledger; a shard enters them in its own journal. Both go by the
same order: an outcome is recorded first, then its file gets its final name.
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
    from oiyolo.sources.image import WantedImage
    from oiyolo.sources.store import Store

RECORD_EVERY_S: Final = 0.02
"""What came since is fetched again after a ``kill -9``."""
_LOOK_AT_DISK_EVERY_S: Final = 0.2
SPARE_BYTES: Final = 200_000_000
"""A fetch stops when less than this is free."""
_UNREACHED_IN_A_ROW: Final = 20
"""So many images in a row for which no source answered mean that the site is not reachable."""
_WAITING: Final = 128
"""So many images may wait for their turn at a site that is asked gently, beside those under way."""
_AUTO_BLOCKING: Final = 16
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = logging.getLogger("oiyolo")


class Tally:
    """What a fetch did so far.

    Attributes:
        new: Images that came.
        size_bytes: Their bytes.
        network_bytes: Those of them that came over the network.
        by_source: How many came from where.
        failed: Reasons of those that did not, with their numbers.
        example: What was told of the last of these.
        unreached_in_a_row: Images since a source last answered.
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
        """Count one image."""
        if outcome.source is None:
            self.failed[outcome.reason] += 1
            self.example = outcome.told
        else:
            self.new += 1
            self.size_bytes += outcome.size_bytes
            self.by_source[outcome.source] += 1
            # A folder's name is its path; all other sources are on the network.
            if not Path(outcome.source).is_absolute():
                self.network_bytes += outcome.size_bytes
        self.unreached_in_a_row = 0 if outcome.reached else self.unreached_in_a_row + 1


def fetch_many(
    project: Project,
    wanted: Iterable[WantedImage],
    *,
    on_outcomes: Callable[[Sequence[Outcome]], None],
    told: Progress,
    store: Store | None = None,
    tally: Tally | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Fetch images, and hand over what became of them, every few hundredths of a second.

    It takes no lock and touches no ledger: two calls at once are fine where their images and the
    marks of their stores differ. Each image has exactly one outcome, in no particular order. Their
    files get their final names after ``on_outcomes`` came back from them; when it raises, or at a
    Ctrl-C, the fetch ends within two seconds, and what was not recorded is not kept. What a killed
    process left is the caller's to take up: ``store.recover``.

    Args:
        project: Its ``[images]`` options count.
        wanted: The images; taken lazily, in this thread.
        on_outcomes: Records outcomes durably, all of them or none; called in this thread.
        told: Is told of each image.
        store: Where files go; the project's folder of images if not given. Give a ``FolderStore``
            with a mark of its own where several processes write to one folder.
        tally: Is counted in; a new one if not given.
        stop: When this event is set, ``StoppedError`` is raised.

    Returns:
        The tally.

    Raises:
        StoppedError: ``stop`` was set.
        UnavailableError: No site is reachable, or the disk is full.
    """
    from oiyolo.net.client_pool import ManyWeb  # noqa: PLC0415  (aiohttp: nothing to do needs none)
    from oiyolo.net.workers import Threads  # noqa: PLC0415
    from oiyolo.sources.event_loop import fetch_images  # noqa: PLC0415
    from oiyolo.sources.registry import sources_of  # noqa: PLC0415

    options = project.config.images
    jobs = None if options.jobs == AUTO else int(options.jobs)
    tally = tally or Tally()
    store = store or FolderStore(project.images_folder)
    keeping = Threads(store.at_once, "oiyolo-keep")
    blocking = Threads(jobs or _AUTO_BLOCKING, "oiyolo-source")
    web = ManyWeb(blocking, jobs=jobs, flickr_per_second=options.flickr_per_second)
    sources = sources_of(
        options.sources,
        mirror_url=options.mirror_url,
        base=project.folder,
        web=web,
        threads=blocking,
    )
    outcomes = fetch_images(
        wanted,
        sources,
        store,
        threads=keeping,
        in_work=(jobs or _WAITING) + _WAITING,
        close=web.close,
    )
    books = _Books(on_outcomes, store)
    shown, disk = _Shown(told), _Disk(store.folder)
    try:
        with _disk_watched(store.folder), contextlib.closing(outcomes), books:
            for some in outcomes:
                for outcome in some:
                    tally.add(outcome)
                books.add(some)
                shown.advance(len(some), tally)
                books.close_now_and_then()
                disk.look_now_and_then()
                if stop is not None and stop.is_set():
                    raise StoppedError
                if tally.unreached_in_a_row >= max(_UNREACHED_IN_A_ROW, jobs or 0):
                    raise _unreachable(tally)
    finally:
        blocking.close()
    return tally


class _Books:
    """Outcomes on their way into the caller's books, and their files to their final names."""

    def __init__(self, on_outcomes: Callable[[Sequence[Outcome]], None], store: Store) -> None:
        self._record, self._store = on_outcomes, store
        self._open: list[Outcome] = []
        self._closed_s = time.monotonic()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Take some."""
        self._open += outcomes

    def close_now_and_then(self) -> None:
        """Record, if some time has passed since."""
        if time.monotonic() - self._closed_s > RECORD_EVERY_S:
            self.close()
            self._closed_s = time.monotonic()

    def close(self) -> None:
        """Record what is open, then give final names."""
        some, self._open = self._open, []
        if not some:
            return
        came = [outcome.image_id for outcome in some if outcome.source is not None]
        try:
            self._record(some)
        except BaseException:
            self._store.drop(came)
            raise
        self._store.finish(came)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shown:
    """Progress, with what a person wants to know beside the count."""

    def __init__(self, told: Progress) -> None:
        self._told = told
        self._began_s = self._then_s = time.monotonic()
        self._then_bytes = 0

    def advance(self, done: int, tally: Tally) -> None:
        """So many more are done."""
        now_s = time.monotonic()
        if now_s - self._then_s > 1.0 or not self._then_bytes:
            rate = (tally.size_bytes - self._then_bytes) / max(now_s - self._then_s, 1e-3)
            self._then_s, self._then_bytes = now_s, tally.size_bytes
            figures: dict[str, object] = {"MB/s": f"{rate / 1e6:.1f}"}
            if tally.failed:
                figures["failed"] = sum(tally.failed.values())
                reasons = tally.failed.most_common(2)
                figures["mostly"] = ", ".join(f"{n} {reason}" for reason, n in reasons)
            self._told.tell(**figures)
        self._told.advance(done)


class _Disk:
    """The disk that fills up, if there is one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._looked_s = folder, time.monotonic()

    def look_now_and_then(self) -> None:
        """Stop before it is full."""
        if self._folder and time.monotonic() - self._looked_s > _LOOK_AT_DISK_EVERY_S:
            check_disk(self._folder)
            self._looked_s = time.monotonic()


def check_disk(folder: Path, needed_bytes: float = 0.0) -> None:
    """Stop before the disk is full.

    Args:
        folder: The folder on it.
        needed_bytes: What is still to come.

    Raises:
        UnavailableError: Too little is free.
    """
    free = shutil.disk_usage(folder).free
    if free >= SPARE_BYTES + needed_bytes:
        return
    if not needed_bytes:
        raise _disk_full(folder)
    raise UnavailableError(
        "the images do not fit on the disk",
        where=str(folder),
        expected=f"about {(SPARE_BYTES + needed_bytes) / 1e6:,.0f} MB free",
        found=f"{free / 1e6:,.0f} MB",
        remedy="Free some space, lower [dataset] limit, or put the project on a larger disk; "
        "`oiyolo plan` shows the sums",
    )


@contextlib.contextmanager
def _disk_watched(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if folder and error.errno in _FULL:
            raise _disk_full(folder) from error
        raise


def _disk_full(folder: Path) -> UnavailableError:
    free = shutil.disk_usage(folder).free
    return UnavailableError(
        "the disk is nearly full, so fetching stopped",
        where=str(folder),
        expected=f"{SPARE_BYTES / 1e6:.0f} MB left free",
        found=f"{free / 1e6:.0f} MB",
        remedy="Free some space, then give the same command again; what is here stays",
    )


def _unreachable(tally: Tally) -> UnavailableError:
    return UnavailableError(
        f"no source answered for {tally.unreached_in_a_row} images in a row",
        found=tally.example,
        remedy="Check the network and [images] mirror_url, then give the same command again",
    )
