"""fetch: download and verify every selected image, or exclude it with a reason.

Writes ``data/images/<ImageID>.jpg``, byte for byte as served, and each image's state in the ledger.
An image that failed permanently (404, a placeholder, a broken file) is excluded; one that failed
temporarily (a connection error, a 503) stays pending, and the next fetch tries it again.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.batches import batched
from oiyolo.core.disks import check_free_space
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, pluralize
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.keys import ImagesOptions
from oiyolo.project.keywords import takes_keys
from oiyolo.project.ledger import (
    EXCLUDED,
    FETCHED,
    PENDING,
    STATES,
    WITHDRAWN,
    Change,
    kept_message,
)
from oiyolo.project.project import open_project
from oiyolo.sources.image import NoImagesError
from oiyolo.sources.store import FolderStore
from oiyolo.sources.web import MIRROR_MEAN_BYTES
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch import cluster_fetch, shard_fetch, storage_transfer
from oiyolo.stages.fetch.downloader import (
    MIN_FREE_BYTES,
    Tally,
    Trust,
    download_images,
    is_on_network,
)
from oiyolo.stages.fetch.outcomes import (
    NOT_TRIED,
    FetchResult,
    change_of,
    check_tolerance,
    recorded_bytes,
)
from oiyolo.stages.fetch.pending import ImageFolderIndex, pending_images
from oiyolo.stages.fetch.source_monitor import known_sources
from oiyolo.stages.fetch.stats import FetchStats, StatsWriter, read_stats
from oiyolo.stages.fetch.storage_transfer import with_bucket_first

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    "is_on_network",
    "read_stats",
    "run",
]

_log = logging.getLogger("oiyolo")

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
        kept: Number of images that were to be fetched again and were kept instead, by reason.
        limit_note: How many more images there are than ``[dataset] limit``; empty if none.
    """

    folder: Path
    counts: Counts
    kept: Mapping[str, int] = field(default_factory=dict)
    limit_note: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {**super().as_dict(), **self.counts.as_dict()}

    def __str__(self) -> str:
        selected = self.counts.selected - self.counts.excluded.get(WITHDRAWN, 0)
        have = selected - sum(self.missing.values())
        lines = [f"fetched: nothing to do; {have:,} of {selected:,} images are present"]
        if self.new or self.failed:
            rate = self.new / self.seconds if self.seconds else 0.0
            total = f"{have:,} of {selected:,} are present"
            images = pluralize(self.new, "image")
            lines = [f"fetched {images} ({self._size_and_time}, {rate:,.0f} images/s); {total}"]
            if thumbnails := self.by_source.get("thumbnail"):
                lines.append(f"{thumbnails:,} of them are thumbnails of about 300,000 pixels")
        lines += [self.limit_note] if self.limit_note else []
        lines += [f"kept, not fetched again: {n:,} {why}" for why, n in self.kept.items()]
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
            every image again. An image that was good and cannot be downloaded again stays as it is.
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
        return preview(opened, retry=retry, transfer=transfer, cluster_options=cluster_options)
    with opened.data_lock(STAGE):
        select_stage.run(opened)
        if transfer is not None and _count_to_fetch(opened, None, retry):
            storage_transfer.run(opened, transfer, again=retry is not None)
        try:
            return run(opened, retry=retry, cluster_options=cluster_options)
        except NoImagesError:
            opened.discard_if_new()  # do not leave a new project with a misspelt source
            raise


def preview(
    project: Project,
    *,
    retry: str | None = None,
    transfer: str | None = None,
    cluster_options: ClusterOptions | None = None,
    guard: select_stage.Guard | None = None,
    needs_site: bool = False,
    selected: select_stage.SelectPreview | None = None,
) -> Plan:
    """Return what ``fetch`` would do, after what select would do.

    Args:
        project: The project.
        retry: As for ``fetch``.
        transfer: As for ``fetch``.
        cluster_options: As for ``run``.
        guard: As for ``select.run``.
        needs_site: As for ``select.run``.
        selected: What select would do, if the site was already asked.

    Raises:
        OiyoloError: As ``select.run`` would raise.
    """
    if selected is None:
        selected = select_stage.preview(project, guard=guard, needs_site=needs_site)
    is_unknown = bool(selected.actions) and selected.ids is None
    count = 0 if is_unknown else _count_to_fetch(project, selected.ids, retry)
    facts = {} if is_unknown else {"pending": count}
    actions = []
    if transfer is not None and (count or is_unknown):
        again = retry is not None
        selects = bool(selected.actions) and not _is_current(project, selected.ids)
        actions += storage_transfer.planned_actions(project, transfer, again=again, selects=selects)
    if count or is_unknown:
        images = "the new images" if is_unknown else pluralize(count, "image")
        on = "" if cluster_options is None else f", {cluster_options.describe(count)}"
        sources = [*(project.config.images.sources if project.uses_open_images else ())]
        sources += [f"the import {name}" for name in project.imports()]
        actions.append(f"fetch {images} from {', '.join(sources)}{on}")
    return Plan("fetch", [*selected.actions, *actions], facts)


