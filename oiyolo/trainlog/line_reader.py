"""Read a log line by line, and interpret each line in the context of the lines before it.

Darknet prints one region line per detection layer and subdivision, then the line of the iteration
that they belong to. AlexeyAB's fork writes region lines to stderr immediately and the iteration
line to stdout at the end of the iteration, so this order also holds in a log captured with
``2>&1``. (The total_loss of its region lines is part of the loss of the iteration that follows.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.trainlog.dialects import (
    DIALECTS,
    ITERATION_START,
    LAYER_TABLE_HEADER,
    LINE_FRAGMENT,
    RESIZE_VALUE,
    WORD_GROUPS,
    iteration_values,
    parse_number,
)
from oiyolo.trainlog.line_matcher import find_event, find_matches, strip_terminal_codes
from oiyolo.trainlog.records import REGION_NUMBERS
from oiyolo.trainlog.rows import NO_LAYER, UNASSIGNED, Event, MapPoint

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

    from oiyolo.trainlog.dialects import Dialect, EventKind, LineFormat
    from oiyolo.trainlog.line_matcher import LineMatch
    from oiyolo.trainlog.records import Records, Values

MAX_PART_BYTES = 1 << 16
"""Longest part of a line that is read at once, in bytes; darknet's own lines are below 500."""

_MAX_EVENT_CHARS = 500
_MAX_GPUS = 16  # with n GPUs, training from scratch may start at iteration n
_MAX_TORN_LINES_LISTED = 5


def end_of_part(line: bytes | bytearray, start: int) -> int:
    """Return where to split an overlong line: after its last carriage return, if there is one."""
    return line.rfind(b"\r", start, start + MAX_PART_BYTES) + 1 or start + MAX_PART_BYTES


