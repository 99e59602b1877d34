"""fetch --cluster: the shards of a fetch as tasks on a Dask cluster that the user has.

The workers fetch shards as ``fetch --shard`` does, into the project's folder, which they share with
this machine. Here their journals are merged into the ledger all along, under the dataset's lock.
Without such a folder they write to a bucket: ``fetch_copy``.
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
from oiyolo.core.results import count
from oiyolo.net import cluster
from oiyolo.net.buckets import bucket_place
from oiyolo.project.shards import MOST, all_shards
from oiyolo.stages.fetch import shard_fetch

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.net.buckets import BucketPlace
    from oiyolo.project.project import Project
    from oiyolo.project.shards import Shard
    from oiyolo.stages.fetch.downloader import Tally
    from oiyolo.stages.fetch.shard_fetch import FetchedShard

_IMAGES_A_SHARD: Final = 2_000
"""So much is a minute's work or two: what a worker's death delays, and what balances the others."""
_MERGE_EVERY_S: Final = 1.0
_LOCK_WAIT_S: Final = 60.0
"""A worker that the scheduler gave up may be alive, and take so long to notice."""


@dataclass(frozen=True)
class Spread:
    """Where a fetch is spread over.

    Attributes:
        address: The scheduler's address.
        shards: How many parts to make; ``None`` for parts of a good size.
        to: A bucket that the workers write to (``fetch_copy``); ``None`` for the project's folder.
    """

    address: str
    shards: int | None = None
    to: BucketPlace | None = None

    def parts(self, pending: int) -> tuple[Shard, ...]:
        """Give the parts that so many images are divided into."""
        return all_shards(self.shards or min(MOST, max(1, math.ceil(pending / _IMAGES_A_SHARD))))

    def told(self, pending: int) -> str:
        """Say it, for ``--dry-run``."""
        parts = f"in {count(len(self.parts(pending)), 'shard')} on {self.address}"
        return parts if self.to is None else f"copied to {self.to} before, {parts}"


def spread(address: str | None, shards: int | None, to: str | None) -> Spread | None:
    """Read ``--cluster``, ``--shards`` and ``--to``; ``None`` where they are not given.

    Raises:
        UsageError: They are of no use, or Dask is not installed.
    """
    if address is None:
        if shards is not None:
            raise UsageError(
                "--shards is of use with --cluster only",
                remedy="Name the Dask scheduler, or give one shard: --shard 0/8",
            )
        if to is not None:
            raise UsageError(
                "--to is of use with --cluster only",
                remedy="Name the Dask scheduler, or let Google copy the originals: --transfer",
            )
        return None
    if shards is not None:
        all_shards(shards)
    cluster.check(address)
    return Spread(address, shards, None if to is None else bucket_place(to, where="--to"))


def run(project: Project, spread: Spread, pending: int, tally: Tally) -> None:
    """Fetch all that is pending on a cluster, under the dataset lock that the caller holds.

    Args:
        project: Its folder has the same path on all workers.
        spread: The cluster.
        pending: How many images are to be fetched.
        tally: Is counted in.

    Raises:
        UnavailableError: The cluster cannot be reached, has other versions, or goes away; what
            fetching raises.
        UsageError: The workers do not see the project's folder.
    """
    with progress("fetch", total=pending, unit="img") as told, _beacon(project) as beacon:

        def merge() -> None:
            told.advance(project.merge_shards())

        try:
            results = cluster.work_all(
                spread.address,
                _on_worker,
                ((project, part, beacon) for part in spread.parts(pending)),
                every_s=_MERGE_EVERY_S,
                meanwhile=merge,
            )
            with contextlib.closing(results):
                for done in results:
                    _add(tally, done)
        finally:
            merge()


@contextlib.contextmanager
def _beacon(project: Project) -> Iterator[Path]:
    """Put a file up that only those see who share the folder."""
    path = project.shards_folder / f".seen-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _on_worker(stop: threading.Event, project: Project, part: Shard, beacon: Path) -> FetchedShard:
    """Fetch a shard; called on a worker."""
    if not beacon.is_file():
        raise UsageError(
            "a worker does not see the project's folder",
            where=f"{platform.node()}: {project.folder}",
            expected="one folder that all machines share, under the same path",
            remedy="Put the project on a shared folder, and name it as the workers do; or let them "
            "write to a bucket: --to gs://bucket/prefix",
        )
    return shard_fetch.work_on(project, part, stop=stop, wait_s=_LOCK_WAIT_S)


def _add(tally: Tally, done: FetchedShard) -> None:
    tally.new += done.new
    tally.size_bytes += done.size_bytes
    tally.failed.update(done.failed)
    tally.by_source.update(done.by_source)
    tally.example = done.example or tally.example
