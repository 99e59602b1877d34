"""Forecast a run from the selection, the sources, earlier downloads and runs, and the disks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.clock import utc_now
from oiyolo.core.disks import device, free_bytes, used_bytes
from oiyolo.core.results import pluralize
from oiyolo.core.units import cost
from oiyolo.net.buckets import is_bucket
from oiyolo.openimages.cache import Cache
from oiyolo.planning import estimates
from oiyolo.planning.estimates import Amount, Photo, SourceInfo, total
from oiyolo.planning.run_plan import (
    KEPT_IMAGES,
    CostEstimate,
    DiskEstimate,
    FetchEstimate,
    RunPlan,
    SourceEstimate,
)
from oiyolo.planning.training import plan_training
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED
from oiyolo.sources.web import MIRROR_MEAN_BYTES
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch import is_on_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.planning.training import TrainingForecast
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

_MIN_SAMPLE: Final = 20
"""From this many fetched images on, the project's own figures replace the published ones."""


def forecast(
    project: Project,
    bandwidth_mb_s: float | None = None,
    seconds_per_iteration: float | None = None,
    gpu_name: str | None = None,
) -> RunPlan:
    """Return the plan of a run with the current selection, without changing anything.

    Args:
        project: The project, which has a selection.
        bandwidth_mb_s: The user's estimate of the bandwidth, in megabytes (10^6 bytes) per second.
        seconds_per_iteration: The user's estimate of the duration of a training iteration.
        gpu_name: The GPU to plan for; ``None`` for this machine.

    Raises:
        UsageError: The project has no selection, or an unknown network.
        InputFormError: The selection or the network file is damaged.
    """
    selection = select_stage.load(project)
    status = _image_status(project, selection)
    images = project.config.images
    fetch, pending = _fetch_estimate(project, status, bandwidth_mb_s)
    downloaded = pending.plus(status.fetched)
    training = plan_training(
        project,
        class_count=len(selection.class_names),
        image_count=status.train or max(1, round(downloaded.images * project.config.split.train)),
        is_new=bool(status.pending or status.unprepared),
        user_rate_s=seconds_per_iteration,
        gpu_name=gpu_name,
    )
    mean_bytes = downloaded.disk_bytes / max(1.0, downloaded.images)
    prepared = estimates.prepared_bytes(images.size, images.fit, mean_bytes)
    table_bytes = float((selection.folder / "boxes.csv").stat().st_size)
    to_prepare = pending.images + status.unprepared
    dataset = estimates.dataset_bytes(to_prepare, prepared, table_bytes if to_prepare else 0.0)
    final_dataset = estimates.dataset_bytes(len(status.photos), prepared, table_bytes)
    final_bytes = (
        sum(final_dataset.values())
        + sum(training.all_parts.values())
        + used_bytes(selection.folder)
        + (downloaded.disk_bytes if images.keep_originals else 0.0)
    )
    disks = _disks(project, pending.disk_bytes, dataset, training)
    return RunPlan(
        at=utc_now(),
        selection=selection.fingerprint,
        classes=selection.class_names,
        images=len(status.photos),
        pending=len(status.pending),
        boxes=int(selection.summary["boxes"]),
        fetch=fetch,
        disks=disks,
        final_bytes=round(final_bytes),
        fits=all(disk.fits for disk in disks),
        training=training.training,
        money=_cost_estimate(project, fetch.seconds, training.training.seconds),
    )


def _cost_estimate(
    project: Project, fetch_s: float | None, training_s: float | None
) -> CostEstimate | None:
    """Return the cost; ``None`` if the project has no price of the machine."""
    price = project.config.train.price_per_hour
    if price is None:
        return None
    costs = (cost(fetch_s, price), cost(training_s, price))
    return CostEstimate(price, project.config.train.currency or "", *costs, total(costs))


