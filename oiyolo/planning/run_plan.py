"""The plan of a run, for people and for ``data/plan.json``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import Result, format_table, pluralize
from oiyolo.planning.estimates import duration_s, total
from oiyolo.planning.units import format_bytes, format_duration, format_money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.planning.estimates import Amount
    from oiyolo.project.project import Project

_HOUR_S: Final = 3600.0


def plan_path(project: Project) -> Path:
    """Return the path of a project's plan."""
    return project.data_folder / "plan.json"


@dataclass(frozen=True)
class SourceEstimate:
    """What would be fetched from one source, or from several in their order.

    Attributes:
        label: The source, or the sources in their order, for people.
        total: The amount for all selected images.
        pending: The amount for the images that are still to be fetched.
        basis: What the numbers are based on.
    """

    label: str
    total: Amount
    pending: Amount
    basis: str

    def as_dict(self) -> dict[str, object]:
        """Return the estimate as JSON-compatible values."""
        return {
            "images": round(self.total.images),
            "bytes": round(self.total.network_bytes),
            "pending_images": round(self.pending.images),
            "pending_bytes": round(self.pending.network_bytes),
            "basis": self.basis,
        }


@dataclass(frozen=True)
class RateEstimate:
    """A rate and where it comes from.

    Attributes:
        value: Bytes per second, or seconds per iteration; ``None`` if unknown.
        basis: What the value is based on; if it is unknown, how to set it.
    """

    value: float | None
    basis: str


@dataclass(frozen=True)
class FetchEstimate:
    """The estimate for the fetch.

    Attributes:
        planned: Estimate for the configured sources in their order.
        sources: Estimates for fetching all images from a single source, by source.
        bandwidth: Bandwidth in bytes per second.
    """

    planned: SourceEstimate
    sources: Mapping[str, SourceEstimate]
    bandwidth: RateEstimate

    @property
    def seconds(self) -> float | None:
        """Expected duration for all images."""
        return duration_s(self.planned.total.network_bytes, self.bandwidth.value)

    @property
    def pending_seconds(self) -> float | None:
        """Expected duration for the images that are still to be fetched."""
        return duration_s(self.planned.pending.network_bytes, self.bandwidth.value)

    def as_dict(self) -> dict[str, object]:
        """Return the estimate as JSON-compatible values."""
        return {
            **self.planned.as_dict(),
            "order": self.planned.label,
            "bandwidth_bytes_s": self.bandwidth.value,
            "bandwidth_from": self.bandwidth.basis,
            "seconds": self.seconds,
            "pending_seconds": self.pending_seconds,
            "sources": {name: estimate.as_dict() for name, estimate in self.sources.items()},
        }

    def __str__(self) -> str:
        rows: list[Sequence[object]] = [("download", "all", "pending")]
        rows.append(_row(f"  {self.planned.label}", self.planned))
        rows += [_row(f"  if all from {each.label}", each) for each in self.sources.values()]
        durations = (format_duration(self.seconds), format_duration(self.pending_seconds))
        rows.append(("  time", *durations))
        bases = [self.planned.basis, *(each.basis for each in self.sources.values())]
        lines = format_table(rows).splitlines()
        width = max(map(len, lines))
        text = [lines[0]]
        notes = [*bases, self._bandwidth_note()]
        text += [
            f"{line.ljust(width)}  {note}" for line, note in zip(lines[1:], notes, strict=True)
        ]
        return "\n".join(text)

    def _bandwidth_note(self) -> str:
        value, basis = self.bandwidth.value, self.bandwidth.basis
        return basis if value is None else f"at {format_bytes(value)}/s, {basis}"


def _row(label: str, estimate: SourceEstimate) -> tuple[str, str, str]:
    return (
        label,
        format_bytes(estimate.total.network_bytes),
        format_bytes(estimate.pending.network_bytes),
    )


