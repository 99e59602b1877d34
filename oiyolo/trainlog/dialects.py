"""The log formats of the forks of darknet, one small table for each.

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
    """The log format of one fork of darknet, when it trains a detector or something else.

    Attributes:
        name: Name used in summaries.
        iterations: Formats of the line that ends an iteration.
        regions: Formats of the region lines: one line per detection layer and subdivision.
        maps: Formats of the lines that report a mean average precision.
        missing_regions_reason: Why a log of this dialect may have no region lines.
    """

    name: str
    iterations: tuple[LineFormat, ...]
    regions: tuple[LineFormat, ...]
    maps: tuple[LineFormat, ...]
    missing_regions_reason: str


def _line_format(marker: str, pattern: str, *, zero_is_empty: bool = False) -> LineFormat:
    """Return a line format; ``@name`` in ``pattern`` stands for a number in the group ``name``."""
    expression = re.sub(r"@([a-z]\w*)", lambda match: f"(?P<{match[1]}>{NUMBER})", pattern)
    return LineFormat(marker, re.compile(expression, re.ASCII), zero_is_empty)


OUT_OF_MEMORY = (
    r"\bout of memory\b|OUT_OF_MEMORY|cudaErrorMemoryAllocation|STATUS_ALLOC_FAILED"
    r"|Try to set subdivisions=|CUDA memory allocation failed"
)
"""How darknet, CUDA and cuDNN report too little memory, as a regular expression."""

# An escaped newline, as in a notebook's JSON, may precede the number.
_NUMBER_START = r"(?:(?<![\w./])|(?<=\\[nrt]))(?P<iteration>\d{1,12})"
_ITERATION = _NUMBER_START + ": "
_ITERATION_AND_EPOCH = _NUMBER_START + rf", {NUMBER}: "
_IMAGES = r"(?P<images>-?\d{1,18}) images\b"  # a 32-bit int in darknet: negative above 2^31
_LAYER = r"Region (?P<layer>\d{1,9}) "
_COUNT = r"count: (?P<count>\d{1,9})"
_SCORES = r"Class: @class_score, Obj: @obj, No Obj: @no_obj, "
_RECALLS = r"\.\dR: @recall50, \.\d\dR: @recall75, {1,2}"
_NORMALIZER = r"Normalizer: \([^()]{0,120}\) "

_HOURS_LEFT = ", @hours_left hours left"

PJREDDIE = Dialect(
    name="pjreddie",
    # examples/detector.c:129, examples/yolo.c:64
    iterations=(
        _line_format(
            " avg, ", _ITERATION + "@loss, @avg_loss avg, @rate rate, @seconds seconds, " + _IMAGES
        ),
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
        # src/detection_layer.c:215, YOLOv1: as above. "Any Obj" is the mean of all objectness
        # scores, which later versions print as "No Obj".
        _line_format(
            "Avg IOU: ",
            rf"Detection Avg IOU: @iou, Pos Cat: @class_score, All Cat: {NUMBER}, "
            r"Pos Obj: @obj, Any Obj: @no_obj, " + _COUNT,
        ),
    ),
    maps=(),
    missing_regions_reason="the log has no IOU",
)

ALEXEYAB = Dialect(
    name="AlexeyAB",
    # src/detector.c:325; without the hours before mid-2020
    iterations=(
        _line_format(
            " avg loss, ",
            _ITERATION
            + "@loss, @avg_loss avg loss, @rate rate, @seconds seconds, "
            + _IMAGES
            + f"(?:{_HOURS_LEFT})?",
        ),
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
            + rf"(?:, uc_loss = {NUMBER})?(?:, total_loss = @total_loss)?",
            zero_is_empty=True,
        ),
    ),
    maps=(
        # src/detector.c: printed twice, with a space and percent, and with an underscore
        _line_format(
            "precision (mAP",
            r"mean[_ ]average[_ ]precision \(mAP(?:@@threshold)?\) = @map(?P<percent>\s?%)?",
        ),
        # src/detector.c:309: the mAP measured last, in every later iteration
        _line_format("Last accuracy ", r"Last accuracy mAP(?:@@threshold)? = @last_map ?%"),
    ),
    missing_regions_reason="the log was captured without 2>&1, so it has no IOU",
)

HANK = Dialect(
    name="hank-ai",
    # src-lib/detector.cpp:604-618; V3 prints the time where V5 prints "load N=" and "train="
    iterations=(
        _line_format(
            ": loss=",
            _ITERATION
            + r"loss=@loss, avg loss=@avg_loss,(?: last=@last_map%,)?.{0,120}? rate=@rate, "
            + r"(?:load \d{1,9}=@load (?P<load_unit>[a-z]{1,16}), )?"
            + r"(?:.{0,80}?\btrain=)?@time (?P<unit>[a-z]{1,16}), "
            + _IMAGES
            + r"(?:, time remaining=@left (?P<left_unit>[a-z]{1,16}))?",
        ),
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
        # src-lib/region_layer.cpp:402, YOLOv2
        _line_format(
            "Region avg IoU: ",
            r"Region avg IoU: @iou, class: @class_score, obj: @obj, no obj: @no_obj, "
            r"avg recall: @recall50, " + _COUNT,
        ),
        # src-lib/gaussian_yolo_layer.cpp:846
        _line_format(
            ": avg IOU=",
            r"Region (?P<layer>\d{1,9}): avg IOU=@iou, class=@class_score, obj=@obj, "
            r"no obj=@no_obj, recall \d\d%=@recall50, recall \d\d%=@recall75, "
            r"count=(?P<count>\d{1,9})(?:, class loss=@class_loss)?(?:, IOU loss=@iou_loss)?"
            rf"(?:, uc loss={NUMBER})?(?:, total loss=@total_loss)?",
            zero_is_empty=True,
        ),
    ),
    maps=(
        _line_format(
            "precision (mAP", r"mean average precision \(mAP@@threshold\)=@map(?P<percent>%)?"
        ),
        # src-lib/detector.cpp:741, at the end
        _line_format("Last accuracy ", r"Last accuracy mAP@@threshold=@last_map%"),
    ),
    missing_regions_reason="this fork prints them only with -verbose, so the log has no IOU",
)

PJREDDIE_OTHER = Dialect(
    name="pjreddie classifier",
    iterations=(
        # examples/classifier.c:137; regressor, segmenter, tag and cifar print the same
        _line_format(
            " avg, ",
            _ITERATION_AND_EPOCH
            + "@loss, @avg_loss avg, @rate rate, @seconds seconds, "
            + _IMAGES
            + rf"(?!, {NUMBER} hours left)",
        ),
        # examples/captcha.c:83, examples/rnn.c:210
        _line_format(" avg, ", _ITERATION + "@loss, @avg_loss avg, @seconds seconds, " + _IMAGES),
        _line_format(
            " epochs",
            _ITERATION + rf"@loss, @avg_loss avg, @rate rate, @seconds seconds, {NUMBER} epochs\b",
        ),
    ),
    regions=(),
    maps=(),
    missing_regions_reason="only detectors have an IOU",
)

ALEXEYAB_OTHER = Dialect(
    name="AlexeyAB classifier",
    # src/classifier.c:211
    iterations=(
        _line_format(
            " avg, ",
            _ITERATION_AND_EPOCH
            + "@loss, @avg_loss avg, @rate rate, @seconds seconds, "
            + _IMAGES
            + _HOURS_LEFT,
        ),
    ),
    regions=(),
    maps=(),
    missing_regions_reason=PJREDDIE_OTHER.missing_regions_reason,
)

DIALECTS = (PJREDDIE, ALEXEYAB, HANK, PJREDDIE_OTHER, ALEXEYAB_OTHER)

LINE_FORMATS = tuple(
    (dialect, line_format)
    for dialect in DIALECTS
    for line_format in (*dialect.iterations, *dialect.regions, *dialect.maps)
)
"""Every line format of every dialect."""

LINE_FRAGMENT = re.compile(
    r"Avg \(?IOU: |, {1,2}count: \d|[\dnf)] avg\b|avg loss[,=]|[\dnf)] seconds,"
    r"|seconds, -?\d{1,18} images",
    re.ASCII,
)
"""Text that occurs only in iteration and region lines; any other line with it is a fragment."""

ITERATION_START = re.compile(rf"{_NUMBER_START}(?:, {NUMBER})?: (?:loss=)?{NUMBER}, ", re.ASCII)
"""The start of an iteration line, complete or truncated."""

LOADED_SECONDS = re.compile(rb"\bLoaded: (?P<seconds>\d{1,12}\.\d{1,12}) seconds")
"""How long an iteration waited for its images, which are loaded while the previous one is trained:
examples/detector.c:112 (pjreddie), src/detector.c:279 (AlexeyAB)."""

EventKind = Literal["start", "resize", "saved", "loaded", "resume", "warning", "error"]

RemarkKind = Literal[EventKind, "size", "layers", "load", "valid_loss", "fragment"]


class Remark(NamedTuple):
    """Something else that a line may say.

    Attributes:
        kind: What it says.
        markers: Texts of which every such line contains one; most lines have none, which is found
            out much faster than by the pattern.
        pattern: Expression that is searched for.
    """

    kind: RemarkKind
    markers: tuple[str, ...]
    pattern: re.Pattern[str]


_SIZE = r"\d{1,9}(?: x \d{1,9})?"

REMARKS: tuple[Remark, ...] = (
    # The line after "Resizing": one number in pjreddie's fork, width and height in AlexeyAB's.
    Remark("size", tuple("0123456789"), re.compile(rf"^\s*{_SIZE}\s*$", re.ASCII)),
    # Header of the layer table, which darknet prints as soon as it has parsed the network.
    Remark("layers", ("filters",), re.compile(r"^\s*(?:# +line +)?layer +filters\b")),
    Remark("load", ("Loaded: ",), re.compile(LOADED_SECONDS.pattern.decode(), re.ASCII)),
    # Printed by the torch engine.
    Remark(
        "valid_loss",
        ("Validation loss: ",),
        re.compile(rf"\bValidation loss: (?P<loss>{NUMBER}) \(\d{{1,9}} images?\)", re.ASCII),
    ),
    Remark("saved", ("Saving weights to",), re.compile(r"Saving weights to\s")),
    Remark("loaded", ("Loading weights from",), re.compile(r"Loading weights from\s")),
    Remark("resize", ("Resizing",), re.compile(r"\bResizing\b")),
    # Printed once by every fork when training starts, before the first iteration.
    Remark("start", ("Learning Rate: ",), re.compile(r"\bLearning Rate: ")),
    Remark(
        "error",
        (
            *("rror", "ERROR", "memory", "MEMORY", "ALLOC_FAILED", "subdivisions="),
            *("load ", "open ", "abel file", "No such file", "Assertion", "fault", "Illegal"),
            *("dumped", "Killed", "Aborted", "bad_alloc", "terminate"),
        ),
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
            r"|[Ss]egmentation fault|\bIllegal instruction\b|\bBus error\b|\bcore dumped\b"
            r"|^\s*(?:Killed|Aborted)\b|\bbad_alloc\b"
            r"|\bterminate called\b|\b[MmCc]alloc error|\b[Rr]ealloc error",
        ),
    ),
    Remark(
        "warning",
        ("arning", "ARNING", "bottleneck", "Unused", "Wrong", "bad.list"),
        re.compile(
            r"\b(?:WARNING|Warning|warning)\b|performance bottleneck|^\s*Unused field"
            r"|\bWrong (?:annotation|label)|\bbad\.list\b",
        ),
    ),
    Remark("fragment", ("IOU: ", "count: ", "avg", "seconds,"), LINE_FRAGMENT),
)
"""What else a line may say. The kind of a text is the first one whose pattern it contains."""

ANY_MARKER = re.compile(
    "|".join(
        re.escape(marker)
        for marker in dict.fromkeys(
            (
                *(line_format.marker for _, line_format in LINE_FORMATS),
                *(m for remark in REMARKS if remark.kind != "size" for m in remark.markers),
            )
        )
    )
)
"""A marker of any line format or remark but a size, whose markers nearly all lines have."""

ANY_SIZE = re.compile(rf"\n[ \t]*{_SIZE}[ \t]*(?=\n)", re.ASCII)
"""A line between two others that is only a size."""

FAILED_OPEN = re.compile(
    r"Couldn't open file: (.{1,4096})|failed to open the file \"([^\"]{1,4096})\""
)
"""Darknet's message for a file that it cannot open, with its path; it saves no weights then."""

WORD_GROUPS = frozenset({"unit", "left_unit", "load_unit", "percent"})
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


def is_bottleneck(text: str) -> bool:
    """Return whether a line about loading also warns that loading is slow (AlexeyAB's fork)."""
    return "performance bottleneck" in text


Number = TypeVar("Number", float, "npt.NDArray[np.float64]")


def iteration_values(
    numbers: Mapping[str, Number], words: Mapping[str, str]
) -> dict[str, Number | float]:
    """Return the column values of an iteration line, or of many lines in the same format.

    Args:
        numbers: Matched groups that are numbers.
        words: The other matched groups, such as units.

    Returns:
        loss, avg_loss, rate, seconds, hours_left, and load_wait (seconds that the iteration waited
        for its images); NaN where the line does not have the value.
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
    load_wait: Number | float = math.nan
    if "load" in numbers:  # hank-ai's: how long loading took while the network was trained
        load_wait = numbers["load"] * seconds_per_unit(words["load_unit"]) - seconds
    return {
        "loss": numbers["loss"],
        "avg_loss": numbers["avg_loss"],
        "rate": numbers.get("rate", math.nan),
        "seconds": seconds,
        "hours_left": hours_left,
        "load_wait": load_wait,
    }
