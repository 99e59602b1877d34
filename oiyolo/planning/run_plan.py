"""What a plan says, for a person and for ``data/plan.json``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import Result, columns, count
from oiyolo.planning.estimates import duration_s, total
from oiyolo.planning.units import told_bytes, told_money, told_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.planning.estimates import Amount
    from oiyolo.project.project import Project

_HOUR_S: Final = 3600.0


def plan_path(project: Project) -> Path:
    """Give where a project's plan lies."""
    return project.data_folder / "plan.json"


@dataclass(frozen=True)
class Share:
    """What would be fetched from one source, or from several in their order.

    Attributes:
        told: The source, for a person.
        whole: For all selected images.
        pending: For those that are still to be fetched.
        basis: Where the numbers come from.
    """

    told: str
    whole: Amount
    pending: Amount
    basis: str

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "images": round(self.whole.images),
            "bytes": round(self.whole.network_bytes),
            "pending_images": round(self.pending.images),
            "pending_bytes": round(self.pending.network_bytes),
            "basis": self.basis,
        }


@dataclass(frozen=True)
class Rate:
    """A speed, and who says so.

    Attributes:
        value: Bytes a second, or seconds an iteration; ``None`` if nobody knows.
        told_by: Where it comes from, or how one can be given.
    """

    value: float | None
    told_by: str


@dataclass(frozen=True)
class Fetching:
    """What the fetch will be.

    Attributes:
        planned: By the configured sources, in their order.
        sources: If all came from one of them, by its name.
        bandwidth: Bytes a second.
    """

    planned: Share
    sources: Mapping[str, Share]
    bandwidth: Rate

    @property
    def seconds(self) -> float | None:
        """Expected time for all images."""
        return duration_s(self.planned.whole.network_bytes, self.bandwidth.value)

    @property
    def pending_seconds(self) -> float | None:
        """Expected time for those that are still to be fetched."""
        return duration_s(self.planned.pending.network_bytes, self.bandwidth.value)

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            **self.planned.as_dict(),
            "order": self.planned.told,
            "bandwidth_bytes_s": self.bandwidth.value,
            "bandwidth_from": self.bandwidth.told_by,
            "seconds": self.seconds,
            "pending_seconds": self.pending_seconds,
            "sources": {name: share.as_dict() for name, share in self.sources.items()},
        }

    def __str__(self) -> str:
        rows: list[Sequence[object]] = [("to fetch", "all", "still to come")]
        rows.append(_row(f"  {self.planned.told}", self.planned))
        rows += [_row(f"  if all came from {share.told}", share) for share in self.sources.values()]
        seconds = (told_seconds(self.seconds), told_seconds(self.pending_seconds))
        rows.append(("  time", *seconds))
        bases = [self.planned.basis, *(share.basis for share in self.sources.values())]
        lines = columns(rows).splitlines()
        width = max(map(len, lines))
        told = [lines[0]]
        notes = [*bases, self._told_bandwidth()]
        told += [
            f"{line.ljust(width)}  {note}" for line, note in zip(lines[1:], notes, strict=True)
        ]
        return "\n".join(told)

    def _told_bandwidth(self) -> str:
        value, told_by = self.bandwidth.value, self.bandwidth.told_by
        return told_by if value is None else f"at {told_bytes(value)} a second, {told_by}"


def _row(told: str, share: Share) -> tuple[str, str, str]:
    return told, told_bytes(share.whole.network_bytes), told_bytes(share.pending.network_bytes)


@dataclass(frozen=True)
class Training:
    """What the training will be.

    Attributes:
        network: The network's name.
        size_wh: Its input in pixels.
        images: Images that train.
        batch: Images an iteration.
        iterations: How many there will be.
        rate: Seconds an iteration.
    """

    network: str
    size_wh: tuple[int, int]
    images: int
    batch: int
    iterations: int
    rate: Rate

    @property
    def seconds(self) -> float | None:
        """Expected time for all iterations."""
        return None if self.rate.value is None else self.iterations * self.rate.value

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "network": self.network,
            "size": list(self.size_wh),
            "images": self.images,
            "batch": self.batch,
            "iterations": self.iterations,
            "seconds_per_iteration": self.rate.value,
            "rate_from": self.rate.told_by,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        width, height = self.size_wh
        head = (
            f"to train\n  {self.network} at {width}x{height} on {count(self.images, 'image')}: "
            f"{count(self.iterations, 'iteration')} of {count(self.batch, 'image')}"
        )
        if self.rate.value is None:
            return f"{head}\n  time ?  {self.rate.told_by}"
        told = f"{self.rate.value:.3g} s an iteration, {self.rate.told_by}"
        return f"{head}\n  time {told_seconds(self.seconds)}  at {told}"


