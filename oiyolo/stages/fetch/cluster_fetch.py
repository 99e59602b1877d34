"""fetch --cluster: download images on the user's Dask cluster.

Workers that share the project's folder fetch shards into it, as ``fetch --shard`` does. Meanwhile
this process merges their journals into the ledger, under the dataset lock.

Workers without a shared folder copy the images into the user's bucket (``--to``). Each task covers
consecutive image ids, so that one short listing shows a worker what the bucket already has: a
repeated task, of this fetch or another, copies only what is missing. ``fetch`` then downloads the
images from the bucket, and those that did not get there from the other sources.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.batches import batched
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import format_table, pluralize
from oiyolo.core.units import format_bytes
from oiyolo.net import cluster
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.shards import MAX_SHARDS, all_shards
from oiyolo.sources.registry import ledger_name
from oiyolo.stages.fetch import shard_fetch
from oiyolo.stages.fetch.downloader import Tally, Trust, download_images
from oiyolo.stages.fetch.storage_transfer import with_sources

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder
    from oiyolo.project.project import Project
    from oiyolo.project.shards import Shard
    from oiyolo.sources.image import ImageRequest
    from oiyolo.stages.fetch.shard_fetch import FetchedShard, RetriedImages

_log = logging.getLogger("oiyolo")

_IMAGES_PER_SHARD: Final = 2_000
"""A minute or two of work: small enough to balance the workers and to repeat when one dies."""
_POLL_EVERY_S: Final = 1.0
_LOCK_WAIT_S: Final = 60.0
"""A worker that the scheduler has given up on may still run and hold its shard's lock this long."""


@dataclass(frozen=True)
class ClusterOptions:
    """The options of a fetch on a cluster.

    Attributes:
        address: The scheduler's address.
        shards: Number of shards; ``None`` to choose it from the number of images.
        to: Folder in a bucket that the workers copy to; ``None`` for the project's folder.
    """

    address: str
    shards: int | None = None
    to: BucketFolder | None = None

    def split(self, pending: int) -> tuple[Shard, ...]:
        """Return the shards for ``pending`` images."""
        return all_shards(
            self.shards or min(MAX_SHARDS, max(1, math.ceil(pending / _IMAGES_PER_SHARD)))
        )

    def describe(self, pending: int) -> str:
        """Return a description for ``--dry-run``; ``pending`` is 0 if the number is unknown."""
        count = len(self.split(pending))
        shards = f"in {pluralize(count, 'shard')} on {self.address}"
        if not pending and self.shards is None:
            shards = f"in shards on {self.address}"
        return shards if self.to is None else f"after copying them to {self.to} {shards}"


def parse_options(address: str | None, shards: int | None, to: str | None) -> ClusterOptions | None:
    """Return the values of ``--cluster``, ``--shards`` and ``--to``; ``None`` without a cluster.

    Raises:
        UsageError: ``shards`` or ``to`` without an address, an invalid value, or Dask is not
            installed.
    """
    if address is None:
        if shards is not None:
            raise UsageError(
                "--shards needs --cluster",
                remedy="Pass the Dask scheduler's address with --cluster, or fetch one shard here: "
                "--shard 0/8",
            )
        if to is not None:
            raise UsageError(
                "--to needs --cluster",
                remedy="Pass the Dask scheduler's address with --cluster, or let Google copy the "
                "originals: --transfer",
            )
        return None
    if shards is not None:
        all_shards(shards)
    cluster.check(address)
    return ClusterOptions(
        address, shards, None if to is None else parse_bucket_url(to, where="--to")
    )


def run(
    project: Project,
    options: ClusterOptions,
    pending: int,
    tally: Tally,
    retried: RetriedImages | None = None,
) -> Counter[str]:
    """Fetch images on a cluster; the caller holds the dataset lock.

    No image changes its state before its outcome is known, so a kill loses no good image.

    Args:
        project: The project, whose folder has the same path on all workers.
        options: The cluster.
        pending: Number of images to fetch.
        tally: Counts to add to.
        retried: The images to fetch; ``None`` for all pending ones.

    Returns:
        Number of good images that could not be fetched again, by reason.

    Raises:
        UnavailableError: The cluster is or becomes unreachable, or runs a different oiyolo version;
            a site is unreachable, or the disk is full.
        UsageError: A worker does not see the project's folder.
    """
    kept: Counter[str] = Counter()
    with progress("fetch", total=pending, unit="img") as bar, _probe_file(project) as probe:

        def merge() -> None:
            bar.advance(project.merge_shards())

        try:
            results = cluster.run_tasks(
                options.address,
                _fetch_on_worker,
                (
                    (project, part, probe, None if retried is None else retried.of(part))
                    for part in options.split(pending)
                ),
                tick_s=_POLL_EVERY_S,
                on_tick=merge,
            )
            with contextlib.closing(results):
                for done in results:
                    _add(tally, done)
                    kept.update(done.kept)
        finally:
            merge()
    return kept


