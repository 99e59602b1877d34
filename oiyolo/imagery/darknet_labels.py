"""Labels as darknet reads them: ``fscanf(file, "%d %f %f %f %f", ...)`` until a field is missing.

See ``read_boxes`` in src/data.c of pjreddie/darknet and ``read_boxes`` in AlexeyAB's. Nothing has
to stand between two fields, and a line feed is a blank like any other. So darknet reads ``0.0 .5``
as the class 0 and the number .0, a line with a field too many shifts all later boxes, and the first
word that is not a number ends the label without an error. A label is valid if darknet reads from
each line the five numbers that are written there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FIELDS: Final = 5
_SHOWN_CHARACTERS: Final = 60
_BLANKS: Final = rb"[ \t]+"
_CENTRE: Final = rb"(?:0?\.\d+|0|1(?:\.0*)?)"
_SIDE: Final = rb"(?:0?\.0{0,30}[1-9]\d*|1(?:\.0*)?)"
_BOX: Final = _BLANKS.join([rb"[ \t]*\d+", _CENTRE, _CENTRE, _SIDE, _SIDE])
_PLAIN_LABELS: Final = re.compile(rb"(?:(?:" + _BOX + rb")?[ \t\r]*\n)*")
"""Lines that are evidently valid but for the class: all boxes are inside their images."""
_PLAIN_CLASS_ID: Final = re.compile(rb"^[ \t]*(\d+)", re.MULTILINE)
_CLASS_ID: Final = re.compile(rb"[+-]?\d+")
_NUMBER: Final = re.compile(
    rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE
)


def count_boxes(contents: Sequence[bytes], class_count: int) -> int | None:
    """Return the number of boxes in some labels; ``None`` if one of them may be invalid.

    All are matched at once, which takes a tenth of the time. ``label_errors`` finds out which is
    invalid, if any.
    """
    text = b"\n".join([*contents, b""])
    if not _PLAIN_LABELS.fullmatch(text):
        return None
    class_ids = _PLAIN_CLASS_ID.findall(text)
    is_valid = all(int(class_id) < class_count for class_id in set(class_ids))
    return len(class_ids) if is_valid else None


def label_errors(content: bytes, class_count: int) -> Iterator[str]:
    """Yield the errors in a label, each with its line number: ":3: a box outside its image"."""
    for number, line in enumerate(content.splitlines(), start=1):
        words = line.split()
        if words and (error := _line_error(words, class_count)):
            yield f":{number}: {error}"


def class_error(class_id: object, class_count: int) -> str:
    """Return the error for a class id that does not exist, with those that do."""
    ids = f"ids are 0 to {class_count - 1}" if class_count > 1 else "the only id is 0"
    return f"class {class_id} does not exist: {ids if class_count else 'there are no classes'}"


def _line_error(words: Sequence[bytes], class_count: int) -> str:
    """Return the error in a line of a label; empty if it is valid."""
    shown = [word.decode("utf-8", "replace") for word in words]
    if len(words) != _FIELDS or not all(_NUMBER.fullmatch(word) for word in words):
        return f"{' '.join(shown)[:_SHOWN_CHARACTERS]!r} is not class_id cx cy w h"
    if not _CLASS_ID.fullmatch(words[0]):
        return f"class {shown[0]} is not a whole number, so darknet would read another box"
    if not 0 <= float(words[0]) < class_count:
        return class_error(shown[0], class_count)
    with np.errstate(over="ignore"):
        box = np.array([float(word) for word in words[1:]]).astype(np.float32)  # as darknet does
    centre, sides = box[:2], box[2:]
    is_inside = (centre >= 0).all() and (box <= 1).all() and (sides > 0).all()
    return "" if is_inside else f"a box outside its image, {' '.join(shown[1:])}"
