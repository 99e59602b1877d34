"""Summarize a log: what was recognised, what was skipped, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core.results import pluralize
from oiyolo.trainlog.dialects import DIALECTS
from oiyolo.trainlog.line_matcher import MAX_PART_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.trainlog.records import Records, Values

_EXCESS_RATIO = 8
"""Above this ratio to later iterations, a first iteration has region lines of other iterations."""


@dataclass(frozen=True)
class Summary:
    """Counts of what was recognised in a log and what was skipped; ``str()`` describes them.

    Attributes:
        lines: Lines in the file.
        iterations: Iteration lines.
        first_iteration: Number of the first iteration in the file; ``None`` without iterations.
        last_iteration: Number of the last iteration in the file; ``None`` without iterations.
        runs: Runs in the file.
        dialects: Names of the recognised dialects, in order of appearance.
        regions: Region lines.
        regions_empty: Region lines without an object (count 0), which have no IOU.
        regions_unassigned: Region lines that belong to no iteration line: none follows, another
            run started in between, the iteration line is torn, or stderr precedes stdout.
        maps: mAP points.
        mended: Lines that another stream had split in two and that were rejoined.
        torn: Fragments of iteration or region lines, which were skipped.
        torn_lines: 1-based line numbers of the first few fragments.
        cut: Lines too long to be read at once, of which only iteration lines, region lines and mAP
            were read.
        cut_lines: 1-based line numbers of the first few of them.
        other: Lines with nothing for the tables (layer tables, times, prose).
        notes: Remarks beyond the counts.
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
    cut: int
    cut_lines: tuple[int, ...]
    other: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        dialects = f" in {' and '.join(self.dialects)} format" if self.dialects else ""
        text = [f"{pluralize(self.lines, 'line')}{dialects}"]
        if self.first_iteration is None:
            text.append("0 iteration lines")
        else:
            span = f"{self.first_iteration:,} to {self.last_iteration:,}"
            runs = f" in {self.runs} runs" if self.runs > 1 else ""
            text.append(f"{pluralize(self.iterations, 'iteration')}: {span}{runs}")
        if self.regions:
            empty = f", {self.regions_empty:,} of them with count 0 and therefore without IOU"
            lines = pluralize(self.regions, "region line")
            text.append(lines + (empty if self.regions_empty else ""))
        if self.regions_unassigned:
            text.append(
                f"{pluralize(self.regions_unassigned, 'region line')} without an iteration line: "
                "not assigned to any iteration"
            )
        if self.maps:
            text.append(pluralize(self.maps, "mAP point"))
        return "\n".join([*text, *self._irregular_lines(), *self.notes])

    def _irregular_lines(self) -> Iterator[str]:
        """Yield what was mended or skipped."""
        if self.mended:
            yield f"{pluralize(self.mended, 'line')} split by another stream: rejoined"
        if self.torn:
            lines = _line_numbers(self.torn_lines, self.torn)
            yield f"{pluralize(self.torn, 'broken line')} skipped ({lines})"
        if self.cut:
            lines = _line_numbers(self.cut_lines, self.cut)
            yield (
                f"{pluralize(self.cut, 'line')} above {MAX_PART_BYTES >> 10} KiB ({lines}): only "
                "iterations, region lines and mAP were read, other text was skipped"
            )
        if self.other:
            yield f"{pluralize(self.other, 'line')} of other text skipped"


def _line_numbers(first_lines: Sequence[int], n: int) -> str:
    """Return the first few of ``n`` line numbers as text."""
    return f"line {', '.join(map(str, first_lines))}{', ...' if n > len(first_lines) else ''}"