class LineReader:
    """Reads the lines of a log in order and adds their contents to the records.

    Attributes:
        records: The records so far.
        buffered_regions: Number of region rows before the current line that are not in the
            records yet.
        within_line: Whether the last part that was read did not end its line.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.buffered_regions = 0
        self.within_line = False
        self._line_used = False
        self._line_blank = True
        self._torn_head: tuple[str, int] | None = None
        self._pending_from = 0  # first region row without an iteration yet
        self._latest: int | None = None
        self._run = 0
        self._run_is_new = False  # training has started but has no iteration yet
        self._layer_table_seen = False  # since the latest iteration; printed by a new process
        self._expects_size = False  # on the line after "Resizing"

    @property
    def expects_continuation(self) -> bool:
        """Whether the next part may continue the previous one."""
        return self.within_line or self._torn_head is not None

    def continues_run(self, iteration: int) -> bool:
        """Return whether an iteration number continues the current run."""
        return not self._run_is_new and (self._latest is None or iteration > self._latest)

    def read_line(self, line: bytes, *, ends: bool = True) -> None:
        """Read a line without its newline or, with ``ends=False``, the next part of one."""
        if not self.within_line:
            self.records.lines += 1
            self.within_line, self._line_used, self._line_blank = True, False, True
        start = 0
        while len(line) - start > MAX_PART_BYTES:
            end = end_of_part(line, start)
            self._read_parts(line[start:end])
            start = end
        self._read_parts(line[start:])
        if ends:
            self.records.other += not (self._line_blank or self._line_used)
            self.within_line = False

    def add_iterations(self, columns: Mapping[str, Values], regions_to: Values) -> None:
        """Add several iteration lines at once, which must continue the current run.

        Args:
            columns: The record columns that the lines themselves contain.
            regions_to: Number of region rows before each line.
        """
        n = len(regions_to)
        rows = {
            **columns,
            "run": np.full(n, self._run),
            "regions_from": np.concatenate([[self._pending_from], regions_to[:-1]]),
            "regions_to": regions_to,
        }
        self.records.iterations.extend(rows)
        self._latest = int(columns["iteration"][-1])
        self._pending_from = int(regions_to[-1])
        self._layer_table_seen = False

    def finish(self) -> None:
        """Finish the log; a torn line whose rest never came is counted as broken."""
        if self.within_line:
            self.read_line(b"")
        self._discard_torn_head()

    def _read_parts(self, line: bytes) -> None:
        """Read a line or part of one; carriage returns separate progress updates within it."""
        for part in line.split(b"\r"):
            text = strip_terminal_codes(part.decode("utf-8", errors="replace"))
            if text and not text.isspace():
                self._line_blank = False
                self._line_used |= self._read_part(text)

    def _read_part(self, text: str) -> bool:
        """Read one part of a line; return whether it contained anything for the tables."""
        if self._torn_head is not None and not text.startswith("Saving weights to"):
            head, line = self._torn_head
            joined_text = head + text
            matches = find_matches(joined_text)
            if matches:
                self._torn_head = None
                self.records.mended += 1
                self._add_matches(matches, line)
                return True
            self._discard_torn_head()
        line = self.records.lines
        matches = find_matches(text)
        rest = text
        if matches:
            self._add_matches(matches, line)
            rest = text[matches[-1][2].end() :]
        is_used = bool(matches)
        if rest and not rest.isspace():
            is_used |= self._read_event(rest, line)
        if not is_used and LINE_FRAGMENT.search(text):
            self._add_torn_line(text, line)
            is_used = True
        return is_used

    def _add_matches(self, matches: Sequence[LineMatch], line: int) -> None:
        for dialect, line_format, match in matches:
            self.records.add_dialect(dialect.name, line)
            if line_format is dialect.iteration:
                self._add_iteration(dialect, match, line)
            elif line_format in dialect.regions:
                self._add_region(line_format, match, line)
            else:
                self._add_map_point(match, line)

    def _add_iteration(self, dialect: Dialect, match: re.Match[str], line: int) -> None:
        numbers, words = _groups(match)
        n = int(match["iteration"])
        is_announced, latest = self._run_is_new, self._latest
        if latest is not None and (is_announced or n <= latest):
            self._run += 1
        self._run_is_new = False
        self._layer_table_seen = False
        if (is_announced and n > _MAX_GPUS) or (
            not is_announced and latest is not None and 1 < n <= latest
        ):
            self._add_event("resume", match[0], line)
        self.records.iterations.append(
            {
                "iteration": n,
                "images": int(match["images"]),
                "run": self._run,
                "line": line,
                **iteration_values(numbers, words),
                "regions_from": self._pending_from,
                "regions_to": self._region_count(),
                "dialect": DIALECTS.index(dialect),
            }
        )
        self._latest = n
        self._discard_pending_regions()

    def _add_region(self, line_format: LineFormat, match: re.Match[str], line: int) -> None:
        if not self.records.keep_regions:
            self.records.regions_counted += 1
            return
        numbers, _ = _groups(match)
        count = int(match["count"])
        if count == 0 or (line_format.zero_is_empty and count == 1 and numbers["iou"] == 0):
            numbers["iou"] = math.nan
            self.records.regions_empty += 1
        self.records.regions.append(
            {
                "line": line,
                "layer": int(numbers.get("layer", NO_LAYER)),
                "count": count,
                **{name: numbers.get(name, math.nan) for name in REGION_NUMBERS},
            }
        )

    def _add_map_point(self, match: re.Match[str], line: int) -> None:
        numbers, words = _groups(match)
        point = MapPoint(
            iteration=UNASSIGNED if self._latest is None else self._latest,
            map=numbers["map"] / 100 if "percent" in words else numbers["map"],
            threshold=numbers.get("threshold", math.nan),
            run=self._run,
            line=line,
        )
        if not self.records.maps or not _is_same_measurement(self.records.maps[-1], point):
            self.records.maps.append(point)

    def _read_event(self, text: str, line: int) -> bool:
        events = self.records.events
        if self._expects_size and RESIZE_VALUE.fullmatch(text):
            events[-1] = events[-1]._replace(text=f"{events[-1].text} {text.strip()}")
            self._expects_size = False
            return True
        if LAYER_TABLE_HEADER.match(text):
            self._layer_table_seen = True
            self._discard_pending_regions()
            return False
        matched_event = find_event(text)
        if matched_event is None:
            return False
        kind, match = matched_event
        self._expects_size = kind == "resize"
        event_text = text
        if kind == "saved":
            head, event_text = text[: match.start()], text[match.start() :]
            if LINE_FRAGMENT.search(head) or ITERATION_START.search(head):
                self._torn_head = (head, line)
        elif kind == "start":
            self._run_is_new = True
            # Region lines of a killed run do not belong to the one that starts. After a layer
            # table they have been discarded already, and the lines since then belong to the new
            # run, whose buffered "Learning Rate" may come after its first region lines.
            if self._latest is not None and not self._layer_table_seen:
                self._discard_pending_regions()
        self._add_event(kind, event_text, line)
        return True

    def _add_event(self, kind: EventKind, event_text: str, line: int) -> None:
        iteration = UNASSIGNED if self._latest is None else self._latest
        text = event_text.strip()[:_MAX_EVENT_CHARS]
        self.records.events.append(Event(line, iteration, kind, text))

    def _add_torn_line(self, text: str, line: int) -> None:
        self.records.torn += 1
        if len(self.records.torn_lines) < _MAX_TORN_LINES_LISTED:
            self.records.torn_lines.append(line)
        if ITERATION_START.search(text):  # the next iteration must not get its region lines
            self._discard_pending_regions()

    def _discard_torn_head(self) -> None:
        if self._torn_head is not None:
            text, line = self._torn_head
            self._torn_head = None
            self._add_torn_line(text, line)

    def _region_count(self) -> int:
        return len(self.records.regions) + self.buffered_regions

    def _discard_pending_regions(self) -> None:
        """Assign no earlier region lines to the next iteration."""
        self._pending_from = self._region_count()


def _groups(match: re.Match[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the groups that matched: the numbers, and the other groups as text."""
    groups = {name: text for name, text in match.groupdict().items() if text is not None}
    words = {name: groups.pop(name) for name in WORD_GROUPS & groups.keys()}
    return {name: parse_number(text) for name, text in groups.items()}, words


def _is_same_measurement(a: MapPoint, b: MapPoint) -> bool:
    """Return whether two mAP points are one measurement, which AlexeyAB's fork prints twice."""
    same_threshold = a.threshold == b.threshold or math.isnan(a.threshold + b.threshold)
    return (a.run, a.iteration) == (b.run, b.iteration) and same_threshold and a.map == b.map
