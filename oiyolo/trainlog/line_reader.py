"""One line after the other, each with all care: what a line means after those before it.

How lines belong together: darknet prints one region line per detection layer and subdivision,
then the line of the iteration they were part of. AlexeyAB's region lines go to stderr at once
and its iteration line to stdout at the end of the iteration, so that order holds in a log taken
with ``2>&1`` as well (a region line's total_loss there is the loss of the iteration after it).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.trainlog.dialects import (
    DIALECTS,
    ITERATION_BEGINS,
    LOOKS_BROKEN,
    NETWORK_SHOWN,
    SIZE,
    WORD_GROUPS,
    number,
    numbers_of_iteration,
)
from oiyolo.trainlog.line_matcher import event, recognised, without_codes
from oiyolo.trainlog.records import REGION_NUMBERS
from oiyolo.trainlog.rows import NO_LAYER, UNASSIGNED, Event, MapPoint

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

    from oiyolo.trainlog.dialects import Dialect, EventKind, Form
    from oiyolo.trainlog.line_matcher import Found
    from oiyolo.trainlog.records import Records, Values

LONGEST_PART = 1 << 16
"""Bytes of a line that are read as one piece; darknet's own lines stay below 500."""

_LONGEST_EVENT_TEXT = 500
_MOST_GPUS = 16  # with n GPUs a training from scratch may begin with iteration n
_TORN_SHOWN = 5


def end_of_part(line: bytes | bytearray, start: int) -> int:
    """Tell where to cut a line that is too long: after a carriage return, if there is one."""
    return line.rfind(b"\r", start, start + LONGEST_PART) + 1 or start + LONGEST_PART


