"""Parse YOLO label files of all origins: darknet's, ultralytics', and those of ``oiyolo predict``.

A line counts if darknet reads the five numbers that are written in it (``imagery.darknet_labels``).
Two other forms are recognised if all lines of a file have them: six numbers, of which the last is a
confidence, and polygons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.imagery import darknet_labels
from oiyolo.imagery.exif import UPRIGHT
from oiyolo.interchange import kinds
from oiyolo.interchange.frames import BoxError, clip_fractions, parse_number, undo_orientation
from oiyolo.interchange.imported import ImportedBox, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from oiyolo.interchange.frames import Corners

MAX_BYTES: Final = 16 << 20
_BOX_FIELDS: Final = 5
_MIN_POLYGON_FIELDS: Final = 7
_PLAIN_LINE: Final = re.compile(rb"[ \t]*\d+(?:[ \t]+[0-9.eE+-]+){4,}[ \t]*")


@dataclass(frozen=True)
class LabelForm:
    """How the labels of a source are to be read.

    Attributes:
        names: Names of the classes, in the order of their ids.
        keypoint_fields: Number of fields after the box, from ultralytics' ``kpt_shape``; they are
            ignored.
    """

    names: Sequence[str]
    keypoint_fields: int = 0


def looks_like_label(head: bytes) -> bool:
    """Return whether the first line of a text that is not empty is one of a label."""
    lines = head.lstrip().splitlines()
    return bool(lines) and _PLAIN_LINE.fullmatch(lines[0].rstrip()) is not None


def parse_label(
    content: bytes, path: Path, form: LabelForm, orientation: int, *, is_predicted: bool
) -> Iterator[ImportedBox | Problem]:
    """Yield the boxes of a label file, and the lines that are skipped.

    Args:
        content: Content of the file.
        path: Its path.
        form: How to read it.
        orientation: EXIF orientation of the image that the boxes refer to; 1 for the stored image.
        is_predicted: Whether a detector wrote the file.
    """
    lines = [(n, line.split()) for n, line in enumerate(content.splitlines(), start=1)]
    lines = [(number, words) for number, words in lines if words]
    counts = {len(words) for _, words in lines}
    has_polygons = not form.keypoint_fields and _are_polygons(counts)
    has_confidences = counts == {_BOX_FIELDS + 1} and all(_is_confidence(w[-1]) for _, w in lines)
    if has_polygons:
        yield Problem(kinds.POLYGON, path, lines[0][0], f"{len(lines):,} polygons")
    for number, words in lines:
        confidence = _number(words.pop()) if has_confidences else 1.0
        if has_polygons:
            words[1:] = _bounding_fields(words[1:])
        elif form.keypoint_fields and len(words) == _BOX_FIELDS + form.keypoint_fields:
            del words[_BOX_FIELDS:]
        box = _parse_line(words, form.names, orientation)
        if isinstance(box, BoxError):
            yield Problem(box.kind, path, number, str(box), "box")
        else:
            yield ImportedBox(
                *box,
                confidence=confidence,
                is_predicted=is_predicted or has_confidences,
                line=number,
            )


def _parse_line(
    words: Sequence[bytes], names: Sequence[str], orientation: int
) -> tuple[str, Corners] | BoxError:
    """Return the class and the box of a line, or why it is skipped."""
    errors = darknet_labels.label_errors(b" ".join(words), len(names))
    if error := next(errors, ""):
        return BoxError(kinds.MISREAD, error.removeprefix(":1: "))
    cx, cy, w, h = map(_number, words[1:])
    try:
        box = clip_fractions((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    except BoxError as failure:
        return failure
    stored = box if orientation == UPRIGHT else undo_orientation(box, orientation)
    return names[int(words[0])], stored


def _are_polygons(counts: set[int]) -> bool:
    """Return whether all lines have a class and at least three points."""
    return bool(counts) and all(n >= _MIN_POLYGON_FIELDS and n % 2 for n in counts)


def _is_confidence(word: bytes) -> bool:
    return 0 <= _number(word) <= 1


def _bounding_fields(words: Sequence[bytes]) -> list[bytes]:
    """Return the centre and size of the bounding box of points, if all are numbers."""
    numbers = [_number(word) for word in words]
    xs, ys = numbers[::2], numbers[1::2]
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    if not all(number == number for number in numbers):  # noqa: PLR0124  (nan)
        return list(words)
    box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return [repr(number).encode() for number in box]


def _number(word: bytes) -> float:
    return parse_number(word.decode("latin-1"))