@contextlib.contextmanager
def _probe_file(project: Project) -> Iterator[Path]:
    """Create a temporary file by which a worker can check that it shares the project's folder."""
    path = project.shards_folder / f".seen-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _fetch_on_worker(
    stop: threading.Event,
    project: Project,
    part: Shard,
    probe: Path,
    retried: RetriedImages | None,
) -> FetchedShard:
    """Fetch a shard; runs on a worker."""
    if not probe.is_file():
        raise UsageError(
            "a worker does not see the project's folder",
            where=f"{platform.node()}: {project.folder}",
            expected="one folder that all machines share, under the same path",
            remedy="Move the project to a shared folder and pass its path as the workers see it; "
            "or let them write to a bucket: --to gs://bucket/prefix",
        )
    if retried is not None:
        return shard_fetch.retry_shard(project, part, retried, stop=stop, wait_s=_LOCK_WAIT_S)
    return shard_fetch.fetch_shard_unchecked(project, part, stop=stop, wait_s=_LOCK_WAIT_S)


def copy_to_bucket(
    project: Project,
    options: ClusterOptions,
    images: Iterable[ImageRequest],
    pending: int,
    trust: Trust = Trust.SOME,
) -> None:
    """Copy images into a bucket with the workers of a cluster.

    Args:
        project: The project, whose ``[images]`` options apply; the bucket itself is not used as a
            source.
        options: The cluster and the folder in the bucket.
        images: The images, in ascending order of their ids.
        pending: Number of these images.
        trust: As for ``download_images``.

    Raises:
        UnavailableError: The cluster or the bucket is or becomes unreachable, or no source is
            reachable.
        UsageError: The bucket does not exist or is not writable.
    """
    others = [source for source in project.config.images.sources if source != str(options.to)]
    worker_project = with_sources(project, others)
    images_per_task = math.ceil(pending / len(options.split(pending)))
    batches = batched(images, images_per_task)
    tasks = ((worker_project, options.to, batch, trust) for batch in batches)
    tally = Tally()
    with progress("copy", total=pending, unit="img") as bar:
        results = cluster.run_tasks(
            options.address, _copy_on_worker, tasks, tick_s=_POLL_EVERY_S, on_tick=lambda: None
        )
        with contextlib.closing(results):
            for count, done in results:
                _add(tally, done)
                bar.set_postfix(failed=tally.failed.total(), MB=f"{tally.size_bytes / 1e6:.0f}")
                bar.advance(count)
    _log.info(
        "fetch: %s (%s) copied to %s",
        pluralize(tally.new, "image"),
        format_bytes(tally.size_bytes),
        options.to,
    )
    if tally.failed:
        _log.info("fetch: not copied:\n%s", format_table(tally.failed.most_common()))


def _copy_on_worker(
    stop: threading.Event,
    project: Project,
    destination: BucketFolder,
    images: list[ImageRequest],
    trust: Trust,
) -> tuple[int, Tally]:
    """Copy one task's images; return their number and what was copied. Runs on a worker."""
    from oiyolo.sources.bucket_store import BucketStore  # noqa: PLC0415  (google's libraries are large)

    with contextlib.closing(BucketStore(destination, stop)) as store:
        present = store.existing_ids([image.image_id for image in images])
        missing = [image for image in images if image.image_id not in present]
        tally = Tally()
        with progress("copy", total=len(missing), unit="img") as bar:
            download_images(
                project,
                missing,
                on_outcomes=lambda _: None,  # an object in the bucket is the record
                progress=bar,
                store=store,
                tally=tally,
                stop=stop,
                trust=trust,
                # A task may cover just what one source lacks; the fetch from the bucket judges.
                known=[ledger_name(s, project.folder) for s in project.config.images.sources],
            )
    return len(images), tally


def _add(tally: Tally, done: FetchedShard | Tally) -> None:
    tally.new += done.new
    tally.size_bytes += done.size_bytes
    tally.failed.update(done.failed)
    tally.by_source.update(done.by_source)
    tally.example = done.example or tally.example
