"""What Open Images' large CSVs must look like."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Final

from oiyolo.core.errors import InputFormError

REFETCH: Final = "Remove the file, so that it is fetched again"
FLAGS: Final = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True)
class CsvForm:
    """What a kind of CSV must look like.

    Attributes:
        name: What it is called in messages.
        required: Columns it must have, in any order, beside others.
        numbers: Columns that hold finite numbers, where there are such columns.
    """

    name: str
    required: tuple[str, ...]
    numbers: tuple[str, ...] = ()


BOXES: Final = CsvForm(
    "Open Images boxes",
    ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    ("Confidence", "XMin", "XMax", "YMin", "YMax", *FLAGS),
)
IMAGES: Final = CsvForm(
    "Open Images image list",
    ("ImageID", "Subset", "OriginalURL", "License", "Author", "OriginalSize", "OriginalMD5"),
)
LABELS: Final = CsvForm(
    "Open Images image labels", ("ImageID", "Source", "LabelName", "Confidence"), ("Confidence",)
)


def column_names(line: bytes, form: CsvForm, where: str) -> list[str]:
    """Give the column names that a file's first line holds.

    Raises:
        InputFormError: It lacks a required column, or names one twice.
    """
    text = line.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", errors="replace")
    try:
        columns = next(csv.reader([text.strip("\r\n")]), [])
    except csv.Error:  # a carriage return or a NUL in it
        columns = []
    wrong = [name for name in form.required if name not in columns]
    wrong += [name for name in columns if columns.count(name) > 1]
    if wrong:
        raise InputFormError(
            f"this is no {form.name} file",
            where=f"{where}:1",
            expected="a header line with " + ", ".join(form.required) + ", each once",
            found=shown(text) or "an empty file",
            remedy=REFETCH,
        )
    return columns


def shown(text: str) -> str:
    """Give the beginning of a line, for a message."""
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
