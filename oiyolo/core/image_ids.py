"""ImageIDs, checked wherever they are read: they become file names, URLs and object names.

A project may have been received from another user, so no file in it is trusted to hold valid ids.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NewType, cast

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence

ImageId = NewType("ImageId", str)
"""An ImageID: exactly 16 hexadecimal digits in lower case."""

FORM: Final = "16 hexadecimal digits"
_LENGTH: Final = 16
_DIGITS: Final = b"0123456789abcdef"
_MATCH: Final = re.compile(f"[{_DIGITS.decode()}]{{{_LENGTH}}}").fullmatch
_SHOWN_CHARACTERS: Final = 60
_REMEDY: Final = "The file was damaged or edited: restore it from a copy"


def is_image_id(text: object) -> bool:
    """Return whether a value is a valid ImageID."""
    return isinstance(text, str) and _MATCH(text) is not None


def parse_id(text: object, *, where: str, row: int | None = None, remedy: str = _REMEDY) -> ImageId:
    """Return a text as an ImageID.

    Args:
        text: The text.
        where: The file or other source that it was read from.
        row: Its row or line in the file.
        remedy: What the user can do.

    Raises:
        InputFormError: It is not a valid ImageID.
    """
    if is_image_id(text):
        return cast("ImageId", text)
    shown = repr(text)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "..."
    raise InputFormError(
        "invalid ImageID",
        where=where,
        expected=FORM,
        found=shown if row is None else f"{shown} in row {row:,}",
        remedy=remedy,
    )


def parse_ids(
    texts: Sequence[str], *, where: str, first_row: int = 1, remedy: str = _REMEDY
) -> Sequence[ImageId]:
    """Return texts as ImageIDs; a million take about 0.1 s.

    Args:
        texts: The texts, in the order of the rows.
        where: The file that they were read from.
        first_row: Row of the first text.
        remedy: What the user can do.

    Raises:
        InputFormError: One of them is not a valid ImageID.
    """
    if not _are_all_valid(texts):
        for row, text in enumerate(texts, start=first_row):
            parse_id(text, where=where, row=row, remedy=remedy)
    return cast("Sequence[ImageId]", texts)


def are_valid(texts: Sequence[str]) -> Sequence[bool]:
    """Return for each text whether it is a valid ImageID."""
    return [True] * len(texts) if _are_all_valid(texts) else [is_image_id(text) for text in texts]


def _are_all_valid(texts: Sequence[str]) -> bool:
    try:
        text = "".join(texts).encode("ascii")
    except (TypeError, UnicodeEncodeError):
        return False
    return set(map(len, texts)) <= {_LENGTH} and not text.translate(None, _DIGITS)
