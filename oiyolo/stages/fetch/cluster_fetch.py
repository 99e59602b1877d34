"""fetch --cluster: download shards as tasks on the user's Dask cluster.

The workers fetch shards as ``fetch --shard`` does, into the project's folder, which they share with
this machine. Meanwhile this process merges their journals into the ledger, under the dataset lock.
Workers without a shared folder write to a bucket instead (``bucket_copy``).
"""

from __future__ import annotations

import contextlib
import math
import platform
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import pluralize
from oiyolo.net import cluster
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.shards import MAX_SHARDS, all_shards
from oiyolo.stages.fetch import shard_fetch

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder
    from oiyolo.project.project import Project
    from oiyolo.project.shards import Shard
    from oiyolo.stages.fetch.downloader import Tally
    from oiyolo.stages.fetch.shard_fetch import FetchedShard

_IMAGES_PER_SHARD: Final = 2_000
"""A minute or two of work: small enough to balance the workers and to repeat when one dies."""
_MERGE_EVERY_S: Final = 1.0
_LOCK_WAIT_S: Final = 60.0
"""A worker that the scheduler has given up on may still run and hold its shard's lock this long."""


@dataclass(frozen=True)
class ClusterOptions:
    """The options of a fetch on a cluster.

    Attributes:
        address: The scheduler's address.
        shards: Number of shards; ``None`` to choose it from the number of images.
        to: Bucket that the workers write to (``bucket_copy``); ``None`` for the project's folder.
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
        """Return a description for ``--dry-run``."""
        shards = f"in {pluralize(len(self.split(pending)), 'shard')} on {self.address}"
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


def run(project: Project, options: ClusterOptions, pending: int, tally: Tally) -> None:
    """Fetch all pending images on a cluster; the caller holds the dataset lock.

    Args:
        project: The project, whose folder has the same path on all workers.
        options: The cluster.
        pending: Number of pending images.
        tally: Counts to add to.

    Raises:
        UnavailableError: The cluster is or becomes unreachable, or runs a different oiyolo version;
            a site is unreachable, or the disk is full.
        UsageError: A worker does not see the project's folder.
    """
    with progress("fetch", total=pending, unit="img") as bar, _probe_file(project) as probe:

        def merge() -> None:
            bar.advance(project.merge_shards())

        try:
            results = cluster.run_tasks(
                options.address,
                _on_worker,
                ((project, part, probe) for part in options.split(pending)),
                tick_s=_MERGE_EVERY_S,
                on_tick=merge,
            )
            with contextlib.closing(results):
                for done in results:
                    _add(tally, done)
        finally:
            merge()


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


def _on_worker(stop: threading.Event, project: Project, part: Shard, probe: Path) -> FetchedShard:
    """Fetch a shard; runs on a worker."""
    if not probe.is_file():
        raise UsageError(
            "a worker does not see the project's folder",
            where=f"{platform.node()}: {project.folder}",
            expected="one folder that all machines share, under the same path",
            remedy="Move the project to a shared folder and pass its path as the workers see it; "
            "or let them write to a bucket: --to gs://bucket/prefix",
        )
    return shard_fetch.fetch_shard_unchecked(project, part, stop=stop, wait_s=_LOCK_WAIT_S)


def _add(tally: Tally, done: FetchedShard) -> None:
    tally.new += done.new
    tally.size_bytes += done.size_bytes
    tally.failed.update(done.failed)
    tally.by_source.update(done.by_source)
    tally.example = done.example or tally.example