@dataclass(frozen=True)
class Disk:
    """What one file system will have to take.

    Attributes:
        folder: A folder on it.
        parts: What is still to come, by what it is, in bytes.
        needed_bytes: The most that these will take at once, with a margin.
        free_bytes: What is free.
    """

    folder: Path
    parts: Mapping[str, float]
    needed_bytes: float
    free_bytes: int

    @property
    def fits(self) -> bool:
        """There is room."""
        return self.needed_bytes <= self.free_bytes

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "folder": str(self.folder),
            "parts": {name: round(size) for name, size in self.parts.items()},
            "needed_bytes": round(self.needed_bytes),
            "free_bytes": self.free_bytes,
            "fits": self.fits,
        }

    def __str__(self) -> str:
        rows = [(f"  {name}", told_bytes(size)) for name, size in self.parts.items() if size > 0]
        rows.append(("  at once, with a margin", told_bytes(self.needed_bytes)))
        rows.append(("  free", told_bytes(self.free_bytes)))
        return f"to store in {self.folder}\n{columns(rows)}"

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            UnavailableError: There is less room than is needed.
        """
        if self.fits:
            return
        parts = ", ".join(
            f"{name} {told_bytes(size)}" for name, size in self.parts.items() if size > 0
        )
        raise UnavailableError(
            "this run does not fit on the disk",
            where=str(self.folder),
            expected=f"{told_bytes(self.needed_bytes)} free ({parts}, and a margin)",
            found=told_bytes(self.free_bytes),
            remedy="Make room, or take fewer images (--limit), smaller ones (--size), or "
            "--no-keep-originals, which keeps only what was prepared",
        )


@dataclass(frozen=True)
class Price:
    """What the machine costs.

    Attributes:
        per_hour: Money an hour.
        currency: What it is in; may be empty.
    """

    per_hour: float
    currency: str

    def of(self, seconds: float | None) -> float | None:
        """Give what so much time costs; ``None`` for an unknown time."""
        return None if seconds is None else seconds / _HOUR_S * self.per_hour


@dataclass(frozen=True)
class Planned(Result):
    """What a run will fetch, store, take and cost.

    Attributes:
        at: When this was planned (ISO 8601, UTC).
        selection: The selection's fingerprint.
        classes: Class names.
        images: Selected images that are not excluded.
        pending: Those of them that are still to be fetched.
        boxes: Boxes that will be labels.
        fetching: The fetch.
        disks: The file systems that have to take something.
        final_bytes: What the project will take on the disk in the end.
        training: The training.
        price: What the machine costs; ``None`` if nobody said so.
    """

    at: str
    selection: str
    classes: Sequence[str]
    images: int
    pending: int
    boxes: int
    fetching: Fetching
    disks: Sequence[Disk]
    final_bytes: float
    training: Training
    price: Price | None

    @cached_property
    def money(self) -> dict[str, object] | None:
        """What it costs: all of the fetch, all of the training; ``None`` without a price."""
        if self.price is None:
            return None
        fetch, train = self.price.of(self.fetching.seconds), self.price.of(self.training.seconds)
        return {
            "price_per_hour": self.price.per_hour,
            "currency": self.price.currency,
            "fetch": fetch,
            "training": train,
            "total": total((fetch, train)),
        }

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
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
        head = f"plan for {names}: {count(self.images, 'image')}, {count(self.boxes, 'box')}"
        told = [f"{head}; {self.pending:,} still to be fetched", str(self.fetching)]
        told += [str(disk) for disk in self.disks]
        told.append(str(self.training))
        if self.price is not None:
            told.append(self._told_money(self.price))
        return "\n".join(told)

    def _told_money(self, price: Price) -> str:
        rows = [
            (f"  {name}", told_money(price.of(seconds), price.currency))
            for name, seconds in (
                ("fetch", self.fetching.seconds),
                ("training", self.training.seconds),
                ("together", total((self.fetching.seconds, self.training.seconds))),
            )
        ]
        return f"to pay, at {told_money(price.per_hour, price.currency)} an hour\n{columns(rows)}"

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            UnavailableError: As ``Disk.check``.
        """
        for disk in self.disks:
            disk.check()
