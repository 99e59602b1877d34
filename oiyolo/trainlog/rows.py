"""Row types of a training log's tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from oiyolo.trainlog.dialects import EventKind

NO_LAYER = -1
"""Layer of a YOLOv2 region line, which has no layer number."""

UNASSIGNED = -1
"""Iteration of lines that belong to no iteration."""


REGION_NUMBERS = (
    "iou",
    "class_score",
    "obj",
    "no_obj",
    "recall50",
    "recall75",
    "giou",
    "class_loss",
    "iou_loss",
    "total_loss",
)
"""Floating-point columns of region lines, in the order of their table."""


class Iteration(NamedTuple):
    """One iteration line, and the IOU of the region lines before it.

    Attributes:
        iteration: Iteration number as printed.
        loss: Loss of this iteration's images.
        avg_loss: Darknet's running average: 0.9 times the previous average plus 0.1 times the loss.
        rate: Learning rate.
        seconds: Duration of the iteration in seconds, without loading images.
        images: Images processed so far, as printed (negative above 2^31).
        hours_left: Darknet's estimate of the remaining hours; NaN if not printed.
        iou: Count-weighted mean IOU over the iteration's region lines; NaN without any.
        run: 0-based number of the run in the file.
        line: 1-based line number in the file.
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
        """Images trained per second; NaN if the line has no time or image count."""
        if self.iteration <= 0 or self.images <= 0 or not self.seconds > 0:
            return math.nan
        return self.images / self.iteration / self.seconds


class MapPoint(NamedTuple):
    """A mean average precision that darknet measured during training.

    Attributes:
        iteration: Number of the preceding iteration line; -1 before the first one.
        map: Mean average precision, 0 to 1.
        threshold: Minimum IOU of a true positive; NaN if not printed.
        run: 0-based number of the run in the file.
        line: 1-based line number in the file.
    """

    iteration: int
    map: float
    threshold: float
    run: int
    line: int


class ValidLoss(NamedTuple):
    """The loss on the valid images, which the torch engine measures during training.

    Attributes:
        iteration: Number of the preceding iteration line; -1 before the first one.
        loss: Mean loss per image.
        run: 0-based number of the run in the file.
        line: 1-based line number in the file.
    """

    iteration: int
    loss: float
    run: int
    line: int


class Event(NamedTuple):
    """An event in a log.

    Attributes:
        line: 1-based line number in the file.
        iteration: Number of the preceding iteration line; -1 before the first one. (If
            stdout was buffered, lines from stderr appear earlier than they happened.)
        kind: start, resize, saved, loaded, resume, warning or error.
        text: The line as darknet printed it.
    """

    line: int
    iteration: int
    kind: EventKind
    text: str


class RunRow(NamedTuple):
    """One run in a log.

    Attributes:
        run: 0-based number of the run.
        dialect: Dialect of its first iteration line.
        first_iteration: Number of its first iteration.
        last_iteration: Number of its last iteration.
        iterations: Number of iteration lines.
        first_line: 1-based line number of the first iteration line.
        last_line: 1-based line number of the last iteration line.
    """

    run: int
    dialect: str
    first_iteration: int
    last_iteration: int
    iterations: int
    first_line: int
    last_line: int
