"""Darknet's lines into facts, one line at a time, with next to no work for most of them.

``trainlog.parse`` makes tables of a log and keeps what it read; this keeps nothing, because it runs
beside a training for days. Which line is what, both take from ``trainlog.dialects``.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from oiyolo.training.monitors import Complaint, Measured, Point, Saved
from oiyolo.trainlog.dialects import DIALECTS, NUMBER, number, numbers_of_iteration
from oiyolo.trainlog.dialects import WORD_GROUPS as WORDS
from oiyolo.trainlog.line_matcher import event, recognised, without_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.training.monitors import Fact
    from oiyolo.trainlog.line_matcher import Found

# All forms of region lines in one, as only two of their numbers are wanted here.
_REGION: Final = re.compile(rf"Avg \(?IOU: ({NUMBER}).{{1,200}}?count: (\d{{1,9}})")
_REGION_MARKS: Final = (b"Avg IOU: ", b"Avg (IOU: ")
_ITERATION_MARKS: Final = (b" avg, ", b" avg loss, ", b": loss=")
_MAP_MARK: Final = b"(mAP"
_PLAIN: Final = (b"Loaded: ", b" total_bbox", b"total_bbox", b"Resizing", b"Syncing")
_OUT_OF_MEMORY: Final = re.compile(
    r"\bout of memory\b|OUT_OF_MEMORY|cudaErrorMemoryAllocation|STATUS_ALLOC_FAILED"
    r"|Try to set subdivisions=",
)
_SAVED_TO: Final = re.compile(r"Saving weights to\s+(\S.*)")
_ITERATIONS: Final = frozenset(dialect.iteration for dialect in DIALECTS)
_MAPS: Final = frozenset(form for dialect in DIALECTS for form in dialect.maps)


class Reader:
    """Takes the lines of any darknet, as bytes without their newline, and gives their facts."""

    def __init__(self, *, not_to_go_on: Sequence[str] = ()) -> None:
        """Begin.

        Args:
            not_to_go_on: Ends of the names of weights that a training does not go on from.
        """
        self._not_to_go_on = tuple(not_to_go_on)
        self._iou_sum = 0.0
        self._iou_count = 0
        self._map: float | None = None

    def __call__(self, line: bytes) -> Sequence[Fact]:
        """Give the facts of a line; most have none."""
        if any(mark in line for mark in _REGION_MARKS):
            self._take_region(line)
        if _MAP_MARK in line or any(mark in line for mark in _ITERATION_MARKS):
            found = recognised(without_codes(line.decode("utf-8", errors="replace")))
            return [fact for part in found if (fact := self._fact_of(part)) is not None]
        if not line or line.startswith(_PLAIN) or b" count: " in line:
            return ()
        return self._other(without_codes(line.decode("utf-8", errors="replace")))

    def _take_region(self, line: bytes) -> None:
        for iou_text, count_text in _REGION.findall(line.decode("utf-8", errors="replace")):
            iou, count = number(iou_text), int(count_text)
            # AlexeyAB's layers count 1 and print 0 where no object met them.
            if count and math.isfinite(iou) and not (count == 1 and iou == 0):
                self._iou_sum += iou * count
                self._iou_count += count

    def _fact_of(self, found: Found) -> Fact | None:
        _, form, match = found
        if form in _ITERATIONS:
            return self._point(match)
        return self._measured(match) if form in _MAPS else None

    def _point(self, match: re.Match[str]) -> Point:
        groups = {name: text for name, text in match.groupdict().items() if text is not None}
        words = {name: groups.pop(name) for name in WORDS & groups.keys()}
        numbers = {name: number(text) for name, text in groups.items()}
        found = numbers_of_iteration(numbers, words)
        iteration, images = int(groups["iteration"]), int(groups["images"])
        seconds = found["seconds"]
        known = iteration > 0 and images > 0 and seconds > 0
        iou = self._iou_sum / self._iou_count if self._iou_count else math.nan
        self._iou_sum, self._iou_count = 0.0, 0
        self._map = None
        speed = images / iteration / seconds if known else math.nan
        return Point(iteration, found["loss"], found["avg_loss"], speed, iou)

    def _measured(self, match: re.Match[str]) -> Measured | None:
        value = number(match["map"]) / (100 if match["percent"] else 1)
        if value == self._map:  # AlexeyAB's prints it twice
            return None
        self._map = value
        return Measured(value)

    def _other(self, text: str) -> Sequence[Fact]:
        if saved := _SAVED_TO.search(text):
            path = saved[1].strip()
            return (Saved(path, to_go_on=not path.endswith(self._not_to_go_on)),)
        if _OUT_OF_MEMORY.search(text):
            return (Complaint(text, out_of_memory=True),)
        found = event(text)
        return (Complaint(text),) if found is not None and found[0] == "error" else ()