def _is_current(project: Project, ids: Sequence[str] | None) -> bool:
    """Return whether the project's selection has just these images."""
    try:
        current = select_stage.find(project)
        return current is not None and current.images["ImageID"].tolist() == ids
    except InputFormError:  # damaged, so it would be written again
        return False


def _count_to_fetch(project: Project, selection: Sequence[str] | None, retry: str | None) -> int:
    """Return how many images a fetch would download.

    Args:
        project: The project.
        selection: Ids of a new selection; ``None`` for the current one.
        retry: As for ``fetch``.
    """
    if not project.ledger_path.is_file():
        return len(selection or ())
    with project.ledger(read_only=True) as ledger:
        lost = prepare_stage.lost_ids(project, ledger)
        repairs = {change.image_id: change.state for change in _repairs(project, ledger, lost)}
        wanted = set(_Wanted.of(ledger, retry).ids())
        if selection is not None:
            wanted = (wanted & set(selection)) | ledger.unfetched(selection)
    selected = repairs.keys() if selection is None else repairs.keys() & set(selection)
    wanted |= {i for i in selected if repairs[i] == PENDING}
    return len(wanted - {i for i in selected if repairs[i] == FETCHED and retry != "all"})


def run(
    project: Project,
    *,
    retry: str | None = None,
    cluster_options: ClusterOptions | None = None,
    again: Sequence[str] = (),
) -> Fetched:
    """Fetch the pending images on this machine or on a cluster; the caller holds the dataset lock.

    Args:
        project: The project, whose selection is up to date.
        retry: As for ``fetch``.
        cluster_options: The cluster to fetch on; ``None`` for this machine.
        again: Ids of images that failed, in ascending order; they are tried after the others, so
            that their failures say nothing about the sources.

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
        lost = prepare_stage.lost_ids(project, ledger)
        _record(ledger, _repairs(project, ledger, lost))
        _log_lost(lost)
        wanted = _Wanted.of(ledger, retry)
        if wanted.count:
            if cluster_options is not None and cluster_options.to is None:
                kept = cluster_fetch.run(
                    project, cluster_options, wanted.count, tally, wanted.of_shards()
                )
                wanted.kept.update(kept)
            else:
                if cluster_options is not None and cluster_options.to is not None:
                    images = pending_images(selection, wanted.ids())
                    cluster_fetch.copy_to_bucket(
                        project, cluster_options, images, wanted.count, wanted.trust_of_part()
                    )
                _fetch_wanted(project, wanted, selection, store, tally)
        if again:
            _fetch_wanted(project, _Wanted(ledger, len(again), again), selection, store, tally)
        counts, missing = ledger.counts(), ledger.missing(STAGE)
    done = Fetched(
        folder=project.images_folder,
        missing={why or NOT_TRIED: n for why, n in missing.items()},
        counts=counts,
        kept=dict(wanted.kept.most_common()),
        limit_note=selection.limit_note,
        seconds=time.monotonic() - started_s,
        **tally.as_fields(),
    )
    check_tolerance(project, done.missing, done.counts.selected, tally.example)
    return done


@dataclass(frozen=True)
class _Wanted:
    """The images that a fetch downloads.

    Attributes:
        ledger: The ledger.
        count: Number of images.
        retried: Ids of all these images, in ascending order, if some are retried.
        good: State of those among ``retried`` that have a file.
        kept: Number of good images that could not be fetched again, by reason; updated.
    """

    ledger: Ledger
    count: int
    retried: Sequence[str] = ()
    good: Mapping[str, str] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, ledger: Ledger, retry: str | None) -> _Wanted:
        """Return the pending images, and those that ``retry`` names."""
        good: dict[str, str] = {}
        failed: list[str] = []
        if retry == "all":
            good = {i: str(state) for i, state in ledger.column("state", *STATES[1:]).items()}
            failed = sorted({*ledger.ids(EXCLUDED)} - ledger.withdrawn_ids())
        elif retry == "failed":
            failed = [i for stage in (STAGE, "prepare") for i in ledger.ids(EXCLUDED, stage=stage)]
        if not failed and not good:
            return cls(ledger, ledger.counts().states[PENDING])
        retried = sorted([*ledger.ids(PENDING), *failed, *good])
        return cls(ledger, len(retried), retried, good)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all images in ascending order."""
        # The list is not read while it changes: a retried image may become pending.
        return iter(self.retried) if self.retried else self.ledger.iter_ids(PENDING)

    def trust(self, known: Collection[str]) -> Trust:
        """Return what it means that the sources lack the first images.

        Args:
            known: Names of the sources that are known to have some of the project's images.
        """
        if self.retried:
            return Trust.NONE if self._are_mostly_good else Trust.FULL
        return Trust.SOME if known else Trust.NONE

    def change_of(self, outcome: Outcome) -> Change:
        """Return the ledger entry for an outcome; a good image keeps its state if it failed."""
        change = change_of(outcome)
        is_kept = outcome.source is None and outcome.image_id in self.good
        return self._kept(change) if is_kept else change

    def of_shards(self) -> shard_fetch.RetriedImages | None:
        """Return the retried images as shards need them; ``None`` if none is retried."""
        if not self.retried:
            return None
        return shard_fetch.RetriedImages(self.retried, frozenset(self.good), self.trust_of_part())

    def trust_of_part(self) -> Trust:
        """Return what it means that the sources lack the first images of a part of all."""
        return Trust.FULL if self.retried and not self._are_mostly_good else Trust.SOME

    @property
    def _are_mostly_good(self) -> bool:
        return len(self.good) > self.count // 2

    def _kept(self, failure: Change) -> Change:
        """Return the entry for a good image that cannot be fetched again."""
        self.kept[failure.reason] += 1
        state, message = self.good[failure.image_id], kept_message(failure.message)
        return Change(failure.image_id, state, message, attempts=failure.attempts)


