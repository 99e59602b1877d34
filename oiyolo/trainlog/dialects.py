"""The log formats of the three forks of darknet, one small table for each fork.

A line format is a regular expression with named groups, plus a marker: a substring of every such
line, checked first because that is cheaper than the expression. A format may match anywhere in a
line (after prompts, timestamps or other text), and no two formats match the same text, so one file
may mix dialects. C's ``%f`` prints up to 39 digits of a float, as well as ``nan``, ``-nan``,
``inf`` or, on Windows, ``-nan(ind)`` and ``1.#INF``; ``NUMBER`` matches them all. Every repetition
in an expression is bounded, because one line of junk could otherwise take minutes. No expression
distinguishes one digit from another, not even in ``v3``, because ``line_templates`` relies on that
to read lines that differ only in their digits together.

Line numbers of darknet's sources refer to pjreddie f6afaabc, AlexeyAB 59596d78 and hank-ai
f684e1d7.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

NUMBER = (
    r"[-+]?(?:nan(?:\([a-z]{1,8}\))?|inf(?:inity)?|\d\.\#[A-Z]{3,4}\d{0,3}"
    r"|\d{1,64}(?:\.\d{1,64})?(?:e[-+]?\d{1,4})?)"
)


class LineFormat(NamedTuple):
    """The format of one type of line.

    Attributes:
        marker: Substring of every line in this format.
        pattern: The expression, with a named group for each value.
        zero_is_empty: Whether an IOU of exactly 0 with a count of 1 means that no object was
            assigned to the layer: AlexeyAB's layers count at least 1 to avoid dividing by zero.
    """

    marker: str
    pattern: re.Pattern[str]
    zero_is_empty: bool = False


class Dialect(NamedTuple):
    """The log format of one fork of darknet.

    Attributes:
        name: Name used in summaries.
        iteration: Format of the line that ends an iteration.
        regions: Formats of the region lines: one line per detection layer and subdivision.
        maps: Formats of the lines that report a mean average precision.
        missing_regions_reason: Why a log of this dialect may have no region lines.
    """

    name: str
    iteration: LineFormat
    regions: tuple[LineFormat, ...]
    maps: tuple[LineFormat, ...]
    missing_regions_reason: str


def _line_format(marker: str, pattern: str, *, zero_is_empty: bool = False) -> LineFormat:
    """Return a line format; ``@name`` in ``pattern`` stands for a number in the group ``name``."""
    expression = re.sub(r"@([a-z]\w*)", lambda match: f"(?P<{match[1]}>{NUMBER})", pattern)
    return LineFormat(marker, re.compile(expression, re.ASCII), zero_is_empty)


_ITERATION = r"(?<![\w./])(?P<iteration>\d{1,12}): "
_IMAGES = r"(?P<images>-?\d{1,18}) images\b"  # a 32-bit int in darknet: negative above 2^31
_LAYER = r"Region (?P<layer>\d{1,9}) "
_COUNT = r"count: (?P<count>\d{1,9})"
_SCORES = r"Class: @class_score, Obj: @obj, No Obj: @no_obj, "
_RECALLS = r"\.\dR: @recall50, \.\d\dR: @recall75, {1,2}"
_NORMALIZER = r"Normalizer: \([^()]{0,120}\) "

PJREDDIE = Dialect(
    name="pjreddie",
    # examples/detector.c:129
    iteration=_line_format(
        " avg, ", _ITERATION + "@loss, @avg_loss avg, @rate rate, @seconds seconds, " + _IMAGES
    ),
    regions=(
        # src/yolo_layer.c:239. With class_loss after the count it is AlexeyAB's.
        _line_format(
            "Avg IOU: ",
            _LAYER + r"Avg IOU: @iou, " + _SCORES + _RECALLS + _COUNT + r"(?!\d|, class_loss)",
        ),
        # src/region_layer.c:320, YOLOv2: a single layer, whose number is not printed.
        _line_format(
            "Avg Recall: ",
            r"Region Avg IOU: @iou, " + _SCORES + r"Avg Recall: @recall50, {1,2}" + _COUNT,
        ),
    ),
    maps=(),
    missing_regions_reason="the log has no IOU",
)

ALEXEYAB = Dialect(
    name="AlexeyAB",
    # src/detector.c:325; without the hours before mid-2020
    iteration=_line_format(
        " avg loss, ",
        _ITERATION
        + "@loss, @avg_loss avg loss, @rate rate, @seconds seconds, "
        + _IMAGES
        + "(?:, @hours_left hours left)?",
    ),
    regions=(
        # src/yolo_layer.c:865, 921; with scores and GIOU until mid-2020
        _line_format(
            " Avg (IOU: ",
            r"v\d \(\w{1,16} loss, "
            + _NORMALIZER
            + _LAYER
            + r"Avg \(IOU: @iou(?:, GIOU: @giou)?\), "
            + f"(?:{_SCORES}{_RECALLS})?"
            + _COUNT
            + r"(?:, class_loss = @class_loss)?(?:, iou_loss = @iou_loss)?"
            + r"(?:, total_loss = @total_loss)?",
            zero_is_empty=True,
        ),
        # src/gaussian_yolo_layer.c:694
        _line_format(
            "Avg IOU: ",
            _LAYER
            + r"Avg IOU: @iou, "
            + _SCORES
            + _RECALLS
            + _COUNT
            + r", class_loss = @class_loss(?:, iou_loss = @iou_loss)?"
            + r"(?:, total_loss = @total_loss)?",
            zero_is_empty=True,
        ),
    ),
    maps=(
        # src/detector.c: printed twice, with a space and percent, and with an underscore
        _line_format(
            "precision (mAP",
            r"mean[_ ]average[_ ]precision \(mAP(?:@@threshold)?\) = @map(?P<percent>\s?%)?",
        ),
    ),
    missing_regions_reason="the log was captured without 2>&1, so it has no IOU",
)

HANK = Dialect(
    name="hank-ai",
    # src-lib/detector.cpp:604-618; V3 prints the time where V5 prints "train="
    iteration=_line_format(
        ": loss=",
        _ITERATION
        + r"loss=@loss, avg loss=@avg_loss,.{0,120}? rate=@rate, "
        + r"(?:.{0,80}?\btrain=)?@time (?P<unit>[a-z]{1,16}), "
        + _IMAGES
        + r"(?:, time remaining=@left (?P<left_unit>[a-z]{1,16}))?",
    ),
    regions=(
        # src-lib/yolo_layer.cpp:1135
        _line_format(
            " Avg (IOU: ",
            r"v\d \w{1,16} loss, "
            + _NORMALIZER
            + _LAYER
            + r"Avg \(IOU: @iou(?:, GIOU: @giou)?\), "
            + _COUNT
            + r"(?:, class_loss: @class_loss)?(?:, iou_loss: @iou_loss)?"
            + r"(?:, total_loss: @total_loss)?",
            zero_is_empty=True,
        ),
    ),
    maps=(
        _line_format(
            "precision (mAP", r"mean average precision \(mAP@@threshold\)=@map(?P<percent>%)?"
        ),
    ),
    missing_regions_reason="this fork prints them only with -verbose, so the log has no IOU",
)

DIALECTS = (PJREDDIE, ALEXEYAB, HANK)

LINE_FORMATS = tuple(
    (dialect, line_format)
    for dialect in DIALECTS
    for line_format in (dialect.iteration, *dialect.regions, *dialect.maps)
)
"""Every line format of every dialect."""

LINE_FRAGMENT = re.compile(
    r"Avg \(?IOU: |, {1,2}count: \d|[\dnf)] avg\b|avg loss[,=]|[\dnf)] seconds,"
    r"|seconds, -?\d{1,18} images",
    re.ASCII,
)
"""Text that occurs only in iteration and region lines; any other line with it is a fragment."""

ITERATION_START = re.compile(rf"{_ITERATION}(?:loss=)?{NUMBER}, ", re.ASCII)
"""The start of an iteration line, complete or truncated."""

EventKind = Literal["start", "resize", "saved", "loaded", "resume", "warning", "error"]

RemarkKind = Literal[EventKind, "size", "layers", "fragment"]

REMARKS: tuple[tuple[RemarkKind, re.Pattern[str]], ...] = (
    # The line after "Resizing": one number in pjreddie's fork, width and height in AlexeyAB's.
    ("size", re.compile(r"^\s*\d{1,9}(?: x \d{1,9})?\s*$", re.ASCII)),
    # Header of the layer table, which darknet prints as soon as it has parsed the network.
    ("layers", re.compile(r"^\s*(?:# +line +)?layer +filters\b")),
    ("saved", re.compile(r"Saving weights to\s")),
    ("loaded", re.compile(r"Loading weights from\s")),
    ("resize", re.compile(r"\bResizing\b")),
    # Printed once by every fork when training starts, before the first iteration.
    ("start", re.compile(r"\bLearning Rate: ")),
    (
        "error",
        re.compile(
            # GPU: out of memory, driver missing or too old
            r"\b(?:CUDA|cuDNN|CUDNN|cuBLAS|cuRAND|CURAND)\b.{0,80}?\b[Ee]rror\b"
            r"|\bcudaError|\bout of memory\b|OUT_OF_MEMORY|STATUS_ALLOC_FAILED"
            r"|Try to set subdivisions="
            # files: utils.c:284 (pjreddie), data.c and utils.c (AlexeyAB)
            r"|Couldn't open file|[Cc](?:annot|an't|ouldn't) (?:load|open) "
            r"|Failed to infer label file name|Label file name is too short"
            r"|cannot open shared object file|No such file or directory"
            # .cfg: filters before a [yolo] layer, a batch of 1
            r"|\bAssertion\b.{0,200}?\bfailed|Darknet error location"
            r"|(?:^|[\s:*])(?:error|Error|ERROR)(?:: | in | (?:location|message)\.*:)"
            # the process
            r"|[Ss]egmentation fault|\bcore dumped\b|^\s*(?:Killed|Aborted)\b|\bbad_alloc\b"
            r"|\bterminate called\b|\b[MmCc]alloc error|\b[Rr]ealloc error",
        ),
    ),
    (
        "warning",
        re.compile(
            r"\b(?:WARNING|Warning|warning)\b|performance bottleneck|^\s*Unused field"
            r"|\bWrong (?:annotation|label)|\bbad\.list\b",
        ),
    ),
    ("fragment", LINE_FRAGMENT),
)
"""What else a line may say. The kind of a text is the first one whose pattern it contains."""

WORD_GROUPS = frozenset({"unit", "left_unit", "percent"})
"""Groups of the line formats that are not numbers."""

_SECONDS_BY_UNIT = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
_SECONDS_PER_HOUR = 3600.0


def parse_number(text: str) -> float:
    """Parse a number as C prints it, including nan and infinity."""
    try:
        return float(text)
    except ValueError:  # Windows: nan(ind), 1.#IND, 1.#INF
        if "INF" not in text:
            return math.nan
        return -math.inf if text.startswith("-") else math.inf


def seconds_per_unit(unit: str) -> float:
    """Return the length in seconds of a unit such as ``milliseconds``; NaN if it is unknown."""
    return _SECONDS_BY_UNIT.get(unit.removesuffix("s"), math.nan)


Number = TypeVar("Number", float, "npt.NDArray[np.float64]")


def iteration_values(
    numbers: Mapping[str, Number], words: Mapping[str, str]
) -> dict[str, Number | float]:
    """Return the column values of an iteration line, or of many lines in the same format.

    Args:
        numbers: Matched groups that are numbers.
        words: The other matched groups, such as units.

    Returns:
        loss, avg_loss, rate, seconds and hours_left; NaN where darknet does not print the value.
    """
    seconds: Number | float = math.nan
    if "seconds" in numbers:
        seconds = numbers["seconds"]
    elif "time" in numbers:
        seconds = numbers["time"] * seconds_per_unit(words["unit"])
    hours_left: Number | float = math.nan
    if "hours_left" in numbers:
        hours_left = numbers["hours_left"]
    elif "left" in numbers:
        hours_left = numbers["left"] * seconds_per_unit(words["left_unit"]) / _SECONDS_PER_HOUR
    return {
        "loss": numbers["loss"],
        "avg_loss": numbers["avg_loss"],
        "rate": numbers["rate"],
        "seconds": seconds,
        "hours_left": hours_left,
    }