class LineReader:
    """Takes the lines of a log in their order and fills records.

    Attributes:
        records: What was found.
        regions_ahead: Region rows before the present line that are not among the records yet.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.regions_ahead = 0
        self.within_line = False
        self._line_used = False
        self._line_blank = True
        self._torn_head: tuple[str, int] | None = None
        self._pending_from = 0  # first region line that waits for its iteration
        self._latest: int | None = None
        self._run = 0
        self._run_is_new = False  # a training was announced and has no iteration yet
        self._network_shown = False  # a process has begun since the latest iteration
        self._size_follows = False  # after "Resizing"

    @property
    def waits(self) -> bool:
        """Whether what comes next may be the rest of what came last."""
        return self.within_line or self._torn_head is not None

    def goes_on_with(self, iteration: int) -> bool:
        """Tell whether that iteration simply follows on those before it, in the same run."""
        return not self._run_is_new and (self._latest is None or iteration > self._latest)

    def take(self, line: bytes, *, ends: bool = True) -> None:
        """Take a line without its newline, or, with ``ends=False``, a piece of one."""
        if not self.within_line:
            self.records.lines += 1
            self.within_line, self._line_used, self._line_blank = True, False, True
        start = 0
        while len(line) - start > LONGEST_PART:
            end = end_of_part(line, start)
            self._take_parts(line[start:end])
            start = end
        self._take_parts(line[start:])
        if ends:
            self.records.other += not (self._line_blank or self._line_used)
            self.within_line = False

    def take_iterations(self, columns: Mapping[str, Values], regions_to: Values) -> None:
        """Take iteration lines at once that go on from what was read, one after the other.

        Args:
            columns: Those of the records that the lines themselves give.
            regions_to: Region lines before each.
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
        self._network_shown = False

    def end(self) -> None:
        """Give up waiting: the log has come to its end."""
        if self.within_line:
            self.take(b"")
        self._give_up_torn_head()

    def _take_parts(self, line: bytes) -> None:
        """Take a line, or a piece of one; progress within it is apart by carriage returns."""
        for part in line.split(b"\r"):
            text = without_codes(part.decode("utf-8", errors="replace"))
            if text and not text.isspace():
                self._line_blank = False
                self._line_used |= self._take_part(text)

    def _take_part(self, text: str) -> bool:
        """Take one part of a line; tell whether it held anything for the tables."""
        if self._torn_head is not None and not text.startswith("Saving weights to"):
            head, line = self._torn_head
            whole = head + text
            found = recognised(whole)
            if found:
                self._torn_head = None
                self.records.mended += 1
                self._take_found(found, line)
                return True
            self._give_up_torn_head()
        line = self.records.lines
        found = recognised(text)
        rest = text
        if found:
            self._take_found(found, line)
            rest = text[found[-1][2].end() :]
        used = bool(found)
        if rest and not rest.isspace():
            used |= self._take_event(rest, line)
        if not used and LOOKS_BROKEN.search(text):
            self._take_torn(text, line)
            used = True
        return used

    def _take_found(self, found: Sequence[Found], line: int) -> None:
        for dialect, form, match in found:
            self.records.saw(dialect.name, line)
            if form is dialect.iteration:
                self._take_iteration(dialect, match, line)
            elif form in dialect.regions:
                self._take_region(form, match, line)
            else:
                self._take_map(match, line)

    def _take_iteration(self, dialect: Dialect, match: re.Match[str], line: int) -> None:
        numbers, words = _groups(match)
        n = int(match["iteration"])
        announced, latest = self._run_is_new, self._latest
        if latest is not None and (announced or n <= latest):
            self._run += 1
        self._run_is_new = False
        self._network_shown = False
        if (announced and n > _MOST_GPUS) or (
            not announced and latest is not None and 1 < n <= latest
        ):
            self._add_event("resume", match[0], line)
        self.records.iterations.append(
            {
                "iteration": n,
                "images": int(match["images"]),
                "run": self._run,
                "line": line,
                **numbers_of_iteration(numbers, words),
                "regions_from": self._pending_from,
                "regions_to": self._regions(),
                "dialect": DIALECTS.index(dialect),
            }
        )
        self._latest = n
        self._drop_pending()

    def _take_region(self, form: Form, match: re.Match[str], line: int) -> None:
        if not self.records.keep_regions:
            self.records.regions_counted += 1
            return
        numbers, _ = _groups(match)
        count = int(match["count"])
        if count == 0 or (form.zero_is_empty and count == 1 and numbers["iou"] == 0):
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

    def _take_map(self, match: re.Match[str], line: int) -> None:
        numbers, words = _groups(match)
        point = MapPoint(
            iteration=UNASSIGNED if self._latest is None else self._latest,
            map=numbers["map"] / 100 if "percent" in words else numbers["map"],
            threshold=numbers.get("threshold", math.nan),
            run=self._run,
            line=line,
        )
        if not self.records.maps or not _same_measure(self.records.maps[-1], point):
            self.records.maps.append(point)

    def _take_event(self, text: str, line: int) -> bool:
        events = self.records.events
        if self._size_follows and SIZE.fullmatch(text):
            events[-1] = events[-1]._replace(text=f"{events[-1].text} {text.strip()}")
            self._size_follows = False
            return True
        if NETWORK_SHOWN.match(text):
            self._network_shown = True
            self._drop_pending()
            return False
        found = event(text)
        if found is None:
            return False
        kind, match = found
        self._size_follows = kind == "resize"
        words = text
        if kind == "saved":
            head, words = text[: match.start()], text[match.start() :]
            if LOOKS_BROKEN.search(head) or ITERATION_BEGINS.search(head):
                self._torn_head = (head, line)
        elif kind == "start":
            self._run_is_new = True
            # Region lines of a training that was killed are not those of the one that begins.
            # Where the network was shown they are gone already; what came since belongs to the
            # new training, whose buffered "Learning Rate" may come after its region lines.
            if self._latest is not None and not self._network_shown:
                self._drop_pending()
        self._add_event(kind, words, line)
        return True

    def _add_event(self, kind: EventKind, words: str, line: int) -> None:
        iteration = UNASSIGNED if self._latest is None else self._latest
        text = words.strip()[:_LONGEST_EVENT_TEXT]
        self.records.events.append(Event(line, iteration, kind, text))

    def _take_torn(self, text: str, line: int) -> None:
        self.records.torn += 1
        if len(self.records.torn_lines) < _TORN_SHOWN:
            self.records.torn_lines.append(line)
        if ITERATION_BEGINS.search(text):  # its region lines are not those of the next iteration
            self._drop_pending()

    def _give_up_torn_head(self) -> None:
        if self._torn_head is not None:
            text, line = self._torn_head
            self._torn_head = None
            self._take_torn(text, line)

    def _regions(self) -> int:
        return len(self.records.regions) + self.regions_ahead

    def _drop_pending(self) -> None:
        """Have the next iteration begin with no region lines."""
        self._pending_from = self._regions()


def _groups(match: re.Match[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Give the groups that took part in a match: the numbers, and the others."""
    groups = {name: text for name, text in match.groupdict().items() if text is not None}
    words = {name: groups.pop(name) for name in WORD_GROUPS & groups.keys()}
    return {name: number(text) for name, text in groups.items()}, words


def _same_measure(a: MapPoint, b: MapPoint) -> bool:
    """Tell whether darknet only printed a measure twice, as AlexeyAB's does."""
    same_threshold = a.threshold == b.threshold or math.isnan(a.threshold + b.threshold)
    return (a.run, a.iteration) == (b.run, b.iteration) and same_threshold and a.map == b.map
