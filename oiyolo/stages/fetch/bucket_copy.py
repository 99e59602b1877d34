"""fetch --cluster --to: workers without a shared folder copy the images into the user's bucket.

Each task covers consecutive image ids, so that one short listing shows a worker what the bucket
already has. A repeated task, of this fetch or another, copies only what is missing. ``fetch`` then
downloads the images from the bucket, and those that did not get there from the other sources.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oiyolo.core.progress import progress
from oiyolo.core.results import format_table, pluralize
from oiyolo.net import cluster
from oiyolo.stages.fetch.downloader import Tally, download_images

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    from oiyolo.net.buckets import BucketFolder
    from oiyolo.project.project import Project
    from oiyolo.sources.image import ImageRequest
    from oiyolo.stages.fetch.cluster_fetch import ClusterOptions

_log = logging.getLogger("oiyolo")

_POLL_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class _CopyResult:
    """The outcome of one task.

    Attributes:
        images: Number of images in the task.
        new: Number of images copied; the bucket may have had others already.
        size_bytes: Total size of the copied images.
        failed: Number of images that no source had, by reason.
    """

    images: int
    new: int = 0
    size_bytes: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)


def run(
    project: Project,
    options: ClusterOptions,
    destination: BucketFolder,
    images: Iterable[ImageRequest],
    pending: int,
) -> None:
    """Copy images into a bucket with the workers of a cluster.

    Args:
        project: The project, whose ``[images]`` options apply; the bucket itself is not used as a
            source.
        options: The cluster.
        destination: The folder in the bucket.
        images: The images, in ascending order of their ids.
        pending: Number of these images.

    Raises:
        UnavailableError: The cluster or the bucket is or becomes unreachable, or no source is
            reachable.
        UsageError: The bucket does not exist or is not writable.
    """
    image_options = project.config.images
    others = tuple(source for source in image_options.sources if source != str(destination))
    config = dataclasses.replace(
        project.config, images=dataclasses.replace(image_options, sources=others)
    )
    worker_project = dataclasses.replace(project, config=config)
    images_per_task = math.ceil(pending / len(options.split(pending)))
    tasks = ((worker_project, destination, batch) for batch in _batches(images, images_per_task))
    new, size_bytes, failed = 0, 0, Counter[str]()
    with progress("copy", total=pending, unit="img") as bar:
        results = cluster.run_tasks(
            options.address, _on_worker, tasks, tick_s=_POLL_EVERY_S, on_tick=_do_nothing
        )
        with contextlib.closing(results):
            for done in results:
                new += done.new
                size_bytes += done.size_bytes
                failed.update(done.failed)
                bar.set_postfix(failed=failed.total(), MB=f"{size_bytes / 1e6:.0f}")
                bar.advance(done.images)
    _log.info(
        "fetch: %s (%.1f MB) copied to %s", pluralize(new, "image"), size_bytes / 1e6, destination
    )
    if failed:
        _log.info("fetch: not copied:\n%s", format_table(failed.most_common()))


def _do_nothing() -> None:
    """Do nothing while waiting: the bucket itself records what was copied."""


def _batches(images: Iterable[ImageRequest], size: int) -> Iterator[list[ImageRequest]]:
    remaining = iter(images)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _on_worker(
    stop: threading.Event, project: Project, destination: BucketFolder, images: list[ImageRequest]
) -> _CopyResult:
    """Copy one task's images; runs on a worker."""
    from oiyolo.sources.bucket_store import BucketStore  # noqa: PLC0415  (google's libraries are large)

    with contextlib.closing(BucketStore(destination, stop)) as store:
        present = store.existing_ids([image.image_id for image in images])
        missing = [image for image in images if image.image_id not in present]
        tally = Tally()
        with progress("copy", total=len(missing), unit="img") as bar:
            download_images(
                project,
                missing,
                on_outcomes=_ignore,
                progress=bar,
                store=store,
                tally=tally,
                stop=stop,
            )
    return _CopyResult(len(images), tally.new, tally.size_bytes, dict(tally.failed))


def _ignore(_: object) -> None:
    """Record nothing: an object in the bucket is the record."""
