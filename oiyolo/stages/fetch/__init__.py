"""fetch: every selected image arrives whole and verified, or is excluded with a reason.

Leaves ``data/images/<ImageID>.jpg``, exactly as served, and each image's state in the ledger. What
failed for good (404, a placeholder, a broken file) is excluded; what failed for now (a connection,
a 503) stays pending and is tried again by the next run.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, Result, columns, count
from oiyolo.net.buckets import bucket_place
from oiyolo.project.keys import ImagesOptions
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, STATES, Change
from oiyolo.project.project import open_project
from oiyolo.sources.mirror import MIRROR_MEAN_BYTES
from oiyolo.sources.store import FolderStore
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch import bucket_copy, cluster_fetch, shard_fetch, storage_transfer
from oiyolo.stages.fetch.downloader import SPARE_BYTES, Tally, check_disk, fetch_many
from oiyolo.stages.fetch.outcomes import NOT_TRIED, change_of, check_tolerance
from oiyolo.stages.fetch.pending import OnDisk, wanted_images
from oiyolo.stages.fetch.stats import Effort, Notes, effort
from oiyolo.stages.fetch.storage_transfer import with_bucket_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Counts, Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.image import WantedImage
    from oiyolo.stages.fetch.cluster_fetch import Spread
    from oiyolo.stages.fetch.shard_fetch import FetchedShard
    from oiyolo.stages.select import Selection

__all__ = ["SPARE_BYTES", "STAGE", "Effort", "Fetched", "change_of", "effort", "fetch", "run"]

STAGE: Final = "fetch"
RETRIES: Final = ("failed", "all")
_RECORDED_AT_ONCE: Final = 10_000
_SAMPLED: Final = 1000
"""So many images tell how large the others are."""


@dataclass(frozen=True)
class Fetched(Result):
    """What a fetch did, and how the ledger stands after it.

    Attributes:
        folder: Where the images lie.
        new: Images that arrived now.
        failed: Reasons of those that did not, now.
        missing: Images that could not be fetched so far, by reason.
        counts: The ledger's sums.
        seconds: How long it took.
        size_bytes: Bytes that arrived.
        by_source: How many of the new images came from where.
    """

    folder: Path
    new: int
    failed: Mapping[str, int]
    missing: Mapping[str, int]
    counts: Counts
    seconds: float
    size_bytes: int
    by_source: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "fetched": self.new,
            "failed": dict(self.failed),
            "missing": dict(self.missing),
            "sources": dict(self.by_source),
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            **self.counts.as_dict(),
        }

    def __str__(self) -> str:
        have = self.counts.selected - sum(self.missing.values())
        told = [f"fetched: nothing to do; {have:,} of {self.counts.selected:,} images are here"]
        if self.new or self.failed:
            rate = self.new / self.seconds if self.seconds else 0.0
            effort = f"{self.size_bytes / 1e6:.1f} MB in {self.seconds:.1f} s, {rate:.0f} a second"
            sums = f"{have:,} of {self.counts.selected:,} are here"
            told = [f"fetched {count(self.new, 'image')} ({effort}); {sums}"]
            if thumbnails := self.by_source.get("thumbnail"):
                told.append(f"{thumbnails:,} of them are thumbnails of about 300,000 pixels")
        if self.missing:
            told.append(columns([(f"missing: {why}", n) for why, n in self.missing.items()]))
        return "\n".join(told)


def fetch(
    project: ProjectLike = ".",
    *,
    retry: str | None = None,
    transfer: str | None = None,
    shard: str | None = None,
    cluster: str | None = None,
    shards: int | None = None,
    to: str | None = None,
    dry_run: bool = False,
    **options: object,
) -> Fetched | FetchedShard | Plan:
    """Fetch the selected images, selecting first when the selection is stale.

    Args:
        project: An open project or its folder; ``classes`` begins a new one there.
        retry: "failed" tries again what was excluded by a fetch; "all" fetches everything anew.
        transfer: ``gs://bucket/prefix``: Google's Storage Transfer Service copies the originals
            there first, and they are fetched from there before any other source.
        shard: "i/n": only the i-th of n parts, counted from 0, without the dataset's lock, so that
            several machines that share the project's folder fetch at once. The selection has to be
            up to date; what came is entered in the ledger by the next command that changes it.
        cluster: The address of a Dask scheduler: its workers, which share the project's folder,
            fetch all parts.
        shards: With ``cluster``: how many parts to make.
        to: With ``cluster``: ``gs://bucket/prefix``, which the workers copy the images to instead
            of sharing a folder; they are fetched from there then, before any other source.
        dry_run: Only tell what would be done.
        **options: Keys of ``[dataset]``, ``[openimages]`` and ``[images]``.

    Raises:
        UnavailableError: The site is not reachable, the disk is full, or more images are missing
            than ``[images] tolerance`` allows.
        UsageError: An unknown option; options that do not go together; with ``shard``, a selection
            that is not up to date.
        LockedError: Another run changes the dataset, or fetches this shard.
    """
    if retry is not None and retry not in RETRIES:
        raise UsageError("wrong --retry", expected=" or ".join(RETRIES), found=retry)
    if shard is not None:
        part = shard_fetch.shard_alone(
            shard, retry=retry, transfer=transfer, cluster=cluster, shards=shards, to=to
        )
        opened = open_project(project, options)
        act = shard_fetch.plan_shard if dry_run else shard_fetch.fetch_shard
        return act(opened, part)
    spread = cluster_fetch.spread(cluster, shards, to)
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if spread is not None and spread.to is not None:
        opened = with_bucket_first(opened, spread.to)
    if transfer is not None:
        opened = with_bucket_first(opened, bucket_place(transfer, where="--transfer"))
    if dry_run:
        return _plan(opened, transfer, spread)
    with opened.data_lock(STAGE):
        select_stage.run(opened)
        if transfer is not None:
            storage_transfer.run(opened, transfer, again=retry is not None)
        return run(opened, retry=retry, spread=spread)


def _plan(project: Project, transfer: str | None, spread: Spread | None) -> Plan:
    if not project.ledger_path.is_file():
        return Plan("fetch", ["select first, then fetch what was selected"])
    with project.ledger(read_only=True) as ledger:
        pending = ledger.counts().states[PENDING]
    where = ", ".join(project.config.images.sources)
    actions = [f"fetch {count(pending, 'image')} from {where}"] if pending else []
    if pending and spread is not None:
        actions = [f"{actions[0]}, {spread.told(pending)}"]
    if pending and transfer is not None:
        actions = [*storage_transfer.planned(project, transfer), *actions]
    return Plan("fetch", actions, {"pending": pending})


def run(project: Project, *, retry: str | None = None, spread: Spread | None = None) -> Fetched:
    """Fetch under a lock that the caller holds, here or spread over a cluster."""
    selection = select_stage.load_or_complain(project)
    store = FolderStore(project.images_folder)
    started_s = time.monotonic()
    tally = Tally()
    with project.ledger() as ledger:
        store.recover(lambda image_id: _recorded_bytes(ledger, image_id))
        shard_fetch.take_up(project, ledger)
        _reopen(project, ledger, retry)
        if pending := ledger.counts().states[PENDING]:
            if spread is not None and spread.to is None:
                cluster_fetch.run(project, spread, pending, tally)
            else:
                if spread is not None and spread.to is not None:
                    wanted = wanted_images(selection, ledger.each(PENDING))
                    bucket_copy.run(project, spread, spread.to, wanted, pending)
                _fetch_here(project, ledger, selection, store, tally)
        counts, missing = ledger.counts(), ledger.missing(STAGE)
    done = Fetched(
        folder=project.images_folder,
        new=tally.new,
        failed=dict(tally.failed),
        missing={why or NOT_TRIED: n for why, n in missing.items()},
        counts=counts,
        seconds=time.monotonic() - started_s,
        size_bytes=tally.size_bytes,
        by_source=dict(tally.by_source.most_common()),
    )
    check_tolerance(project, done.missing, done.counts.selected, tally.example)
    return done


def _fetch_here(
    project: Project, ledger: Ledger, selection: Selection, store: FolderStore, tally: Tally
) -> None:
    """Fetch all that is pending."""
    pending = ledger.counts().states[PENDING]
    wanted = _that_fit(project, wanted_images(selection, ledger.each(PENDING)), pending)
    with progress("fetch", total=pending, unit="img") as told, _noted(project, tally) as notes:

        def record(outcomes: Sequence[Outcome]) -> None:
            ledger.record(STAGE, [change_of(outcome) for outcome in outcomes])
            notes.note_now_and_then()

        fetch_many(project, wanted, on_outcomes=record, told=told, store=store, tally=tally)


def _recorded_bytes(ledger: Ledger, image_id: str) -> int | None:
    row = ledger.row(image_id) or {}
    size_bytes = row.get("bytes")
    return size_bytes if row.get("state") == FETCHED and isinstance(size_bytes, int) else None


def _reopen(project: Project, ledger: Ledger, retry: str | None) -> None:
    """Make pending again what was asked for, and what the disk no longer has."""
    if retry == "all":
        _reopened(ledger, ledger.each(*STATES, EXCLUDED), "to be fetched anew")
        return
    if ledger.counts().states[FETCHED]:
        gone = OnDisk(project.images_folder).lacks(ledger.each(FETCHED))
        _reopened(ledger, gone, "its file is gone")
    if retry == "failed":
        for stage in (STAGE, "prepare"):
            _reopened(ledger, ledger.ids(EXCLUDED, stage=stage), "to be tried again")


def _reopened(ledger: Ledger, ids: Iterable[str], told: str) -> None:
    left = iter(ids)
    while some := list(itertools.islice(left, _RECORDED_AT_ONCE)):
        ledger.record(STAGE, [Change(image_id, PENDING, told) for image_id in some])


def _that_fit(
    project: Project, wanted: Iterator[WantedImage], pending: int
) -> Iterator[WantedImage]:
    """Give the images, once it is clear that there is room for them.

    Raises:
        UnavailableError: There is too little.
    """
    sample = list(itertools.islice(wanted, _SAMPLED))
    mean_bytes = _mean_bytes(project, sample)
    if mean_bytes is not None:
        check_disk(project.images_folder, mean_bytes * pending)
    return itertools.chain(sample, wanted)


def _mean_bytes(project: Project, sample: Sequence[WantedImage]) -> float | None:
    """Give the mean size of an image, as far as it can be known; ``None`` if it cannot."""
    options, before = project.config.images, effort(project)
    if before.images >= _SAMPLED:
        return before.size_bytes / before.images
    if options.sources[0] == "original":
        sizes = [image.original_size_bytes for image in sample]
        listed = [size for size in sizes if size is not None]
        return sum(listed) / len(listed) if listed else None
    if options.sources[0] == "mirror" and options.mirror_url == ImagesOptions.mirror_url:
        return sum(MIRROR_MEAN_BYTES[image.subset] for image in sample) / len(sample)
    return None


@contextlib.contextmanager
def _noted(project: Project, tally: Tally) -> Iterator[Notes]:
    """Keep what a fetch took, also where it is cut short."""
    notes = Notes(project, tally)
    try:
        yield notes
    finally:
        with contextlib.suppress(OSError):  # a full disk has been told of already
            notes.note()
