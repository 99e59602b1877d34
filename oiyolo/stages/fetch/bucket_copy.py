"""fetch --cluster --to: workers without a shared folder copy the images into the user's bucket.

Each task is some of the images that are to be fetched, in order of their ids, so that a worker
learns by one short listing what the bucket has already: a task that is done once more, here or in
another run, copies only what is missing. ``fetch`` takes the images from the bucket then, and what
did not get there from the other sources.
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
from oiyolo.core.results import columns, count
from oiyolo.net import cluster
from oiyolo.stages.fetch.downloader import Tally, fetch_many

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    from oiyolo.net.buckets import BucketPlace
    from oiyolo.project.project import Project
    from oiyolo.sources.image import WantedImage
    from oiyolo.stages.fetch.cluster_fetch import Spread

_log = logging.getLogger("oiyolo")

_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class _Copied:
    """What one task did.

    Attributes:
        images: How many it was to copy.
        new: How many it copied; the bucket had others already.
        size_bytes: Their bytes.
        failed: Reasons of those that no source had.
    """

    images: int
    new: int = 0
    size_bytes: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)


def run(
    project: Project,
    spread: Spread,
    place: BucketPlace,
    wanted: Iterable[WantedImage],
    pending: int,
) -> None:
    """Copy images into a bucket.

    Args:
        project: Its ``[images]`` options count; the bucket is no source here.
        spread: The cluster.
        place: Where they go.
        wanted: The images, in order of their ids.
        pending: How many these are.

    Raises:
        UnavailableError: The cluster or the bucket cannot be reached or goes away; what fetching
            raises.
        UsageError: There is no such bucket, or it must not be written.
    """
    images = project.config.images
    others = tuple(source for source in images.sources if source != str(place))
    config = dataclasses.replace(project.config, images=dataclasses.replace(images, sources=others))
    asking = dataclasses.replace(project, config=config)
    a_task = math.ceil(pending / len(spread.parts(pending)))
    tasks = ((asking, place, some) for some in _batches(wanted, a_task))
    new, size_bytes, failed = 0, 0, Counter[str]()
    with progress("copy", total=pending, unit="img") as told:
        results = cluster.work_all(
            spread.address, _on_worker, tasks, every_s=_LOOK_EVERY_S, meanwhile=_nothing
        )
        with contextlib.closing(results):
            for done in results:
                new += done.new
                size_bytes += done.size_bytes
                failed.update(done.failed)
                told.tell(failed=failed.total(), MB=f"{size_bytes / 1e6:.0f}")
                told.advance(done.images)
    _log.info("fetch: %s (%.1f MB) copied to %s", count(new, "image"), size_bytes / 1e6, place)
    if failed:
        _log.info("fetch: not copied:\n%s", columns(failed.most_common()))


def _nothing() -> None:
    """The caller has nothing to do meanwhile: the bucket is all the books there are."""


def _batches(wanted: Iterable[WantedImage], size: int) -> Iterator[list[WantedImage]]:
    left = iter(wanted)
    while some := list(itertools.islice(left, size)):
        yield some


def _on_worker(
    stop: threading.Event, project: Project, place: BucketPlace, images: list[WantedImage]
) -> _Copied:
    """Copy some images; called on a worker."""
    from oiyolo.sources.bucket_store import BucketStore  # noqa: PLC0415  (google's libraries)

    with contextlib.closing(BucketStore(place, stop)) as store:
        here = store.here([image.image_id for image in images])
        left = [image for image in images if image.image_id not in here]
        tally = Tally()
        with progress("copy", total=len(left), unit="img") as told:
            fetch_many(
                project,
                left,
                on_outcomes=_no_books,
                told=told,
                store=store,
                tally=tally,
                stop=stop,
            )
    return _Copied(len(images), tally.new, tally.size_bytes, dict(tally.failed))


def _no_books(_: object) -> None:
    """An object in the bucket tells that it came."""
