"""fetch: download and verify every selected image, or exclude it with a reason.

Writes ``data/images/<ImageID>.jpg``, byte for byte as served, and each image's state in the ledger.
An image that failed permanently (404, a placeholder, a broken file) is excluded; one that failed
temporarily (a connection error, a 503) stays pending, and the next fetch tries it again.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core.batches import batched
from oiyolo.core.disks import check_free_space
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, pluralize
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.keys import ImagesOptions
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, STATES, Change
from oiyolo.project.project import open_project
from oiyolo.sources.store import FolderStore
from oiyolo.sources.web import MIRROR_MEAN_BYTES
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch import cluster_fetch, shard_fetch, storage_transfer
from oiyolo.stages.fetch.downloader import MIN_FREE_BYTES, Tally, download_images
from oiyolo.stages.fetch.outcomes import (
    NOT_TRIED,
    FetchResult,
    change_of,
    check_tolerance,
    recorded_bytes,
)
from oiyolo.stages.fetch.pending import ImageFolderIndex, pending_images
from oiyolo.stages.fetch.stats import FetchStats, StatsWriter, read_stats
from oiyolo.stages.fetch.storage_transfer import with_bucket_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.project.keywords import FetchKeywords
    from oiyolo.project.ledger import Counts, Ledger
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.image import ImageRequest
    from oiyolo.stages.fetch.cluster_fetch import ClusterOptions
    from oiyolo.stages.fetch.shard_fetch import FetchedShard
    from oiyolo.stages.select import Selection

__all__ = [
    "MIN_FREE_BYTES",
    "STAGE",
    "FetchStats",
    "Fetched",
    "change_of",
    "fetch",
    "read_stats",
    "run",
]

STAGE: Final = "fetch"
RETRIES: Final = ("failed", "all")
_CHANGES_PER_TRANSACTION: Final = 10_000
_SIZE_SAMPLE: Final = 1000
"""Number of images from which the mean size of all is estimated."""


@dataclass(frozen=True, kw_only=True)
class Fetched(FetchResult):
    """The outcome of a fetch, and the state of the ledger after it.

    Attributes:
        folder: The folder of the images.
        counts: The ledger's counts.
    """

    folder: Path
    counts: Counts

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {**super().as_dict(), **self.counts.as_dict()}

    def __str__(self) -> str:
        have = self.counts.selected - sum(self.missing.values())
        lines = [f"fetched: nothing to do; {have:,} of {self.counts.selected:,} images are present"]
        if self.new or self.failed:
            rate = self.new / self.seconds if self.seconds else 0.0
            total = f"{have:,} of {self.counts.selected:,} are present"
            images = pluralize(self.new, "image")
            lines = [f"fetched {images} ({self._size_and_time}, {rate:.0f} images/s); {total}"]
            if thumbnails := self.by_source.get("thumbnail"):
                lines.append(f"{thumbnails:,} of them are thumbnails of about 300,000 pixels")
        return self._with_missing(lines)


@overload
def fetch(
    project: ProjectLike = ...,
    *,
    retry: Literal["failed", "all"] | None = ...,
    transfer: str | None = ...,
    shard: None = ...,
    cluster: str | None = ...,
    shards: int | None = ...,
    to: str | None = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[FetchKeywords],
) -> Fetched: ...


@overload
def fetch(
    project: ProjectLike = ...,
    *,
    shard: str,
    dry_run: Literal[False] = ...,
    **options: Unpack[FetchKeywords],
) -> FetchedShard: ...


@overload
def fetch(
    project: ProjectLike = ...,
    *,
    retry: Literal["failed", "all"] | None = ...,
    transfer: str | None = ...,
    shard: str | None = ...,
    cluster: str | None = ...,
    shards: int | None = ...,
    to: str | None = ...,
    dry_run: Literal[True],
    **options: Unpack[FetchKeywords],
) -> Plan: ...


@overload
def fetch(
    project: ProjectLike = ...,
    *,
    retry: Literal["failed", "all"] | None = ...,
    transfer: str | None = ...,
    shard: str | None = ...,
    cluster: str | None = ...,
    shards: int | None = ...,
    to: str | None = ...,
    dry_run: bool = ...,
    **options: Unpack[FetchKeywords],
) -> Fetched | FetchedShard | Plan: ...


@takes_keys("dataset", "openimages", "images")
def fetch(
    project: ProjectLike = ".",
    *,
    retry: Literal["failed", "all"] | None = None,
    transfer: str | None = None,
    shard: str | None = None,
    cluster: str | None = None,
    shards: int | None = None,
    to: str | None = None,
    dry_run: bool = False,
    **options: Unpack[FetchKeywords],
) -> Fetched | FetchedShard | Plan:
    """Download the selected images, selecting first when the selection is stale.

    Args:
        project: An open project or its folder; with ``classes``, a new project is created there.
        retry: "failed" to retry images that ``fetch`` or ``prepare`` excluded; "all" to download
            every image again.
        transfer: ``gs://bucket/prefix`` for the originals. Google's Storage Transfer Service copies
            them there first; ``fetch`` then tries that bucket before any other source.
        shard: "i/n" to fetch only the i-th of n shards, counted from 0. It takes no dataset lock,
            so several machines that share the project's folder can fetch at once. The selection
            must be up to date. The next command that changes the dataset merges the shard's results
            into the ledger.
        cluster: Address of a Dask scheduler whose workers share the project's folder and fetch all
            shards.
        shards: Number of shards; only with ``cluster``.
        to: ``gs://bucket/prefix`` that the workers copy the images to, instead of sharing a folder;
            only with ``cluster``. ``fetch`` then tries that bucket before any other source.
        dry_run: Whether to only report what would be done.
        **options: Keys of ``[dataset]``, ``[openimages]`` and ``[images]``.

    Raises:
        UnavailableError: The site is unreachable, the disk is full, or more images are missing than
            ``[images] tolerance`` allows.
        UsageError: An unknown option; options that cannot be combined; with ``shard``, a selection
            that is not up to date.
        LockedError: Another process is changing the dataset, or fetching this shard.
    """
    if retry is not None and retry not in RETRIES:
        raise UsageError("invalid value for --retry", expected=" or ".join(RETRIES), found=retry)
    if shard is not None:
        part = shard_fetch.parse_shard_option(
            shard, retry=retry, transfer=transfer, cluster=cluster, shards=shards, to=to
        )
        opened = open_project(project, options)
        act = shard_fetch.plan_shard if dry_run else shard_fetch.fetch_shard
        return act(opened, part)
    cluster_options = cluster_fetch.parse_options(cluster, shards, to)
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if cluster_options is not None and cluster_options.to is not None:
        opened = with_bucket_first(opened, cluster_options.to)
    if transfer is not None:
        opened = with_bucket_first(opened, parse_bucket_url(transfer, where="--transfer"))
    if dry_run:
        return _plan(opened, transfer, cluster_options)
    with opened.data_lock(STAGE):
        select_stage.run(opened)
        if transfer is not None:
            storage_transfer.run(opened, transfer, again=retry is not None)
        return run(opened, retry=retry, cluster_options=cluster_options)


def _plan(project: Project, transfer: str | None, cluster_options: ClusterOptions | None) -> Plan:
    if not project.ledger_path.is_file():
        return Plan("fetch", ["select images, then fetch them"])
    with project.ledger(read_only=True) as ledger:
        pending = ledger.counts().states[PENDING]
    where = ", ".join(project.config.images.sources)
    actions = [f"fetch {pluralize(pending, 'image')} from {where}"] if pending else []
    if pending and cluster_options is not None:
        actions = [f"{actions[0]}, {cluster_options.describe(pending)}"]
    if pending and transfer is not None:
        actions = [*storage_transfer.planned_actions(project, transfer), *actions]
    return Plan("fetch", actions, {"pending": pending})


def run(
    project: Project, *, retry: str | None = None, cluster_options: ClusterOptions | None = None
) -> Fetched:
    """Fetch the pending images on this machine or on a cluster; the caller holds the dataset lock.

    Args:
        project: The project, whose selection is up to date.
        retry: As for ``fetch``.
        cluster_options: The cluster to fetch on; ``None`` for this machine.

    Raises:
        UnavailableError: As for ``fetch``.
    """
    selection = select_stage.load(project)
    store = FolderStore(project.images_folder)
    started_s = time.monotonic()
    tally = Tally()
    with project.ledger() as ledger:
        store.recover(lambda image_id: recorded_bytes(image_id, ledger))
        shard_fetch.recover_files(project, ledger)
        _reopen(project, ledger, retry)
        if pending := ledger.counts().states[PENDING]:
            if cluster_options is not None and cluster_options.to is None:
                cluster_fetch.run(project, cluster_options, pending, tally)
            else:
                if cluster_options is not None and cluster_options.to is not None:
                    images = pending_images(selection, ledger.iter_ids(PENDING))
                    cluster_fetch.copy_to_bucket(project, cluster_options, images, pending)
                _fetch_pending(project, ledger, selection, store, tally)
        counts, missing = ledger.counts(), ledger.missing(STAGE)
    done = Fetched(
        folder=project.images_folder,
        missing={why or NOT_TRIED: n for why, n in missing.items()},
        counts=counts,
        seconds=time.monotonic() - started_s,
        **tally.as_fields(),
    )
    check_tolerance(project, done.missing, done.counts.selected, tally.example)
    return done


def _fetch_pending(
    project: Project, ledger: Ledger, selection: Selection, store: FolderStore, tally: Tally
) -> None:
    """Download all pending images on this machine."""
    pending = ledger.counts().states[PENDING]
    images = _check_room(project, pending_images(selection, ledger.iter_ids(PENDING)), pending)
    with progress("fetch", total=pending, unit="img") as bar, StatsWriter(project, tally) as stats:

        def record(outcomes: Sequence[Outcome]) -> None:
            ledger.record(STAGE, [change_of(outcome) for outcome in outcomes])
            stats.write_if_due()

        download_images(project, images, on_outcomes=record, progress=bar, store=store, tally=tally)


def _reopen(project: Project, ledger: Ledger, retry: str | None) -> None:
    """Mark images as pending again: those that ``retry`` names, and those whose file is missing."""
    if retry == "all":
        _mark_pending(ledger, ledger.iter_ids(*STATES, EXCLUDED), "to be fetched again")
        return
    if ledger.counts().states[FETCHED]:
        missing = ImageFolderIndex(project.images_folder).missing(ledger.iter_ids(FETCHED))
        _mark_pending(ledger, missing, "its file is missing")
    if retry == "failed":
        for stage in (STAGE, "prepare"):
            _mark_pending(ledger, ledger.ids(EXCLUDED, stage=stage), "to be retried")


def _mark_pending(ledger: Ledger, ids: Iterable[str], message: str) -> None:
    for batch in batched(ids, _CHANGES_PER_TRANSACTION):
        ledger.record(STAGE, [Change(image_id, PENDING, message) for image_id in batch])


def _check_room(
    project: Project, images: Iterator[ImageRequest], pending: int
) -> Iterator[ImageRequest]:
    """Return ``images`` unchanged if the disk has room for ``pending`` of them.

    Raises:
        UnavailableError: The disk has too little room.
    """
    sample = list(itertools.islice(images, _SIZE_SAMPLE))
    mean_bytes = _mean_bytes(project, sample)
    if mean_bytes is not None:
        check_free_space(
            project.images_folder,
            MIN_FREE_BYTES + mean_bytes * pending,
            what="the images",
            remedy="lower [dataset] limit, or move the project to a larger disk; "
            "`oiyolo plan` shows how much is needed",
        )
    return itertools.chain(sample, images)


def _mean_bytes(project: Project, sample: Sequence[ImageRequest]) -> float | None:
    """Return the expected mean size of an image; ``None`` if it is unknown."""
    options, before = project.config.images, read_stats(project)
    if before.images >= _SIZE_SAMPLE:
        return before.size_bytes / before.images
    if options.sources[0] == "original":
        sizes = [image.original_size_bytes for image in sample]
        listed = [size for size in sizes if size is not None]
        return sum(listed) / len(listed) if listed else None
    if options.sources[0] == "mirror" and options.mirror_url == ImagesOptions.mirror_url:
        return sum(MIRROR_MEAN_BYTES[image.subset] for image in sample) / len(sample)
    return None
