"""The plan of a run, for people and for ``data/plan.json``.

The attributes of each class are the keys of the JSON.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.disks import disk_full_error
from oiyolo.core.results import TERMINAL_WIDTH, Result, format_table, pluralize
from oiyolo.core.units import format_bytes, format_duration, format_money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_INDENT: Final = " " * 6
_LONG_S: Final = 100.0
KEPT_IMAGES: Final = "images"
"""The part of the disk space for the fetched images if they are kept."""


@dataclass(frozen=True)
class SourceEstimate:
    """What would be fetched from a source.

    Attributes:
        images, bytes: Number of images and bytes to download over the network.
        pending_images, pending_bytes: The part of these that is still to be fetched.
        basis: What the numbers are based on.
    """

    images: int
    bytes: int
    pending_images: int
    pending_bytes: int
    basis: str


@dataclass(frozen=True)
class FetchEstimate(SourceEstimate):
    """The estimate for the fetch from the configured sources in their order.

    Attributes:
        order: The sources in their order, in words.
        bandwidth_bytes_s: Bandwidth in bytes per second; ``None`` if unknown.
        bandwidth_from: What the bandwidth is based on; if it is unknown, how to set it.
        seconds, pending_seconds: Expected duration; ``None`` if the bandwidth is unknown.
        sources: Estimates for fetching all images from a single source, by source.
    """

    order: str
    bandwidth_bytes_s: float | None
    bandwidth_from: str
    seconds: float | None
    pending_seconds: float | None
    sources: Mapping[str, SourceEstimate]

    def __str__(self) -> str:
        labelled: list[tuple[str, SourceEstimate]] = [(self.order, self)]
        labelled += [(f"if all from {name}", estimate) for name, estimate in self.sources.items()]
        rows = [("download", "all", "pending")]
        rows += [
            (f"  {label}", format_bytes(estimate.bytes), format_bytes(estimate.pending_bytes))
            for label, estimate in labelled
        ]
        rows.append(
            ("  time", format_duration(self.seconds), format_duration(self.pending_seconds))
        )
        note = self.bandwidth_from
        if self.bandwidth_bytes_s is not None:
            note = f"at {format_bytes(self.bandwidth_bytes_s)}/s, {note}"
        notes = ["", *(estimate.basis for _, estimate in labelled), note]
        noted = zip(format_table(rows).splitlines(), notes, strict=True)
        return "\n".join(line + _indented(text) for line, text in noted)


def _indented(note: str) -> str:
    """Return a note in lines of its own, to be appended to the line that it is about."""
    lines = textwrap.wrap(note, TERMINAL_WIDTH - len(_INDENT), break_on_hyphens=False)
    return "".join(f"\n{_INDENT}{line}" for line in lines)


@dataclass(frozen=True)
class DiskEstimate:
    """The estimated use of one file system.

    Attributes:
        folder: A folder on the file system.
        parts: Bytes that are still to be written, by kind of file.
        needed_bytes: Peak usage of these, with a margin.
        free_bytes: Free space.
        fits: Whether the free space is large enough.
    """

    folder: str
    parts: Mapping[str, int]
    needed_bytes: int
    free_bytes: int
    fits: bool

    @property
    def part_sizes(self) -> list[tuple[str, str]]:
        """The parts that are not empty: kind of file and size, in words."""
        return [(name, format_bytes(size)) for name, size in self.parts.items() if size]

    def __str__(self) -> str:
        rows = [
            *self.part_sizes,
            ("needed at most, with a margin", format_bytes(self.needed_bytes)),
            ("free", format_bytes(self.free_bytes)),
        ]
        table = format_table([(f"  {name}", size) for name, size in rows])
        return f"disk space in {self.folder}\n{table}"


@dataclass(frozen=True)
class TrainingEstimate:
    """The estimate for the training.

    Attributes:
        network: The network's name.
        size: Width and height of its input in pixels.
        images: Number of training images.
        batch: Number of images per iteration.
        iterations: Number of iterations.
        seconds_per_iteration: Duration of an iteration; ``None`` if unknown.
        rate_from: What that duration is based on; if it is unknown, how to set it.
        seconds: Expected duration of all iterations; ``None`` if unknown.
    """

    network: str
    size: tuple[int, int]
    images: int
    batch: int
    iterations: int
    seconds_per_iteration: float | None
    rate_from: str
    seconds: float | None

    def __str__(self) -> str:
        width, height = self.size
        note = self.rate_from
        if self.seconds_per_iteration is not None:
            rate_s = self.seconds_per_iteration
            rate = f"{rate_s:.3g} s" if rate_s < _LONG_S else format_duration(rate_s)
            note = f"at {rate} per iteration, {note}"
        return (
            f"training\n  {self.network} at {width}x{height} on {pluralize(self.images, 'image')}: "
            f"{pluralize(self.iterations, 'iteration')} of {pluralize(self.batch, 'image')}\n"
            f"  time {format_duration(self.seconds)}{_indented(note)}"
        )


@dataclass(frozen=True)
class CostEstimate:
    """The cost of the whole fetch and the whole training.

    Attributes:
        price_per_hour: Price of the machine per hour.
        currency: Currency of the price; may be empty.
        fetch, training, total: Cost; ``None`` if the duration is unknown.
    """

    price_per_hour: float
    currency: str
    fetch: float | None
    training: float | None
    total: float | None

    def __str__(self) -> str:
        costs = {"fetch": self.fetch, "training": self.training, "total": self.total}
        rows = [(f"  {name}", format_money(cost, self.currency)) for name, cost in costs.items()]
        price = format_money(self.price_per_hour, self.currency)
        return (
            f"cost at {price} per hour\n{format_table(rows)}\n"
            "  `oiyolo evaluate --baseline`, after `oiyolo split`, shows what a detector reaches\n"
            "  that costs no training"
        )


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
        fetch: Estimate for the fetch.
        disks: Estimates for the file systems that are written to.
        final_bytes: The project's final disk usage.
        fits: Whether the run fits on all disks.
        training: Estimate for the training.
        money: Cost; ``None`` without a price.
    """

    at: str
    selection: str
    classes: Sequence[str]
    images: int
    pending: int
    boxes: int
    fetch: FetchEstimate
    disks: Sequence[DiskEstimate]
    final_bytes: int
    fits: bool
    training: TrainingEstimate
    money: CostEstimate | None

    def as_dict(self) -> dict[str, object]:
        """Return the plan as JSON-compatible values, the content of ``data/plan.json``."""
        return asdict(self)

    def __str__(self) -> str:
        names = ", ".join(self.classes)
        head = (
            f"plan for {names}: {pluralize(self.images, 'image')}, {pluralize(self.boxes, 'box')}; "
            f"{self.pending:,} still to be fetched"
        )
        parts = [head, self.fetch, *self.disks, self.training, self.money]
        return "\n".join(str(part) for part in parts if part is not None)

    def check(self) -> None:
        """Raise if the run does not fit on a disk.

        Raises:
            UnavailableError: Less space is free than is needed.
        """
        for disk in self.disks:
            if disk.fits:
                continue
            parts = ", ".join(f"{name} {size}" for name, size in disk.part_sizes)
            options = ["select fewer images (--limit)", "prepare smaller ones (--size)"]
            if KEPT_IMAGES in disk.parts:
                options.append("use --no-keep-originals, which keeps only the prepared images")
            raise disk_full_error(
                Path(disk.folder),
                disk.needed_bytes,
                what="this run",
                parts=f"{parts}, and a margin",
                remedy=f"{', '.join(options[:-1])}, or {options[-1]}",
            )
