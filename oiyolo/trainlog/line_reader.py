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
    FAILED_OPEN,
    ITERATION_START,
    LINE_FRAGMENT,
    LOADED_SECONDS,
    WORD_GROUPS,
    is_bottleneck,
    iteration_values,
    parse_number,
)
from oiyolo.trainlog.line_matcher import (
    MAX_PART_BYTES,
    end_of_records,
    find_matches,
    match_parts,
)
from oiyolo.trainlog.line_templates import DIGITS_TO_ZERO, LOADED, OTHER, UNKNOWN
from oiyolo.trainlog.rows import UNASSIGNED, Event, MapPoint, ValidLoss

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.trainlog.dialects import Dialect, EventKind, RemarkKind
    from oiyolo.trainlog.line_matcher import LineMatch, Part
    from oiyolo.trainlog.records import Records

_MAX_EVENT_CHARS = 500
_MAX_GPUS = 16  # with n GPUs, training from scratch may start at iteration n
_MAX_LINES_LISTED = 5
_SAVING = "Saving weights to"
_MAX_EVENTS_AFTER_SAVE = 10  # darknet fails at once; lines of stdout may come in between
_MAP_TOLERANCE = 6e-5  # two printed decimals of a percentage


class LineReader:
    """Reads the lines of a log in order and adds their contents to the records.

    Each line is matched on its own (``match_parts``) and then interpreted in context. Later lines
    with the same template are not matched again if they need no context, or only continue a run.

    Attributes:
        records: The records so far.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self._within_line = False  # the last part that was read did not end its line
        self._is_cut = False  # nor did it end at a carriage return
        self._cut_is_counted = False
        self._line_used = False
        self._line_blank = True
        self._torn_head: tuple[str, int] | None = None
        self._pending_from = 0  # first region row without an iteration yet
        self._latest: int | None = None
        self._run = 0
        self._run_is_new = False  # training has started but has no iteration yet
        self._layer_table_seen = False  # since the latest iteration; printed by a new process
        self._expects_size = False  # on the line after "Resizing"
        self._last_map = math.nan  # the mAP measured last, which forks repeat in each iteration
        self._last_map_text: bytes | None = None  # as it is repeated
        self._awaits_iteration = False  # the last mAP was measured before the first iteration line

    def has_known_kind(self, line: bytes) -> bool:
        """Return whether a line is a region line or without values, from one of its template."""
        return line.translate(DIGITS_TO_ZERO) in self.records.region_lines.kinds

    def read_lines(self, lines: Sequence[bytes]) -> None:
        """Read whole lines without their newlines; the first may end a line that was begun."""
        if not lines:
            return
        records, lines_before = self.records, self.records.lines - self._within_line
        kinds = records.region_lines.kinds_of(lines)
        is_row = (kinds >= 0) & records.keep_regions
        regions_before = [0, *np.cumsum(is_row).tolist()]
        start = self._read_continuations(lines, kinds, 0)
        for index in np.flatnonzero(kinds == UNKNOWN).tolist():
            if index < start:
                continue
            records.region_count += regions_before[index] - regions_before[start]
            records.lines = lines_before + index
            if not self._read_by_template(lines[index]):
                self.read_line(lines[index])
            start = self._read_continuations(lines, kinds, index + 1)
        records.region_count += regions_before[-1] - regions_before[start]
        records.lines = lines_before + len(lines)
        records.other += int(np.count_nonzero(kinds == OTHER))
        if len(loaded := np.flatnonzero(kinds == LOADED)):
            self._add_loads([lines[index] for index in loaded.tolist()], lines_before + 1 + loaded)
        records.add_region_lines(lines, kinds, lines_before + 1)

    def _read_by_template(self, line: bytes) -> bool:
        """Read an iteration that continues the run, or skip a repeated mAP; return whether it was.

        Other lines must be matched on their own.
        """
        key = line.translate(DIGITS_TO_ZERO)
        dialect, slices = self.records.region_lines.iterations.get(key, (None, {}))
        if dialect is None:
            where = self.records.region_lines.last_maps.get(key)
            is_repeated = where is not None and line[where] == self._last_map_text
            self.records.lines += is_repeated
            return is_repeated
        if self._run_is_new or self._latest is None:
            return False
        groups = {name: line[where].decode() for name, where in slices.items()}
        if int(groups["iteration"]) <= self._latest:
            return False
        self.records.lines += 1
        self.records.add_dialect(dialect.name, self.records.lines)
        self._add_iteration(dialect, groups, self.records.lines)
        return True

    def _read_continuations(
        self, lines: Sequence[bytes], kinds: npt.NDArray[np.intp], start: int
    ) -> int:
        """Read lines that may continue the previous one, and return the index after them."""
        while (self._within_line or self._torn_head is not None) and start < len(lines):
            kinds[start] = UNKNOWN
            self.read_line(lines[start])
            start += 1
        return start

    def read_line(self, line: bytes) -> None:
        """Read a line without its newline, or the rest of one."""
        is_whole = not self._within_line
        rest = self.read_start(line)
        parts = self._match_parts(rest)
        self._read_parts(parts)
        self.records.other += not (self._line_blank or self._line_used)
        self._within_line = self._is_cut = False
        if is_whole:
            self.records.region_lines.learn(line, parts)

    def read_start(self, line: bytes) -> bytes:
        """Read the start of a line that is too long to be read at once; return the rest of it."""
        if not self._within_line:
            self.records.lines += 1
            self._within_line, self._line_used, self._line_blank = True, False, True
            self._cut_is_counted = False
        start = 0
        while len(line) - start > MAX_PART_BYTES:
            start = self._read_overlong(line, start)
        return line[start:] if start else line

    def _read_overlong(self, line: bytes, start: int) -> int:
        """Read the next part of an overlong line, and return the index after it.

        A part ends after a carriage return, else between two records. What is said between the
        records of a line that is cut is not read, because it might be cut itself.
        """
        window = line[start : start + MAX_PART_BYTES]
        if end := window.rfind(b"\r") + 1:
            self._read_parts(self._match_parts(window[:end]))
            return start + end
        end = end_of_records(window)
        if not self._cut_is_counted:
            self.records.cut += 1
            if len(self.records.cut_lines) < _MAX_LINES_LISTED:
                self.records.cut_lines.append(self.records.lines)
        self._cut_is_counted = self._is_cut = True
        self._read_parts(match_parts(window[:end], remarks=False))
        return start + end

    def _match_parts(self, text: bytes) -> list[Part]:
        """Return the parts of some text up to the end of its line or a carriage return."""
        if not self._is_cut:
            return match_parts(text)
        head, _, tail = text.partition(b"\r")
        self._is_cut = False
        return [*match_parts(head, remarks=False), *match_parts(tail)]

    def forget_rows(self) -> None:
        """Drop the rows read so far, unless some still belong to the next iteration."""
        if self._pending_from == self.records.region_count:
            self.records.drop_rows()
            self._pending_from = 0
            self._expects_size = False

    def finish(self) -> None:
        """Finish the log; a torn line whose rest never came is counted as broken."""
        if self._within_line:
            self.read_line(b"")
        self._discard_torn_head()

    def _read_parts(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._line_blank = False
            self._line_used |= self._read_part(part)

    def _read_part(self, part: Part) -> bool:
        """Read one part of a line; return whether it contained anything for the tables."""
        if self._torn_head is not None and not part.text.startswith(_SAVING):
            head, line = self._torn_head
            matches = find_matches(head + part.text)
            if matches:
                self._torn_head = None
                self.records.mended += 1
                self._add_matches(matches, line)
                return True
            self._discard_torn_head()
        line = self.records.lines
        self._add_matches(part.matches, line)
        is_used = bool(part.matches)
        if part.remark is not None:
            is_used |= self._add_remark(*part.remark, line)
        return is_used

    def _add_matches(self, matches: Sequence[LineMatch], line: int) -> None:
        for dialect, line_format, match in matches:
            self.records.add_dialect(dialect.name, line)
            groups = {name: text for name, text in match.groupdict().items() if text is not None}
            if line_format in dialect.iterations:
                self._begin_run(match, line)
                self._add_iteration(dialect, groups, line)
            elif line_format in dialect.regions:
                numbers, _ = _split_groups(groups)
                self.records.add_region(
                    {**numbers, "zero_is_empty": line_format.zero_is_empty, "line": line}
                )
            elif "last_map" in groups:
                self._add_last_map(groups, line)
            else:
                self._add_map_point(groups, line)

    def _begin_run(self, match: re.Match[str], line: int) -> None:
        """Begin a new run if an iteration line does not continue the current one."""
        n = int(match["iteration"])
        is_announced, latest = self._run_is_new, self._latest
        if latest is not None and (is_announced or n <= latest):
            self._run += 1
        self._run_is_new = False
        if (is_announced and n > _MAX_GPUS) or (
            not is_announced and latest is not None and 1 < n <= latest
        ):
            self._add_event("resume", match[0], line)

    def _add_iteration(self, dialect: Dialect, groups: Mapping[str, str], line: int) -> None:
        numbers, words = _split_groups(groups)
        if "last_map" in groups and groups["last_map"].encode() != self._last_map_text:
            self._add_last_map(groups, line)
        self._latest = int(groups["iteration"])
        if self._awaits_iteration:
            self._awaits_iteration = False
            self._assign_last_map()
        self.records.iterations.append(
            {
                "iteration": self._latest,
                "images": int(groups.get("images", 0)),
                "run": self._run,
                "line": line,
                **iteration_values(numbers, words),
                "regions_from": self._pending_from,
                "regions_to": self.records.region_count,
                "dialect": DIALECTS.index(dialect),
            }
        )
        self._layer_table_seen = False
        self._discard_pending_regions()

    def _add_map_point(self, groups: Mapping[str, str], line: int) -> None:
        numbers, words = _split_groups(groups)
        point = MapPoint(
            iteration=UNASSIGNED if self._latest is None else self._latest,
            map=numbers["map"] / 100 if "percent" in words else numbers["map"],
            threshold=numbers.get("threshold", math.nan),
            run=self._run,
            line=line,
        )
        self._last_map, self._last_map_text, self._awaits_iteration = point.map, None, False
        if not self.records.maps or not _is_same_measurement(self.records.maps[-1], point):
            self.records.maps.append(point)

    def _add_last_map(self, groups: Mapping[str, str], line: int) -> None:
        """Add the mAP that each iteration repeats, unless it has been added before.

        It was measured after the previous iteration line. At the start of an excerpt that line is
        missing; then the iteration that follows stands for it.
        """
        value = parse_number(groups["last_map"]) / 100
        self._last_map_text = groups["last_map"].encode()
        if not math.isfinite(value) or abs(value - self._last_map) <= _MAP_TOLERANCE:
            return
        self._last_map = value
        self._awaits_iteration = self._latest is None or self._run_is_new
        threshold = parse_number(groups["threshold"]) if "threshold" in groups else math.nan
        iteration = UNASSIGNED if self._latest is None else self._latest
        self.records.maps.append(MapPoint(iteration, value, threshold, self._run, line))

    def _assign_last_map(self) -> None:
        """Assign the last mAP to the iteration whose line has just been read."""
        if self.records.maps and self._latest is not None:
            point = self.records.maps[-1]
            self.records.maps[-1] = point._replace(iteration=self._latest, run=self._run)

    def _add_remark(self, kind: RemarkKind, match: re.Match[str], line: int) -> bool:
        """Add what a remark says; return whether it is in the records."""
        text = match.string
        if kind == "size":
            return self._add_size(text)
        if kind == "layers":
            self._layer_table_seen = True
            self._discard_pending_regions()
            return False
        if kind == "fragment":
            self._add_torn_line(text, line)
        elif kind == "valid_loss":
            iteration = UNASSIGNED if self._latest is None else self._latest
            loss = parse_number(match["loss"])
            self.records.valid_losses.append(ValidLoss(iteration, loss, self._run, line))
        elif kind != "load":
            self._add_event_of(kind, match, line)
        else:
            self._add_loads([text.encode()], np.array([line]))
            if is_bottleneck(text):
                self._add_event("warning", text, line)
        return True

    def _add_event_of(self, kind: EventKind, match: re.Match[str], line: int) -> None:
        text = match.string
        self._expects_size = kind == "resize"
        if kind == "saved":
            head, text = text[: match.start()], text[match.start() :]
            if LINE_FRAGMENT.search(head) or ITERATION_START.search(head):
                self._torn_head = (head, line)
        elif kind == "error":
            self._retract_save(text)
        elif kind == "start":
            self._run_is_new = True
            self._last_map, self._last_map_text = math.nan, None
            # Region lines of a killed run do not belong to the one that starts. After a layer
            # table they have been discarded already, and the lines since then belong to the new
            # run, whose buffered "Learning Rate" may come after its first region lines.
            if self._latest is not None and not self._layer_table_seen:
                self._discard_pending_regions()
        self._add_event(kind, text, line)

    def _add_loads(self, lines: Sequence[bytes], numbers: npt.NDArray[np.intp]) -> None:
        matches = map(LOADED_SECONDS.search, lines)
        seconds = [math.nan if match is None else float(match["seconds"]) for match in matches]
        self.records.loads.extend({"line": numbers, "seconds": np.array(seconds)})

    def _retract_save(self, error: str) -> None:
        """Turn the latest event about saving a file that cannot be opened into a warning."""
        match = FAILED_OPEN.search(error)
        if match is None:
            return
        saving = f"{_SAVING} {(match[1] or match[2]).strip()}"[:_MAX_EVENT_CHARS]
        events = self.records.events
        for index in range(len(events) - 1, max(-1, len(events) - _MAX_EVENTS_AFTER_SAVE - 1), -1):
            if events[index].kind == "saved" and events[index].text == saving:
                events[index] = events[index]._replace(kind="warning", text=f"{saving} (failed)")
                return

    def _add_size(self, text: str) -> bool:
        if not self._expects_size:
            return False
        event = self.records.events[-1]
        self.records.events[-1] = event._replace(text=f"{event.text} {text.strip()}")
        self._expects_size = False
        return True

    def _add_event(self, kind: EventKind, event_text: str, line: int) -> None:
        iteration = UNASSIGNED if self._latest is None else self._latest
        text = event_text.strip()[:_MAX_EVENT_CHARS]
        self.records.events.append(Event(line, iteration, kind, text))

    def _add_torn_line(self, text: str, line: int) -> None:
        self.records.torn += 1
        if len(self.records.torn_lines) < _MAX_LINES_LISTED:
            self.records.torn_lines.append(line)
        if ITERATION_START.search(text):  # the next iteration must not get its region lines
            self._discard_pending_regions()

    def _discard_torn_head(self) -> None:
        if self._torn_head is not None:
            text, line = self._torn_head
            self._torn_head = None
            self._add_torn_line(text, line)

    def _discard_pending_regions(self) -> None:
        """Assign no earlier region lines to the next iteration."""
        self._pending_from = self.records.region_count


def _split_groups(groups: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the groups that are numbers, and the other ones as text."""
    words = {name: groups[name] for name in WORD_GROUPS & groups.keys()}
    numbers = {name: parse_number(groups[name]) for name in groups.keys() - words.keys()}
    return numbers, words


def _is_same_measurement(a: MapPoint, b: MapPoint) -> bool:
    """Return whether two mAP points are one measurement, which AlexeyAB's fork prints twice."""
    same_threshold = a.threshold == b.threshold or math.isnan(a.threshold + b.threshold)
    return (a.run, a.iteration) == (b.run, b.iteration) and same_threshold and a.map == b.map
