"""From a selection to a plan: what is known of images, sources, disks and the training."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import count
from oiyolo.net.buckets import is_bucket
from oiyolo.openimages.cache import Cache
from oiyolo.planning import estimates
from oiyolo.planning.disks import device, free_bytes, used_bytes
from oiyolo.planning.estimates import Known, Photo
from oiyolo.planning.run_plan import Disk, Fetching, Planned, Price, Rate, Share
from oiyolo.planning.training import plan_training
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.planning.training import PlannedTraining
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

_ENOUGH: Final = 20
"""So many images of this project tell more than what is published of all."""


@dataclass(frozen=True)
class Given:
    """What the user expects, where nothing was measured.

    Attributes:
        bandwidth_mb_s: Megabytes (10^6 bytes) a second.
        seconds_per_iteration: Of the training.
        price_per_hour: Of the machine.
        currency: What the price is in.
    """

    bandwidth_mb_s: float | None = None
    seconds_per_iteration: float | None = None
    price_per_hour: float | None = None
    currency: str | None = None

    def check(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            UsageError: A number that is none, or out of its bounds; a currency without a price.
        """
        for name in ("bandwidth_mb_s", "seconds_per_iteration", "price_per_hour"):
            value = getattr(self, name)
            is_free = name == "price_per_hour" and value == 0
            if value is not None and not (_is_number(value) and (value > 0 or is_free)):
                raise UsageError(
                    f"wrong value for --{name.replace('_', '-')}",
                    expected="a number above 0",
                    found=repr(value),
                )
        if self.currency is not None and self.price_per_hour is None:
            raise UsageError(
                "a currency was given, and no price", remedy="Give --price-per-hour beside it"
            )

    @property
    def price(self) -> Price | None:
        """What the machine costs; ``None`` if nobody said so."""
        if self.price_per_hour is None:
            return None
        return Price(self.price_per_hour, self.currency or "")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class _Standing:
    """How the images stand.

    Attributes:
        photos: Those that are not excluded.
        pending: Those of them that are still to be fetched.
        fetched: How many wait to be prepared.
        source_and_bytes: Of each that came, where from, and its size.
        attempted: How many were asked for.
        train: How many train, once all are split; 0 before.
    """

    photos: Sequence[Photo]
    pending: Sequence[Photo]
    fetched: int
    source_and_bytes: Sequence[tuple[str, int]]
    attempted: int
    train: int

    @property
    def mirror_mean_bytes(self) -> float | None:
        """Mean size of what the mirror gave; ``None`` before it gave enough."""
        sizes = self._sizes_from(estimates.MIRROR)
        return sum(sizes) / len(sizes) if len(sizes) >= _ENOUGH else None

    def miss_share(self, sources: Sequence[str]) -> float | None:
        """Share of originals that were gone; ``None`` before enough were asked for first."""
        if sources[0] != estimates.ORIGINAL or self.attempted < _ENOUGH:
            return None
        return 1.0 - len(self._sizes_from(estimates.ORIGINAL)) / self.attempted

    def _sizes_from(self, source: str) -> list[int]:
        return [size for name, size in self.source_and_bytes if name == source]


def _standing(project: Project, selection: Selection) -> _Standing:
    with project.ledger(read_only=True) as ledger:
        state_of = ledger.facts("state")
        source_of, bytes_of = ledger.facts("source"), ledger.facts("bytes")
        refused = len(ledger.ids(EXCLUDED, stage=fetch_stage.STAGE))
        states = ledger.counts().states
    photos = [p for p in _photos(selection) if state_of.get(p.image_id) != EXCLUDED]
    pending = [p for p in photos if state_of.get(p.image_id, PENDING) == PENDING]
    waiting = {photo.image_id for photo in pending}
    came = [
        (str(source_of[p.image_id]), int(str(bytes_of[p.image_id])))
        for p in photos
        if p.image_id not in waiting and bytes_of[p.image_id] is not None
    ]
    unsplit = sum(states[name] for name in (PENDING, FETCHED, PREPARED))
    return _Standing(
        photos=photos,
        pending=pending,
        fetched=states[FETCHED],
        source_and_bytes=came,
        attempted=len(came) + refused,
        train=0 if unsplit else states["train"],
    )


def _photos(selection: Selection) -> Iterator[Photo]:
    named = (selection.images[name] for name in ("ImageID", "Subset", "OriginalSize"))
    for image_id, subset, size in zip(*named, strict=True):
        yield Photo(str(image_id), str(subset), int(size) if str(size).isdigit() else None)


def outlook(project: Project, given: Given) -> Planned:
    """Plan by the selection that lies there; changes nothing."""
    selection = select_stage.load_or_complain(project)
    standing = _standing(project, selection)
    fetching, came = _fetching(project, standing, given.bandwidth_mb_s)
    pending = fetching.planned.pending
    share = project.config.split.train
    training = plan_training(
        project,
        class_count=len(selection.class_names),
        image_count=standing.train or max(1, round(fetching.planned.whole.images * share)),
        is_new=bool(standing.pending or standing.fetched),
        given_rate_s=given.seconds_per_iteration,
    )
    images = project.config.images
    mean_bytes = (pending + came).disk_bytes / max(1.0, (pending + came).images)
    prepared = estimates.prepared_bytes(images.size, images.fit, mean_bytes)
    table_bytes = float((selection.folder / "boxes.csv").stat().st_size)
    to_prepare = pending.images + standing.fetched
    dataset = estimates.dataset_bytes(to_prepare, prepared, table_bytes if to_prepare else 0.0)
    whole = estimates.dataset_bytes(len(standing.photos), prepared, table_bytes)
    final = sum(whole.values()) + sum(training.whole_parts.values()) + used_bytes(selection.folder)
    final += (pending + came).disk_bytes if images.keep_originals else 0.0
    return Planned(
        at=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        selection=selection.fingerprint,
        classes=selection.class_names,
        images=len(standing.photos),
        pending=len(standing.pending),
        boxes=int(selection.summary["boxes"]),
        fetching=fetching,
        disks=_disks(project, pending.disk_bytes, dataset, training),
        final_bytes=final,
        training=training.training,
        price=given.price,
    )