@dataclass(frozen=True)
class _ImageStatus:
    """The current state of the selected images.

    Attributes:
        photos: Selected images that are not excluded.
        pending: Those of ``photos`` that are still to be fetched.
        unprepared: Number of images that are fetched and not yet prepared.
        source_and_bytes: Source and size of each downloaded image.
        attempted: Number of images that were downloaded or excluded by a fetch.
        train: Number of training images; 0 until all images are split.
    """

    photos: Sequence[Photo]
    pending: Sequence[Photo]
    unprepared: int
    source_and_bytes: Sequence[tuple[str, int]]
    attempted: int
    train: int

    @property
    def fetched(self) -> Amount:
        """The images that are already fetched."""
        count, size = len(self.source_and_bytes), sum(size for _, size in self.source_and_bytes)
        network = [n for name, n in self.source_and_bytes if is_on_network(name)]
        return Amount(count, sum(network), estimates.on_disk(size, count))

    def sizes_from(self, source: str) -> list[int]:
        """Return the sizes of the images that were downloaded from a source."""
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
        unprepared=states[FETCHED],
        source_and_bytes=fetched,
        attempted=len(fetched) + excluded,
        train=0 if unsplit else states["train"],
    )


def _photos(selection: Selection) -> Iterator[Photo]:
    images = selection.images
    nothing = [""] * len(images)
    imports, copies = (images.get(name, nothing) for name in ("Import", "CopyIn"))
    columns = (images[name] for name in ("ImageID", "Subset", "OriginalSize"))
    for image_id, subset, size, name, copy in zip(*columns, imports, copies, strict=True):
        size_bytes = int(size) if str(size).isdigit() else None
        if copy:  # most downloads are the mirror's copies
            size_bytes = round(MIRROR_MEAN_BYTES[str(subset)])
        yield Photo(str(image_id), str(subset), size_bytes, str(name or copy))


def _fetch_estimate(
    project: Project, status: _ImageStatus, bandwidth_mb_s: float | None
) -> tuple[FetchEstimate, Amount]:
    """Return the estimate for the fetch, and the amount that is still to be fetched."""
    sources = project.config.images.sources if project.uses_open_images else ()
    info, mirror_basis = _source_info(project, status)
    photos = [photo for photo in status.photos if not photo.import_name]
    to_fetch = [photo for photo in status.pending if not photo.import_name]
    basis_of = {
        estimates.MIRROR: f"estimated from {mirror_basis}",
        estimates.ORIGINAL: "as listed, if none is missing",
        estimates.THUMBNAIL: "estimated from the mirror's copies, if all are usable",
    }
    by_source = {}
    for source in sources:
        amount = estimates.amount_from(source, photos, info)
        if is_bucket(source):
            basis = "if it has all of them, as large as the mirror's copies"
        else:
            contained = f"has {pluralize(int(amount.images), 'image')} of the selection"
            basis = basis_of.get(source, contained)
        pending = estimates.amount_from(source, to_fetch, info)
        by_source[source] = SourceEstimate(*_rounded(amount), *_rounded(pending), basis)
    imported = _import_estimates(status)
    pending = estimates.amount_from_first(sources, to_fetch, info)
    pending = pending.plus(estimates.imported_amount([p for p in status.pending if p.import_name]))
    amount = pending.plus(status.fetched)
    basis = "estimated" if status.pending else "all fetched"
    if sources[:1] == (estimates.ORIGINAL,):
        basis += f"; {info.missing_share:.1%} of originals are expected to be missing"
    bandwidth, bandwidth_from = None, "nothing is downloaded"
    if project.uses_open_images:
        bandwidth, bandwidth_from = _bandwidth(project, bandwidth_mb_s)
    fetch = FetchEstimate(
        *_rounded(amount),
        *_rounded(pending),
        basis,
        order=", then ".join(sources) or ", ".join(imported),
        bandwidth_bytes_s=bandwidth,
        bandwidth_from=bandwidth_from,
        seconds=estimates.duration_s(amount.network_bytes, bandwidth),
        pending_seconds=estimates.duration_s(pending.network_bytes, bandwidth),
        sources=by_source | imported,
    )
    return fetch, pending