@dataclass(frozen=True)
class TrainingEstimate:
    """The estimate for the training.

    Attributes:
        network: The network's name.
        size_wh: Width and height of its input in pixels.
        images: Number of training images.
        batch: Number of images per iteration.
        iterations: Number of iterations.
        rate: Seconds per iteration.
    """

    network: str
    size_wh: tuple[int, int]
    images: int
    batch: int
    iterations: int
    rate: RateEstimate

    @property
    def seconds(self) -> float | None:
        """Expected duration of all iterations."""
        return None if self.rate.value is None else self.iterations * self.rate.value

    def as_dict(self) -> dict[str, object]:
        """Return the estimate as JSON-compatible values."""
        return {
            "network": self.network,
            "size": list(self.size_wh),
            "images": self.images,
            "batch": self.batch,
            "iterations": self.iterations,
            "seconds_per_iteration": self.rate.value,
            "rate_from": self.rate.basis,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        width, height = self.size_wh
        head = (
            f"training\n  {self.network} at {width}x{height} on {pluralize(self.images, 'image')}: "
            f"{pluralize(self.iterations, 'iteration')} of {pluralize(self.batch, 'image')}"
        )
        if self.rate.value is None:
            return f"{head}\n  time ?  {self.rate.basis}"
        rate = f"{self.rate.value:.3g} s per iteration, {self.rate.basis}"
        return f"{head}\n  time {format_duration(self.seconds)}  at {rate}"


@dataclass(frozen=True)
class DiskEstimate:
    """The estimated use of one file system.

    Attributes:
        folder: A folder on the file system.
        parts: Bytes that are still to be written, by kind of file.
        needed_bytes: Peak usage of these, with a margin.
        free_bytes: Free space.
    """

    folder: Path
    parts: Mapping[str, float]
    needed_bytes: float
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the free space is large enough."""
        return self.needed_bytes <= self.free_bytes

    def as_dict(self) -> dict[str, object]:
        """Return the estimate as JSON-compatible values."""
        return {
            "folder": str(self.folder),
            "parts": {name: round(size) for name, size in self.parts.items()},
            "needed_bytes": round(self.needed_bytes),
            "free_bytes": self.free_bytes,
            "fits": self.fits,
        }

    def __str__(self) -> str:
        rows = [(f"  {name}", format_bytes(size)) for name, size in self.parts.items() if size > 0]
        rows.append(("  needed at most, with a margin", format_bytes(self.needed_bytes)))
        rows.append(("  free", format_bytes(self.free_bytes)))
        return f"disk space in {self.folder}\n{format_table(rows)}"

    def check(self) -> None:
        """Raise if the disk has too little free space.

        Raises:
            UnavailableError: Less space is free than is needed.
        """
        if self.fits:
            return
        parts = ", ".join(
            f"{name} {format_bytes(size)}" for name, size in self.parts.items() if size > 0
        )
        raise UnavailableError(
            "this run does not fit on the disk",
            where=str(self.folder),
            expected=f"{format_bytes(self.needed_bytes)} free ({parts}, and a margin)",
            found=format_bytes(self.free_bytes),
            remedy="Free some space, select fewer images (--limit), prepare smaller ones (--size), "
            "or use --no-keep-originals, which keeps only the prepared images",
        )


@dataclass(frozen=True)
class Price:
    """The price of the machine.

    Attributes:
        per_hour: Price per hour.
        currency: Currency of the price; may be empty.
    """

    per_hour: float
    currency: str

    def cost(self, seconds: float | None) -> float | None:
        """Return the cost of a duration; ``None`` if the duration is unknown."""
        return None if seconds is None else seconds / _HOUR_S * self.per_hour


@dataclass(frozen=True)
class RunPlan(Result):
    """The downloads, disk space, time and cost that a run is expected to need.

    Attributes:
        at: Time of the plan (ISO 8601, UTC).
        selection: The selection's fingerprint.
        classes: Class names.
        images: Number of selected images that are not excluded.
        pending: Number of these that are still to be fetched.
        boxes: Number of boxes that become labels.
        fetching: Estimate for the fetch.
        disks: Estimates for the file systems that are written to.
        final_bytes: The project's final disk usage.
        training: Estimate for the training.
        price: Price of the machine; ``None`` if unknown.
    """

    at: str
    selection: str
    classes: Sequence[str]
    images: int
    pending: int
    boxes: int
    fetching: FetchEstimate
    disks: Sequence[DiskEstimate]
    final_bytes: float
    training: TrainingEstimate
    price: Price | None

    @cached_property
    def money(self) -> dict[str, object] | None:
        """Cost of the whole fetch and the whole training; ``None`` without a price."""
        if self.price is None:
            return None
        fetch, train = (
            self.price.cost(self.fetching.seconds),
            self.price.cost(self.training.seconds),
        )
        return {
            "price_per_hour": self.price.per_hour,
            "currency": self.price.currency,
            "fetch": fetch,
            "training": train,
            "total": total((fetch, train)),
        }

    def as_dict(self) -> dict[str, object]:
        """Return the plan as JSON-compatible values, the content of ``data/plan.json``."""
        return {
            "at": self.at,
            "selection": self.selection,
            "classes": list(self.classes),
            "images": self.images,
            "pending": self.pending,
            "boxes": self.boxes,
            "fetch": self.fetching.as_dict(),
            "disks": [disk.as_dict() for disk in self.disks],
            "final_bytes": round(self.final_bytes),
            "fits": all(disk.fits for disk in self.disks),
            "training": self.training.as_dict(),
            "money": self.money,
        }

    def __str__(self) -> str:
        names = ", ".join(self.classes)
        head = (
            f"plan for {names}: {pluralize(self.images, 'image')}, {pluralize(self.boxes, 'box')}"
        )
        lines = [f"{head}; {self.pending:,} still to be fetched", str(self.fetching)]
        lines += [str(disk) for disk in self.disks]
        lines.append(str(self.training))
        if self.price is not None:
            lines.append(self._cost_table(self.price))
        return "\n".join(lines)

    def _cost_table(self, price: Price) -> str:
        rows = [
            (f"  {name}", format_money(price.cost(seconds), price.currency))
            for name, seconds in (
                ("fetch", self.fetching.seconds),
                ("training", self.training.seconds),
                ("total", total((self.fetching.seconds, self.training.seconds))),
            )
        ]
        return (
            f"cost at {format_money(price.per_hour, price.currency)} per hour\n{format_table(rows)}"
        )

    def check(self) -> None:
        """Raise if the run does not fit on a disk.

        Raises:
            UnavailableError: A disk has too little free space.
        """
        for disk in self.disks:
            disk.check()