def _fetch_wanted(
    project: Project, wanted: _Wanted, selection: Selection, store: FolderStore, tally: Tally
) -> None:
    """Download all wanted images on this machine."""
    known = known_sources(project, wanted.ledger)
    requests = _with_expected_md5(project, pending_images(selection, wanted.ids()))
    images = _check_room(project, requests, wanted.count)
    total = wanted.count
    with progress("fetch", total=total, unit="img") as bar, StatsWriter(project, tally) as stats:

        def record(outcomes: Sequence[Outcome]) -> None:
            wanted.ledger.record(STAGE, [wanted.change_of(outcome) for outcome in outcomes])
            stats.write_if_due()

        download_images(
            project,
            images,
            on_outcomes=record,
            progress=bar,
            store=store,
            tally=tally,
            trust=wanted.trust(known),
            known=known,
        )


def _with_expected_md5(project: Project, images: Iterator[ImageRequest]) -> Iterator[ImageRequest]:
    """Return the images, in a frozen dataset with the MD5 that their files must have."""
    if project.frozen is None:
        return images
    expected = project.frozen.md5_by_id
    return (replace(image, expected_md5=expected.get(image.image_id, "")) for image in images)


def _repairs(project: Project, ledger: Ledger, lost: Sequence[str]) -> Iterator[Change]:
    """Yield the changes that make the ledger agree with the files.

    Images whose file is missing become pending again. An image that ``prepare`` left pending is not
    downloaded again if its file is intact.

    Args:
        project: The project.
        ledger: The ledger.
        lost: Ids of prepared images whose file or label is missing.
    """
    postponed_ids = ledger.ids(PENDING, stage=prepare_stage.STAGE)
    # Usually empty; the column of all pending images can be large.
    md5_by_id = ledger.column("md5", PENDING) if postponed_ids else {}
    for image_id in postponed_ids:
        if _has_content(project.images_folder / f"{image_id}.jpg", str(md5_by_id[image_id])):
            yield Change(image_id, FETCHED, "its file is intact")
    if not lost and not ledger.counts().states[FETCHED]:
        return
    index = ImageFolderIndex(project.images_folder)
    # What prepare cannot repair. A lost image keeps its split.
    message = "its prepared image or label is lost, and its original is missing"
    yield from (Change(i, PENDING, message) for i in index.missing(lost))
    for image_id in index.missing(ledger.iter_ids(FETCHED)):
        yield Change(image_id, PENDING, "its file is missing")


def _log_lost(lost: Sequence[str]) -> None:
    if lost:
        _log.info(
            "fetch: %s lost the prepared file or its label; `oiyolo split` prepares them again",
            pluralize(len(lost), "image"),
        )


def _has_content(path: Path, md5: str) -> bool:
    """Return whether a file can be read and has a digest."""
    try:
        return files.digest_of(path, "md5") == md5
    except OSError:
        return False


def _record(ledger: Ledger, changes: Iterable[Change]) -> None:
    for batch in batched(changes, _CHANGES_PER_TRANSACTION):
        ledger.record(STAGE, batch)


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
    is_imported = all(image.import_name and not image.is_copy for image in sample)
    if is_imported or options.sources[0] == "original":
        sizes = [image.original_size_bytes for image in sample]
        listed = [size for size in sizes if size is not None]
        return sum(listed) / len(listed) if listed else None
    if options.sources[0] == "mirror" and options.mirror_url == ImagesOptions.mirror_url:
        return sum(map(_expected_bytes, sample)) / len(sample)
    return None


def _expected_bytes(image: ImageRequest) -> float:
    """Return the size of an imported file, or the mean size of the mirror's copies."""
    if image.import_name and not image.is_copy:
        return image.original_size_bytes or 0.0
    return MIRROR_MEAN_BYTES[image.subset]
