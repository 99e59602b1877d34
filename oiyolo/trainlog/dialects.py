"""The forms of the log lines of the three lines of darknet, one small table for each.

A form is a regular expression with named groups and a marker: a piece of text that every such
line holds, looked for first because that is cheaper than the expression. Forms are searched
anywhere in a line (prompts, times and other text may stand before them) and exclude each other,
so a file may mix the dialects. C's ``%f`` prints up to 39 digits of a float, and ``nan``,
``-nan``, ``inf`` or, on Windows, ``-nan(ind)`` and ``1.#INF``: ``NUMBER`` takes them all. No
part of an expression may run without a bound, or one line of junk could take minutes.

Darknet's line numbers below are those of pjreddie f6afaabc, AlexeyAB 59596d78 and hank-ai
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
    r"[-+]?(?:nan(?:\([a-z]{1,8}\))?|inf(?:inity)?|1\.\#[A-Z]{3,4}\d{0,3}"
    r"|\d{1,64}(?:\.\d{1,64})?(?:e[-+]?\d{1,4})?)"
)


class Form(NamedTuple):
    """One form of a line.

    Attributes:
        marker: Text that every line of this form holds.
        pattern: What is read, as named groups.
        zero_is_empty: Whether an IOU of exactly 0 over a count of 1 means that no object met
            the layer: AlexeyAB's layers count at least 1 so as not to divide by zero.
    """

    marker: str
    pattern: re.Pattern[str]
    zero_is_empty: bool = False


class Dialect(NamedTuple):
    """The log lines of one line of darknet.

    Attributes:
        name: What summaries call it.
        iteration: The line that ends an iteration.
        regions: The lines of the detection layers, one per layer and subdivision.
        maps: The lines that give a mean average precision.
        without_regions: Why a log of this dialect may hold no region lines.
    """

    name: str
    iteration: Form
    regions: tuple[Form, ...]
    maps: tuple[Form, ...]
    without_regions: str


def _form(marker: str, pattern: str, *, zero_is_empty: bool = False) -> Form:
    """Compile a form; ``@name`` in ``pattern`` stands for a number called ``name``."""
    written_out = re.sub(r"@([a-z]\w*)", lambda match: f"(?P<{match[1]}>{NUMBER})", pattern)
    return Form(marker, re.compile(written_out, re.ASCII), zero_is_empty)


_ITERATION = r"(?<![\w./])(?P<iteration>\d{1,12}): "
_IMAGES = r"(?P<images>-?\d{1,18}) images\b"  # darknet counts in an int: negative above 2^31
_LAYER = r"Region (?P<layer>\d{1,9}) "
_COUNT = r"count: (?P<count>\d{1,9})"
_SCORES = r"Class: @class_score, Obj: @obj, No Obj: @no_obj, "
_RECALLS = r"\.5R: @recall50, \.75R: @recall75, {1,2}"
_NORMALIZER = r"Normalizer: \([^()]{0,120}\) "

PJREDDIE = Dialect(
    name="pjreddie",
    # examples/detector.c:129
    iteration=_form(
        " avg, ", _ITERATION + "@loss, @avg_loss avg, @rate rate, @seconds seconds, " + _IMAGES
    ),
    regions=(
        # src/yolo_layer.c:239. A class_loss behind the count makes it AlexeyAB's.
        _form(
            "Avg IOU: ",
            _LAYER + r"Avg IOU: @iou, " + _SCORES + _RECALLS + _COUNT + r"(?!\d|, class_loss)",
        ),
        # src/region_layer.c:320, YOLOv2: one layer, which has no number here.
        _form(
            "Avg Recall: ",
            r"Region Avg IOU: @iou, " + _SCORES + r"Avg Recall: @recall50, {1,2}" + _COUNT,
        ),
    ),
    maps=(),
    without_regions="the log has no IOU",
)

ALEXEYAB = Dialect(
    name="AlexeyAB",
    # src/detector.c:325; before mid-2020 without the hours
    iteration=_form(
        " avg loss, ",
        _ITERATION
        + "@loss, @avg_loss avg loss, @rate rate, @seconds seconds, "
        + _IMAGES
        + "(?:, @hours_left hours left)?",
    ),
    regions=(
        # src/yolo_layer.c:865, 921; the scores and GIOU until mid-2020
        _form(
            " Avg (IOU: ",
            r"v3 \(\w{1,16} loss, "
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
        _form(
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
        # src/detector.c: once with a blank and percent, once more with an underscore
        _form(
            "precision (mAP",
            r"mean[_ ]average[_ ]precision \(mAP(?:@@threshold)?\) = @map(?P<percent>\s?%)?",
        ),
    ),
    without_regions="the log was taken without 2>&1, so it has no IOU",
)

HANK = Dialect(
    name="hank-ai",
    # src-lib/detector.cpp:604-618; V3 has the time where V5 has "train="
    iteration=_form(
        ": loss=",
        _ITERATION
        + r"loss=@loss, avg loss=@avg_loss,.{0,120}? rate=@rate, "
        + r"(?:.{0,80}?\btrain=)?@time (?P<unit>[a-z]{1,16}), "
        + _IMAGES
        + r"(?:, time remaining=@left (?P<left_unit>[a-z]{1,16}))?",
    ),
    regions=(
        # src-lib/yolo_layer.cpp:1135
        _form(
            " Avg (IOU: ",
            r"v3 \w{1,16} loss, "
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
        _form("precision (mAP", r"mean average precision \(mAP@@threshold\)=@map(?P<percent>%)?"),
    ),
    without_regions="this darknet prints them only with -verbose, so the log has no IOU",
)

DIALECTS = (PJREDDIE, ALEXEYAB, HANK)

FORMS = tuple(
    (dialect, form)
    for dialect in DIALECTS
    for form in (dialect.iteration, *dialect.regions, *dialect.maps)
)
"""Every form of every dialect."""

LEARNING_STARTS = re.compile(r"\bLearning Rate: ")
"""Every dialect prints this once as a training starts, before its first iteration."""

NETWORK_SHOWN = re.compile(r"^\s*(?:# +line +)?layer +filters\b")
"""The head of the table of layers, which a process prints as soon as it reads its network."""

SIZE = re.compile(r"\s*\d{1,9}(?: x \d{1,9})?\s*", re.ASCII)
"""The line after ``Resizing``: one number in pjreddie's, width and height in AlexeyAB's."""

LOOKS_BROKEN = re.compile(
    r"Avg \(?IOU: |, {1,2}count: \d|[\dnf)] avg\b|avg loss[,=]|[\dnf)] seconds,"
    r"|seconds, -?\d{1,18} images",
    re.ASCII,
)
"""What only stands in iteration and region lines: in a line that is neither, a piece of one."""

ITERATION_BEGINS = re.compile(rf"{_ITERATION}(?:loss=)?{NUMBER}, ", re.ASCII)
"""The head of an iteration line, whole or cut."""

EventKind = Literal["start", "resize", "saved", "loaded", "resume", "warning", "error"]

EVENTS: tuple[tuple[EventKind, re.Pattern[str]], ...] = (
    ("saved", re.compile(r"Saving weights to\s")),
    ("loaded", re.compile(r"Loading weights from\s")),
    ("resize", re.compile(r"\bResizing\b")),
    ("start", LEARNING_STARTS),
    (
        "error",
        re.compile(
            # GPU: out of memory, a driver that is missing or too old
            r"\b(?:CUDA|cuDNN|CUDNN|cuBLAS|cuRAND|CURAND)\b.{0,80}?\b[Ee]rror\b"
            r"|\bcudaError|\bout of memory\b"
            r"|Try to set subdivisions="
            # files: utils.c:284 (pjreddie), data.c and utils.c (AlexeyAB)
            r"|Couldn't open file|[Cc](?:annot|an't|ouldn't) (?:load|open) "
            r"|Failed to infer label file name|Label file name is too short"
            r"|cannot open shared object file|No such file or directory"
            # the cfg: the filters before a yolo layer, a batch of 1
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
)
"""What else a log tells: the first kind that is found in a line is its kind."""

WORD_GROUPS = frozenset({"unit", "left_unit", "percent"})
"""The groups of the forms that hold no number."""

LITERAL_DIGITS = re.compile(r"v0 |\.0R: |\.00R: |0\.#")
"""Where the expressions above ask for certain digits, in text whose digits are all zeros: ``v3``,
``.5R``, ``.75R`` and ``1.#IND``. Any other digit may be any digit, which is what reading many
lines at once rests on (``shapes``)."""

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


def number(text: str) -> float:
    """Read a number as C prints it."""
    try:
        return float(text)
    except ValueError:  # on Windows: nan(ind), 1.#IND, 1.#INF
        if "INF" not in text:
            return math.nan
        return -math.inf if text.startswith("-") else math.inf


def unit_s(unit: str) -> float:
    """Give the seconds of a unit that hank-ai prints, ``milliseconds``; nan for another word."""
    return _SECONDS_BY_UNIT.get(unit.removesuffix("s"), math.nan)


Number = TypeVar("Number", float, "npt.NDArray[np.float64]")


def numbers_of_iteration(
    found: Mapping[str, Number], words: Mapping[str, str]
) -> dict[str, Number | float]:
    """Give the columns of an iteration line, or of many that are alike.

    Args:
        found: The groups of the form that hold numbers and that took part in the match.
        words: The other groups that took part.

    Returns:
        loss, avg_loss, rate, seconds, hours_left; nan where it is not printed.
    """
    in_seconds: Number | float = math.nan
    if "seconds" in found:
        in_seconds = found["seconds"]
    elif "time" in found:
        in_seconds = found["time"] * unit_s(words["unit"])
    hours_left: Number | float = math.nan
    if "hours_left" in found:
        hours_left = found["hours_left"]
    elif "left" in found:
        hours_left = found["left"] * unit_s(words["left_unit"]) / _SECONDS_PER_HOUR
    return {
        "loss": found["loss"],
        "avg_loss": found["avg_loss"],
        "rate": found["rate"],
        "seconds": in_seconds,
        "hours_left": hours_left,
    }
