"""Forecast a run from the selection, the sources, earlier downloads and runs, and the disks."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import pluralize
from oiyolo.net.buckets import is_bucket
from oiyolo.openimages.cache import Cache
from oiyolo.planning import estimates
from oiyolo.planning.disks import device, free_bytes, used_bytes
from oiyolo.planning.estimates import Photo, SourceInfo
from oiyolo.planning.run_plan import (
    DiskEstimate,
    FetchEstimate,
    Price,
    RateEstimate,
    RunPlan,
    SourceEstimate,
)
from oiyolo.planning.training import plan_training
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.planning.training import TrainingForecast
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

_MIN_SAMPLE: Final = 20
"""From this many fetched images on, the project's own figures replace the published ones."""


@dataclass(frozen=True)
class UserEstimates:
    """The user's own estimates, which take precedence over measurements.

    Attributes:
        bandwidth_mb_s: Bandwidth in megabytes (10^6 bytes) per second.
        seconds_per_iteration: Duration of a training iteration.
        price_per_hour: Price of the machine.
        currency: Currency of the price.
    """

    bandwidth_mb_s: float | None = None
    seconds_per_iteration: float | None = None
    price_per_hour: float | None = None
    currency: str | None = None

    def check(self) -> None:
        """Raise if a value is invalid.

        Raises:
            UsageError: A value that is not a finite positive number (a price may be 0), or a
                currency without a price.
        """
        for name in ("bandwidth_mb_s", "seconds_per_iteration", "price_per_hour"):
            value = getattr(self, name)
            is_free = name == "price_per_hour" and value == 0
            if value is not None and not (_is_number(value) and (value > 0 or is_free)):
                raise UsageError(
                    f"invalid value for --{name.replace('_', '-')}",
                    expected="a number above 0",
                    found=repr(value),
                )
        if self.currency is not None and self.price_per_hour is None:
            raise UsageError("--currency needs a price", remedy="Pass --price-per-hour as well")

    @property
    def price(self) -> Price | None:
        """Price of the machine; ``None`` if unknown."""
        if self.price_per_hour is None:
            return None
        return Price(self.price_per_hour, self.currency or "")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class _ImageStatus:
    """The current state of the selected images.

    Attributes:
        photos: Selected images that are not excluded.
        pending: Those of ``photos`` that are still to be fetched.
        fetched: Number of images that are fetched and not yet prepared.
        source_and_bytes: Source and size of each downloaded image.
        attempted: Number of images that were downloaded or excluded by a fetch.
        train: Number of training images; 0 until all images are split.
    """

    photos: Sequence[Photo]
    pending: Sequence[Photo]
    fetched: int
    source_and_bytes: Sequence[tuple[str, int]]
    attempted: int
    train: int

    @property
    def mirror_mean_bytes(self) -> float | None:
        """Mean size of images from the mirror; ``None`` if there are too few."""
        sizes = self._sizes_from(estimates.MIRROR)
        return sum(sizes) / len(sizes) if len(sizes) >= _MIN_SAMPLE else None

    def missing_share(self, sources: Sequence[str]) -> float | None:
        """Return the share of missing originals; ``None`` if too few were tried first."""
        if sources[0] != estimates.ORIGINAL or self.attempted < _MIN_SAMPLE:
            return None
        return 1.0 - len(self._sizes_from(estimates.ORIGINAL)) / self.attempted

    def _sizes_from(self, source: str) -> list[int]:
        return [size for name, size in self.source_and_bytes if name == source]


