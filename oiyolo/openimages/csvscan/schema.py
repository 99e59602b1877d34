"""Required columns and numeric columns of Open Images' large CSV files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Final

from oiyolo.core.errors import InputFormError

REFETCH: Final = "Delete the file to download it again"
FLAGS: Final = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_EXCERPT_CHARACTERS: Final = 80


@dataclass(frozen=True)
class CsvSchema:
    """Columns of one kind of CSV file.

    Attributes:
        name: Name of this kind of file, for messages.
        required: Columns that must be present, in any order; others may be present too.
        numbers: Columns that contain finite numbers, if they are present.
    """

    name: str
    required: tuple[str, ...]
    numbers: tuple[str, ...] = ()


BOXES: Final = CsvSchema(
    "Open Images boxes",
    ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    ("Confidence", "XMin", "XMax", "YMin", "YMax", *FLAGS),
)
IMAGES: Final = CsvSchema(
    "Open Images image list",
    ("ImageID", "Subset", "OriginalURL", "License", "Author", "OriginalSize", "OriginalMD5"),
)
LABELS: Final = CsvSchema(
    "Open Images image labels", ("ImageID", "Source", "LabelName", "Confidence"), ("Confidence",)
)


def column_names(line: bytes, schema: CsvSchema, where: str) -> list[str]:
    """Parse the column names from a file's first line.

    Raises:
        InputFormError: A required column is missing, or a column name is repeated.
    """
    text = line.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", errors="replace")
    try:
        columns = next(csv.reader([text.strip("\r\n")]), [])
    except csv.Error:  # a carriage return or NUL in the line
        columns = []
    wrong_names = [name for name in schema.required if name not in columns]
    wrong_names += [name for name in columns if columns.count(name) > 1]
    if wrong_names:
        raise InputFormError(
            f"{schema.name}: unexpected header line",
            where=f"{where}:1",
            expected="the columns " + ", ".join(schema.required) + ", each once",
            found=shorten(text) or "an empty file",
            remedy=REFETCH,
        )
    return columns


def excerpt(row: bytes) -> str:
    """Return the quoted beginning of a row, for a message."""
    return repr(shorten(row[:1000].decode("utf-8", errors="replace")))


def shorten(text: str) -> str:
    """Return the beginning of a text, for a message."""
    text = text.strip()
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + "..."