def _fetching(
    project: Project, standing: _Standing, bandwidth_mb_s: float | None
) -> tuple[Fetching, estimates.Amount]:
    """Give what the fetch will be, and what came before it."""
    sources = project.config.images.sources
    own_mean, own_misses = standing.mirror_mean_bytes, standing.miss_share(sources)
    known = Known(folders=_folders(project, standing.photos))
    if own_mean is not None:
        means = dict.fromkeys(known.mirror_mean_bytes, own_mean)
        known = Known(means, known.miss_share, known.folders)
    if own_misses is not None:
        known = Known(known.mirror_mean_bytes, own_misses, known.folders)
    of_mirror = "estimated from " + ("what came so far" if own_mean else "the published totals")
    shares = {}
    for source in sources:
        whole = estimates.all_from(source, standing.photos, known)
        basis = {
            estimates.MIRROR: of_mirror,
            estimates.ORIGINAL: "as listed, if none is gone",
            estimates.THUMBNAIL: "estimated from the mirror's copies, if none is gone or turned",
        }.get(source, f"it has {count(int(whole.images), 'image')} of them")
        if is_bucket(source):
            basis = "if it holds all of them, as the mirror's copies"
        pending = estimates.all_from(source, standing.pending, known)
        shares[source] = Share(source, whole, pending, basis)
    pending = estimates.in_order(sources, standing.pending, known)
    over_network = [n for name, n in standing.source_and_bytes if not Path(name).is_absolute()]
    all_bytes = sum(size for _, size in standing.source_and_bytes)
    count_came = len(standing.source_and_bytes)
    came = estimates.Amount(count_came, sum(over_network), estimates.on_disk(all_bytes, count_came))
    basis = "estimated" if standing.pending else "all came"
    if estimates.ORIGINAL in sources and sources.index(estimates.ORIGINAL) == 0:
        basis += f"; {known.miss_share:.1%} of originals are expected to be gone"
    planned = Share(", then ".join(sources), pending + came, pending, basis)
    return Fetching(planned, shares, _bandwidth(project, bandwidth_mb_s)), came


def _folders(project: Project, photos: Sequence[Photo]) -> dict[str, Mapping[str, int]]:
    """Give the sizes of the wanted files that configured folders have."""
    found: dict[str, Mapping[str, int]] = {}
    for source in project.config.images.sources:
        named = {estimates.MIRROR, estimates.ORIGINAL, estimates.THUMBNAIL}
        if source not in named and not is_bucket(source):
            folder = project.folder / Path(source).expanduser()
            found[source] = dict(_held(folder, photos))
    return found


def _held(folder: Path, photos: Sequence[Photo]) -> Iterator[tuple[str, int]]:
    for photo in photos:
        with contextlib.suppress(OSError):
            yield photo.image_id, (folder / f"{photo.image_id}.jpg").stat().st_size


def _bandwidth(project: Project, given_mb_s: float | None) -> Rate:
    if given_mb_s is not None:
        return Rate(given_mb_s * 1e6, "as given")
    effort = fetch_stage.effort(project)
    if effort.images >= _ENOUGH and effort.bandwidth_bytes_s:
        return Rate(effort.bandwidth_bytes_s, "as images came here before")
    base_url = project.config.openimages.base_url
    with contextlib.closing(Cache(project.cache_folder, base_url)) as cache:
        measured = cache.bandwidth_bytes_s()
    if measured:
        return Rate(measured, "as the last official file came; many small files come slower")
    return Rate(None, "unknown; --bandwidth-mb-s gives one")


def _disks(
    project: Project,
    images_bytes: float,
    dataset: Mapping[str, float],
    training: PlannedTraining,
) -> list[Disk]:
    """Give what each file system has to take; the cache's may be the project's."""
    needed = estimates.peak_bytes(
        images_bytes,
        sum(dataset.values()),
        sum(training.new_parts.values()),
        keep_originals=project.config.images.keep_originals,
    )
    kept = project.config.images.keep_originals
    told = "images" if kept else "images, until they are prepared"
    parts = {told: images_bytes, **dataset, **training.new_parts}
    cached = {f"pretrained {name}": size for name, size in training.cached_parts.items()}
    if device(project.folder) == device(project.cache_folder):
        return [_disk(project.folder, parts | cached, needed + sum(cached.values()))]
    disks = [_disk(project.folder, parts, needed)]
    if cached:
        disks.append(_disk(project.cache_folder, cached, sum(cached.values())))
    return disks


def _disk(folder: Path, parts: Mapping[str, float], needed_bytes: float) -> Disk:
    needed = estimates.with_margin(needed_bytes, fetch_stage.SPARE_BYTES)
    return Disk(folder, parts, needed, free_bytes(folder))
