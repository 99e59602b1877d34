"""What was found in a log, what was left out and why, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.trainlog.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.trainlog.records import Records, Values

_MUCH_MORE = 8
"""An iteration with as many times the region lines of any other of its run has not only its own."""


@dataclass(frozen=True)
class Summary:
    """What was found in a log and what was left out; ``str()`` of it is for a person.

    Attributes:
        lines: Lines in the file.
        iterations: Iteration lines.
        first_iteration: Number of the first one in the file; ``None`` without any.
        last_iteration: Number of the last one in the file; ``None`` without any.
        runs: Trainings in the file.
        dialects: Names of the lines of darknet that were recognised, in the file's order.
        regions: Region lines.
        regions_empty: Of those, the ones that no object met (count 0), which carry no IOU.
        regions_unassigned: Of those, the ones that belong to no iteration line: none follows, or
            another training began between, or their own was torn, or stderr stands before stdout.
        maps: mAP points.
        mended: Lines that another stream had cut in two and that were put together again.
        torn: Lines that look like a part of an iteration or region line and are skipped.
        torn_lines: The first few of their 1-based numbers.
        other: Lines that hold nothing for the tables (layer tables, times, prose).
        notes: What a reader should know beyond the counts.
    """

    lines: int
    iterations: int
    first_iteration: int | None
    last_iteration: int | None
    runs: int
    dialects: tuple[str, ...]
    regions: int
    regions_empty: int
    regions_unassigned: int
    maps: int
    mended: int
    torn: int
    torn_lines: tuple[int, ...]
    other: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        dialects = f", {' and '.join(self.dialects)} form" if self.dialects else ""
        text = [f"{_count(self.lines, 'line')}{dialects}"]
        if self.first_iteration is None:
            text.append("0 iteration lines")
        else:
            span = f"{self.first_iteration} to {self.last_iteration}"
            runs = f" in {self.runs} runs" if self.runs > 1 else ""
            text.append(f"{_count(self.iterations, 'iteration')}: {span}{runs}")
        if self.regions:
            empty = f", of those {self.regions_empty} with count 0, which carry no IOU"
            text.append(_count(self.regions, "region line") + (empty if self.regions_empty else ""))
        if self.regions_unassigned:
            text.append(
                f"{_count(self.regions_unassigned, 'region line')} not followed by an iteration "
                "line of their own: assigned to none"
            )
        if self.maps:
            text.append(_count(self.maps, "mAP point"))
        if self.mended:
            text.append(f"{_count(self.mended, 'line')} cut in two by another stream: put together")
        if self.torn:
            shown = ", ".join(map(str, self.torn_lines))
            more = ", ..." if self.torn > len(self.torn_lines) else ""
            text.append(f"{_count(self.torn, 'broken line')} skipped (line {shown}{more})")
        if self.other:
            text.append(f"{_count(self.other, 'line')} of other text skipped")
        return "\n".join([*text, *self.notes])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def overfull(found: Records) -> Values:
    """Find iterations that have the region lines of others too; shape (k,), their rows.

    Where stderr was put before stdout in one file (AlexeyAB's region lines are on stderr), all
    region lines stand before the first iteration line. A run's first iteration has not eight
    times as many region lines as the fullest of the others: each layer prints one per subdivision.
    """
    sizes = found.iterations.read("regions_to") - found.iterations.read("regions_from")
    starts = np.flatnonzero(np.diff(found.iterations.read("run"), prepend=-1))
    ends = np.append(starts[1:], len(sizes))
    several = ends - starts > 1
    starts, ends = starts[several], ends[several]
    most = [sizes[start + 1 : end].max() for start, end in zip(starts, ends, strict=True)]
    return starts[sizes[starts] > _MUCH_MORE * np.maximum(most, 1)] if len(starts) else starts


def summary_of(found: Records) -> Summary:
    """Sum up what a parser has gathered."""
    n = len(found.iterations)
    numbers = found.iterations.read("iteration")
    sizes = found.iterations.read("regions_to") - found.iterations.read("regions_from")
    sizes[overfull(found)] = 0
    return Summary(
        lines=found.lines,
        iterations=n,
        first_iteration=int(numbers[0]) if n else None,
        last_iteration=int(numbers[-1]) if n else None,
        runs=int(found.iterations.read("run", n - 1)[0]) + 1 if n else 0,
        dialects=tuple(sorted(found.dialects, key=lambda name: found.dialects[name])),
        regions=len(found.regions) + found.regions_counted,
        regions_empty=found.regions_empty,
        regions_unassigned=len(found.regions) - int(sizes.sum()),
        maps=len(found.maps),
        mended=found.mended,
        torn=found.torn,
        torn_lines=tuple(found.torn_lines),
        other=found.other,
        notes=tuple(_notes(found, int(sizes.sum()))),
    )


def _notes(found: Records, assigned: int) -> Iterator[str]:
    """What a reader of the summary should know beyond the counts."""
    regions = len(found.regions)
    if found.regions_counted:
        yield "region lines were only counted, so no iteration has an IOU here"
    elif len(found.iterations) and not regions:
        reasons = [d.without_regions for d in DIALECTS if d.name in found.dialects]
        yield f"0 region lines: {'; '.join(dict.fromkeys(reasons))}"
    for row in overfull(found):
        first = int(found.iterations.read("iteration", row, row + 1)[0])
        yield (
            f"most region lines stand before iteration {first}, far more than any later one has: "
            "stderr seems to stand before stdout here, so which iteration they are of is lost"
        )
    if len(found.iterations) and not assigned and found.regions_empty < regions:
        yield "no region line stands before the iteration line it is of, so there is no IOU"
    not_finite = int(np.count_nonzero(~np.isfinite(found.iterations.read("loss"))))
    if not_finite:
        yield f"{_count(not_finite, 'iteration')} with a loss of nan or inf"
    yield from divergence(found)
    errors = [event for event in found.events if event.kind == "error"]
    if errors:
        last = errors[-1]
        yield f"{_count(len(errors), 'error')}, the last in line {last.line}: {last.text}"


def divergence(found: Records) -> list[str]:
    """Say since when the average loss is no number, if it is none at the end of the log."""
    average = found.iterations.read("avg_loss")
    finite = np.flatnonzero(np.isfinite(average))
    first = int(finite[-1]) + 1 if len(finite) else 0
    if first == len(average):
        return []
    loss, rate, number = (
        found.iterations.read(name, first, first + 1)[0].item()
        for name in ("loss", "rate", "iteration")
    )
    since = f"from iteration {number} on (loss {loss}, learning rate {rate:g})"
    return [f"the average loss is {average[first].item()} {since}: the training has diverged"]


def complaints_of(found: Records) -> list[str]:
    """Give darknet's own words for what went wrong, each once, in the order of the log."""
    words = [event.text for event in found.events if event.kind == "error"]
    return list(dict.fromkeys(words + divergence(found)))
