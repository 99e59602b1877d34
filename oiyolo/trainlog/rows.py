"""The rows of a training log's tables, as tuples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from oiyolo.trainlog.dialects import EventKind

NO_LAYER = -1
"""The layer of a YOLOv2 region line, which does not name one."""

UNASSIGNED = -1
"""The iteration of what stands before or after all iteration lines."""


class Iteration(NamedTuple):
    """One iteration line, and the IOU of the region lines before it.

    Attributes:
        iteration: Its number as printed.
        loss: Loss of this iteration's images.
        avg_loss: The running average that darknet prints: 0.9 of the last and 0.1 of the loss.
        rate: Learning rate.
        seconds: Time the iteration took, without loading images.
        images: Images seen so far as printed (negative above 2^31).
        hours_left: Darknet's own estimate; nan where none is printed.
        iou: Count-weighted mean IOU over the iteration's region lines; nan without any.
        run: 0-based number of the training within the file.
        line: 1-based line in the file.
    """

    iteration: int
    loss: float
    avg_loss: float
    rate: float
    seconds: float
    images: int
    hours_left: float
    iou: float
    run: int
    line: int

    @property
    def images_per_s(self) -> float:
        """Images trained per second; nan where the line does not tell."""
        if self.iteration <= 0 or self.images <= 0 or not self.seconds > 0:
            return math.nan
        return self.images / self.iteration / self.seconds


class MapPoint(NamedTuple):
    """A mean average precision that darknet measured while training.

    Attributes:
        iteration: The iteration line before it; -1 where there is none.
        map: Mean average precision, 0 to 1.
        threshold: IOU from which a detection counts; nan where it is not printed.
        run: 0-based number of the training within the file.
        line: 1-based line in the file.
    """

    iteration: int
    map: float
    threshold: float
    run: int
    line: int


class Event(NamedTuple):
    """Something else that a log tells.

    Attributes:
        line: 1-based line in the file.
        iteration: The iteration line before it in the file; -1 where there is none. (Where
            stdout was buffered, what came through stderr stands earlier than it happened.)
        kind: start, resize, saved, loaded, resume, warning or error.
        text: Darknet's own words.
    """

    line: int
    iteration: int
    kind: EventKind
    text: str


class RunRow(NamedTuple):
    """One training within a log.

    Attributes:
        run: 0-based number.
        dialect: The line of darknet that printed its first iteration line.
        first_iteration: Number of its first iteration line.
        last_iteration: Number of its last one.
        iterations: How many there are.
        first_line: 1-based line of the first one in the file.
        last_line: 1-based line of the last one.
    """

    run: int
    dialect: str
    first_iteration: int
    last_iteration: int
    iterations: int
    first_line: int
    last_line: int