def _import_estimates(status: _ImageStatus) -> dict[str, SourceEstimate]:
    """Return the estimate for each import, whose images are copied on this machine."""
    found = {}
    for name in sorted({photo.import_name for photo in status.photos} - {""}):
        every, pending = (
            estimates.imported_amount([photo for photo in photos if photo.import_name == name])
            for photos in (status.photos, status.pending)
        )
        found[f"import {name}"] = SourceEstimate(
            *_rounded(every), *_rounded(pending), "copied on this machine"
        )
    return found


def _rounded(amount: Amount) -> tuple[int, int]:
    return round(amount.images), round(amount.network_bytes)


def _source_info(project: Project, status: _ImageStatus) -> tuple[SourceInfo, str]:
    """Return the assumptions about the sources, and what the mirror's sizes are based on."""
    sources = project.config.images.sources if project.uses_open_images else ()
    info = SourceInfo(
        folders={
            source: dict(_file_sizes(project.folder / Path(source).expanduser(), status.photos))
            for source in sources
            if estimates.is_folder(source)
        }
    )
    if sources[:1] == (estimates.ORIGINAL,) and status.attempted >= _MIN_SAMPLE:
        available = len(status.sizes_from(estimates.ORIGINAL))
        info = replace(info, missing_share=1.0 - available / status.attempted)
    sizes = status.sizes_from(estimates.MIRROR)
    if len(sizes) < _MIN_SAMPLE:
        return info, "the published totals"
    means = dict.fromkeys(info.mirror_mean_bytes, sum(sizes) / len(sizes))
    return replace(info, mirror_mean_bytes=means), "the images fetched so far"


def _file_sizes(folder: Path, photos: Sequence[Photo]) -> Iterator[tuple[str, int]]:
    for photo in photos:
        with contextlib.suppress(OSError):
            yield photo.image_id, (folder / f"{photo.image_id}.jpg").stat().st_size


def _bandwidth(project: Project, user_mb_s: float | None) -> tuple[float | None, str]:
    """Return the bandwidth in bytes per second and what it is based on, or how to set it."""
    if user_mb_s is not None:
        return user_mb_s * 1e6, "as given"
    stats = fetch_stage.read_stats(project)
    if stats.images >= _MIN_SAMPLE and stats.bandwidth_bytes_s:
        return stats.bandwidth_bytes_s, "measured on this project's images"
    base_url = project.config.openimages.base_url
    with contextlib.closing(Cache(project.cache_folder, base_url)) as cache:
        measured = cache.bandwidth_bytes_s()
    if measured:
        return measured, "measured on the last official file; many small files are slower"
    return None, "unknown bandwidth; set it with --bandwidth-mb-s"


def _disks(
    project: Project, images_bytes: float, dataset: Mapping[str, float], training: TrainingForecast
) -> list[DiskEstimate]:
    """Return an estimate for each file system; the cache may share the project's."""
    is_kept = project.config.images.keep_originals
    needed = estimates.peak_bytes(
        images_bytes,
        sum(dataset.values()),
        sum(training.new_parts.values()),
        keep_originals=is_kept,
    )
    label = KEPT_IMAGES if is_kept else "images, until they are prepared"
    parts = {label: images_bytes, **dataset, **training.new_parts}
    cached = {f"pretrained {name}": size for name, size in training.cached_parts.items()}
    cached_bytes = sum(cached.values())
    if device(project.folder) == device(project.cache_folder):
        return [_disk(project.folder, parts | cached, needed + cached_bytes)]
    disks = [_disk(project.folder, parts, needed)]
    return [*disks, _disk(project.cache_folder, cached, cached_bytes)] if cached else disks


def _disk(folder: Path, parts: Mapping[str, float], used: float) -> DiskEstimate:
    needed = round(estimates.with_margin(used, fetch_stage.MIN_FREE_BYTES))
    free = free_bytes(folder)
    sizes = {name: round(size) for name, size in parts.items()}
    return DiskEstimate(str(folder), sizes, needed, free, fits=needed <= free)