def iterations_with_excess_regions(records: Records) -> Values:
    """Return the rows of iterations preceded by region lines of other iterations, shape (k,).

    If stderr precedes stdout in a file (AlexeyAB's region lines are on stderr), all region lines
    come before the first iteration line. Each layer prints one region line per subdivision, so the
    first iteration of a run cannot have more than eight times as many as any later one.
    """
    sizes = records.iterations.read("regions_to") - records.iterations.read("regions_from")
    starts = np.flatnonzero(np.diff(records.iterations.read("run"), prepend=-1))
    ends = np.append(starts[1:], len(sizes))
    has_more = ends - starts > 1
    starts, ends = starts[has_more], ends[has_more]
    max_sizes = [sizes[start + 1 : end].max() for start, end in zip(starts, ends, strict=True)]
    return (
        starts[sizes[starts] > _EXCESS_RATIO * np.maximum(max_sizes, 1)] if len(starts) else starts
    )


def summarize(records: Records) -> Summary:
    """Return the summary of a parser's records."""
    n = len(records.iterations)
    numbers = records.iterations.read("iteration")
    sizes = records.iterations.read("regions_to") - records.iterations.read("regions_from")
    sizes[iterations_with_excess_regions(records)] = 0
    return Summary(
        lines=records.lines,
        iterations=n,
        first_iteration=int(numbers[0]) if n else None,
        last_iteration=int(numbers[-1]) if n else None,
        runs=int(records.iterations.read("run", n - 1)[0]) + 1 if n else 0,
        dialects=tuple(sorted(records.dialects, key=lambda name: records.dialects[name])),
        regions=len(records.regions) + records.regions_counted,
        regions_empty=records.regions_empty,
        regions_unassigned=len(records.regions) - int(sizes.sum()),
        maps=len(records.maps),
        mended=records.mended,
        torn=records.torn,
        torn_lines=tuple(records.torn_lines),
        cut=records.cut,
        cut_lines=tuple(records.cut_lines),
        other=records.other,
        notes=tuple(_notes(records, int(sizes.sum()))),
    )


def _notes(records: Records, assigned_count: int) -> Iterator[str]:
    """Yield remarks beyond the counts."""
    regions = len(records.regions)
    if records.regions_counted:
        yield "region lines were only counted, so iterations have no IOU"
    elif len(records.iterations) and not regions:
        reasons = [d.missing_regions_reason for d in DIALECTS if d.name in records.dialects]
        yield f"0 region lines: {'; '.join(dict.fromkeys(reasons))}"
    for row in iterations_with_excess_regions(records):
        first = int(records.iterations.read("iteration", row, row + 1)[0])
        yield (
            f"most region lines come before iteration {first}, far more than before any later one: "
            "stderr seems to precede stdout in this file, so they are not assigned to iterations"
        )
    if len(records.iterations) and not assigned_count and records.regions_empty < regions:
        yield "no region line precedes its iteration line, so there is no IOU"
    not_finite = int(np.count_nonzero(~np.isfinite(records.iterations.read("loss"))))
    if not_finite:
        yield f"{pluralize(not_finite, 'iteration')} with a loss of nan or inf"
    yield from divergence_messages(records)
    errors = [event for event in records.events if event.kind == "error"]
    if errors:
        last = errors[-1]
        yield f"{pluralize(len(errors), 'error')}, the last on line {last.line}: {last.text}"


def divergence_messages(records: Records) -> list[str]:
    """Return a message if the average loss is not finite at the end of the log; else nothing."""
    average = records.iterations.read("avg_loss")
    finite = np.flatnonzero(np.isfinite(average))
    first = int(finite[-1]) + 1 if len(finite) else 0
    if first == len(average):
        return []
    loss, rate, number = (
        records.iterations.read(name, first, first + 1)[0].item()
        for name in ("loss", "rate", "iteration")
    )
    since = f"from iteration {number} on (loss {loss}, learning rate {rate:g})"
    return [f"the average loss is {average[first].item()} {since}: training has diverged"]


def collect_complaints(records: Records) -> list[str]:
    """Return the errors that darknet printed and an unrecovered divergence, each once, in order."""
    messages = [event.text for event in records.events if event.kind == "error"]
    return list(dict.fromkeys(messages + divergence_messages(records)))
