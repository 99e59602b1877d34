"""Convert darknet's lines to training events, one at a time and cheaply.

``trainlog.parse`` builds tables from a log and keeps everything it read. This reader keeps almost
nothing, because it runs alongside training for days. Both recognise lines by
``trainlog.dialects``.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from oiyolo.training.monitors import ErrorReported, IterationStats, MapMeasured, WeightsSaved
from oiyolo.trainlog.dialects import DIALECTS, NUMBER, iteration_values, parse_number
from oiyolo.trainlog.dialects import WORD_GROUPS as WORDS
from oiyolo.trainlog.line_matcher import find_event, find_matches, strip_terminal_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.training.monitors import TrainingEvent
    from oiyolo.trainlog.line_matcher import LineMatch

# One pattern for all formats of region lines, because only two of their numbers are needed here.
_REGION: Final = re.compile(rf"Avg \(?IOU: ({NUMBER}).{{1,200}}?count: (\d{{1,9}})")
_REGION_MARKS: Final = (b"Avg IOU: ", b"Avg (IOU: ")
_ITERATION_MARKS: Final = (b" avg, ", b" avg loss, ", b": loss=")
_MAP_MARK: Final = b"(mAP"
_IGNORED_STARTS: Final = (b"Loaded: ", b" total_bbox", b"total_bbox", b"Resizing", b"Syncing")
_OUT_OF_MEMORY: Final = re.compile(
    r"\bout of memory\b|OUT_OF_MEMORY|cudaErrorMemoryAllocation|STATUS_ALLOC_FAILED"
    r"|Try to set subdivisions=",
)
_SAVED_TO: Final = re.compile(r"Saving weights to\s+(\S.*)")
_ITERATION_FORMATS: Final = frozenset(dialect.iteration for dialect in DIALECTS)
_MAP_FORMATS: Final = frozenset(line_format for dialect in DIALECTS for line_format in dialect.maps)


class LiveReader:
    """A callable that converts lines of any fork of darknet to training events."""

    def __init__(self, *, not_resumable: Sequence[str] = ()) -> None:
        """Create the reader.

        Args:
            not_resumable: Suffixes of weights files from which a run cannot resume.
        """
        self._not_resumable = tuple(not_resumable)
        self._iou_sum = 0.0
        self._iou_count = 0
        self._map: float | None = None

    def __call__(self, line: bytes) -> Sequence[TrainingEvent]:
        """Return the events of a line (bytes without the newline); most lines have none."""
        if any(mark in line for mark in _REGION_MARKS):
            self._add_region(line)
        if _MAP_MARK in line or any(mark in line for mark in _ITERATION_MARKS):
            matches = find_matches(strip_terminal_codes(line.decode("utf-8", errors="replace")))
            return [event for match in matches if (event := self._event_of(match)) is not None]
        if not line or line.startswith(_IGNORED_STARTS) or b" count: " in line:
            return ()
        return self._read_other(strip_terminal_codes(line.decode("utf-8", errors="replace")))

    def _add_region(self, line: bytes) -> None:
        for iou_text, count_text in _REGION.findall(line.decode("utf-8", errors="replace")):
            iou, count = parse_number(iou_text), int(count_text)
            # AlexeyAB's layers print count 1 and IOU 0 when no object was assigned to them.
            if count and math.isfinite(iou) and not (count == 1 and iou == 0):
                self._iou_sum += iou * count
                self._iou_count += count

    def _event_of(self, line_match: LineMatch) -> TrainingEvent | None:
        _, line_format, match = line_match
        if line_format in _ITERATION_FORMATS:
            return self._iteration_stats(match)
        return self._map_measured(match) if line_format in _MAP_FORMATS else None

    def _iteration_stats(self, match: re.Match[str]) -> IterationStats:
        groups = {name: text for name, text in match.groupdict().items() if text is not None}
        words = {name: groups.pop(name) for name in WORDS & groups.keys()}
        numbers = {name: parse_number(text) for name, text in groups.items()}
        figures = iteration_values(numbers, words)
        iteration, images = int(groups["iteration"]), int(groups["images"])
        seconds = figures["seconds"]
        has_speed = iteration > 0 and images > 0 and seconds > 0
        iou = self._iou_sum / self._iou_count if self._iou_count else math.nan
        self._iou_sum, self._iou_count = 0.0, 0
        self._map = None
        speed = images / iteration / seconds if has_speed else math.nan
        return IterationStats(iteration, figures["loss"], figures["avg_loss"], speed, iou)

    def _map_measured(self, match: re.Match[str]) -> MapMeasured | None:
        value = parse_number(match["map"]) / (100 if match["percent"] else 1)
        if value == self._map:  # AlexeyAB's fork prints it twice
            return None
        self._map = value
        return MapMeasured(value)

    def _read_other(self, text: str) -> Sequence[TrainingEvent]:
        if saved := _SAVED_TO.search(text):
            path = saved[1].strip()
            return (WeightsSaved(path, resumable=not path.endswith(self._not_resumable)),)
        if _OUT_OF_MEMORY.search(text):
            return (ErrorReported(text, out_of_memory=True),)
        event_match = find_event(text)
        return (
            (ErrorReported(text),) if event_match is not None and event_match[0] == "error" else ()
        )
