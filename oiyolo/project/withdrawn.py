"""Read and write ``data/withdrawn.csv``: the images that are never to be selected again.

Unlike the ledger, it can be edited, copied to another project and kept under version control.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError
from oiyolo.core.image_ids import parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME: Final = "withdrawn.csv"
_COLUMNS: Final = ("ImageID", "date", "why")
_FIRST_ROW: Final = 2
_REMEDY: Final = "Correct the row; to undo a withdrawal, delete its row"


@dataclass(frozen=True)
class Withdrawal:
    """A row of the file.

    Attributes:
        image_id: The image.
        date: When it was withdrawn: a date of ISO 8601, in UTC.
        why: The reason; may be empty.
    """

    image_id: str
    date: str
    why: str

    @property
    def message(self) -> str:
        """What happened, for the ledger and for people."""
        return f"withdrawn: {self.why}" if self.why else "withdrawn"


def read(path: Path) -> dict[str, Withdrawal]:
    """Return the withdrawals by image id; empty if there is no file.

    Raises:
        InputFormError: The file has other columns, or an invalid row.
    """
    try:
        text = files.read_text(path).removeprefix("\ufeff")  # some editors of tables write it
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error) as error:
        raise _form_error(path, f"{type(error).__name__}: {error}") from error
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise _form_error(path, ",".join(rows[0]) if rows else "an empty file")
    withdrawals: dict[str, Withdrawal] = {}
    for number, row in enumerate(rows[1:], start=_FIRST_ROW):
        if not row:
            continue
        if len(row) != len(_COLUMNS):
            raise _form_error(path, f"{len(row)} values in row {number:,}")
        parse_id(row[0], where=str(path), row=number, remedy=_REMEDY)
        withdrawals.setdefault(row[0], Withdrawal(*row))
    return withdrawals


def _form_error(path: Path, found: str) -> InputFormError:
    return InputFormError(
        "cannot read the list of withdrawn images",
        where=str(path),
        expected=f"the columns {','.join(_COLUMNS)}",
        found=found,
        remedy=_REMEDY,
    )


def write(path: Path, withdrawals: Iterable[Withdrawal]) -> None:
    """Write the file, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((row.image_id, row.date, row.why) for row in withdrawals)
    files.write_text(path, text.getvalue())