def _image_status(project: Project, selection: Selection) -> _ImageStatus:
    with project.ledger(read_only=True) as ledger:
        state_of = ledger.column("state")
        source_of, bytes_of = ledger.column("source"), ledger.column("bytes")
        excluded = len(ledger.ids(EXCLUDED, stage=fetch_stage.STAGE))
        states = ledger.counts().states
    photos = [p for p in _photos(selection) if state_of.get(p.image_id) != EXCLUDED]
    pending = [p for p in photos if state_of.get(p.image_id, PENDING) == PENDING]
    pending_ids = {photo.image_id for photo in pending}
    fetched = [
        (str(source_of[p.image_id]), int(str(bytes_of[p.image_id])))
        for p in photos
        if p.image_id not in pending_ids and bytes_of[p.image_id] is not None
    ]
    unsplit = sum(states[name] for name in (PENDING, FETCHED, PREPARED))
    return _ImageStatus(
        photos=photos,
        pending=pending,
        fetched=states[FETCHED],
        source_and_bytes=fetched,
        attempted=len(fetched) + excluded,
        train=0 if unsplit else states["train"],
    )


def _photos(selection: Selection) -> Iterator[Photo]:
    columns = (selection.images[name] for name in ("ImageID", "Subset", "OriginalSize"))
    for image_id, subset, size in zip(*columns, strict=True):
        yield Photo(str(image_id), str(subset), int(size) if str(size).isdigit() else None)


def forecast(project: Project, user: UserEstimates) -> RunPlan:
    """Return the plan of a run with the current selection, without changing anything.

    Args:
        project: The project, which has a selection.
        user: The user's own estimates.

    Raises:
        UsageError: The project has no selection, or an unknown network.
        InputFormError: The selection or the network file is damaged.
    """
    selection = select_stage.load(project)
    status = _image_status(project, selection)
    fetching, fetched = _fetch_estimate(project, status, user.bandwidth_mb_s)
    pending = fetching.planned.pending
    train_share = project.config.split.train
    training = plan_training(
        project,
        class_count=len(selection.class_names),
        image_count=status.train or max(1, round(fetching.planned.total.images * train_share)),
        is_new=bool(status.pending or status.fetched),
        user_rate_s=user.seconds_per_iteration,
    )
    images = project.config.images
    mean_bytes = (pending + fetched).disk_bytes / max(1.0, (pending + fetched).images)
    prepared = estimates.prepared_bytes(images.size, images.fit, mean_bytes)
    table_bytes = float((selection.folder / "boxes.csv").stat().st_size)
    to_prepare = pending.images + status.fetched
    dataset = estimates.dataset_bytes(to_prepare, prepared, table_bytes if to_prepare else 0.0)
    dataset_total = estimates.dataset_bytes(len(status.photos), prepared, table_bytes)
    final = (
        sum(dataset_total.values())
        + sum(training.all_parts.values())
        + used_bytes(selection.folder)
    )
    final += (pending + fetched).disk_bytes if images.keep_originals else 0.0
    return RunPlan(
        at=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        selection=selection.fingerprint,
        classes=selection.class_names,
        images=len(status.photos),
        pending=len(status.pending),
        boxes=int(selection.summary["boxes"]),
        fetching=fetching,
        disks=_disks(project, pending.disk_bytes, dataset, training),
        final_bytes=final,
        training=training.training,
        price=user.price,
    )


def _fetch_estimate(
    project: Project, status: _ImageStatus, bandwidth_mb_s: float | None
) -> tuple[FetchEstimate, estimates.Amount]:
    """Return the estimate for the fetch, and the amount that is already fetched."""
    sources = project.config.images.sources
    own_mean, own_share = status.mirror_mean_bytes, status.missing_share(sources)
    info = SourceInfo(folders=_folder_sizes(project, status.photos))
    if own_mean is not None:
        means = dict.fromkeys(info.mirror_mean_bytes, own_mean)
        info = SourceInfo(means, info.missing_share, info.folders)
    if own_share is not None:
        info = SourceInfo(info.mirror_mean_bytes, own_share, info.folders)
    mirror_basis = "estimated from " + (
        "the images fetched so far" if own_mean else "the published totals"
    )
    by_source = {}
    for source in sources:
        total = estimates.amount_from(source, status.photos, info)
        basis = {
            estimates.MIRROR: mirror_basis,
            estimates.ORIGINAL: "as listed, if none is missing",
            estimates.THUMBNAIL: "estimated from the mirror's copies, if all are usable",
        }.get(source, f"has {pluralize(int(total.images), 'image')} of the selection")
        if is_bucket(source):
            basis = "if it has all of them, as large as the mirror's copies"
        pending = estimates.amount_from(source, status.pending, info)
        by_source[source] = SourceEstimate(source, total, pending, basis)
    pending = estimates.amount_from_first(sources, status.pending, info)
    network_sizes = [n for name, n in status.source_and_bytes if not Path(name).is_absolute()]
    fetched_bytes = sum(size for _, size in status.source_and_bytes)
    fetched_count = len(status.source_and_bytes)
    fetched = estimates.Amount(
        fetched_count, sum(network_sizes), estimates.on_disk(fetched_bytes, fetched_count)
    )
    basis = "estimated" if status.pending else "all fetched"
    if estimates.ORIGINAL in sources and sources.index(estimates.ORIGINAL) == 0:
        basis += f"; {info.missing_share:.1%} of originals are expected to be missing"
    planned = SourceEstimate(", then ".join(sources), pending + fetched, pending, basis)
    return FetchEstimate(planned, by_source, _bandwidth(project, bandwidth_mb_s)), fetched


def _folder_sizes(project: Project, photos: Sequence[Photo]) -> dict[str, Mapping[str, int]]:
    """Return the sizes of the selected images' files in the configured folders."""
    sizes: dict[str, Mapping[str, int]] = {}
    for source in project.config.images.sources:
        remote_names = {estimates.MIRROR, estimates.ORIGINAL, estimates.THUMBNAIL}
        if source not in remote_names and not is_bucket(source):
            folder = project.folder / Path(source).expanduser()
            sizes[source] = dict(_file_sizes(folder, photos))
    return sizes


def _file_sizes(folder: Path, photos: Sequence[Photo]) -> Iterator[tuple[str, int]]:
    for photo in photos:
        with contextlib.suppress(OSError):
            yield photo.image_id, (folder / f"{photo.image_id}.jpg").stat().st_size


def _bandwidth(project: Project, user_mb_s: float | None) -> RateEstimate:
    if user_mb_s is not None:
        return RateEstimate(user_mb_s * 1e6, "as given")
    stats = fetch_stage.read_stats(project)
    if stats.images >= _MIN_SAMPLE and stats.bandwidth_bytes_s:
        return RateEstimate(stats.bandwidth_bytes_s, "measured on this project's images")
    base_url = project.config.openimages.base_url
    with contextlib.closing(Cache(project.cache_folder, base_url)) as cache:
        measured = cache.bandwidth_bytes_s()
    if measured:
        return RateEstimate(
            measured, "measured on the last official file; many small files are slower"
        )
    return RateEstimate(None, "unknown bandwidth; set it with --bandwidth-mb-s")


def _disks(
    project: Project,
    images_bytes: float,
    dataset: Mapping[str, float],
    training: TrainingForecast,
) -> list[DiskEstimate]:
    """Return an estimate for each file system; the cache may share the project's."""
    needed = estimates.peak_bytes(
        images_bytes,
        sum(dataset.values()),
        sum(training.new_parts.values()),
        keep_originals=project.config.images.keep_originals,
    )
    is_kept = project.config.images.keep_originals
    images_label = "images" if is_kept else "images, until they are prepared"
    parts = {images_label: images_bytes, **dataset, **training.new_parts}
    cached = {f"pretrained {name}": size for name, size in training.cached_parts.items()}
    if device(project.folder) == device(project.cache_folder):
        return [_disk(project.folder, parts | cached, needed + sum(cached.values()))]
    disks = [_disk(project.folder, parts, needed)]
    if cached:
        disks.append(_disk(project.cache_folder, cached, sum(cached.values())))
    return disks


def _disk(folder: Path, parts: Mapping[str, float], needed_bytes: float) -> DiskEstimate:
    needed = estimates.with_margin(needed_bytes, fetch_stage.MIN_FREE_BYTES)
    return DiskEstimate(folder, parts, needed, free_bytes(folder))
