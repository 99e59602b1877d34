"""Copies of the ledger that leave the project: consistent, and the same for the same content."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.project.database import Database
from oiyolo.project.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FIXED_BYTES: Final = {24: 1, 40: 1, 92: 1, 96: 0}
"""The numbers in the header that depend on a file's past or on the version of SQLite.

The change counter, the schema cookie, the change counter for which the next number is valid, and
the version (https://www.sqlite.org/fileformat.html#the_database_header).
"""
_NUMBER_BYTES: Final = 4


def write_copy(ledger_path: Path, copy_path: Path, *, only_splits: Sequence[str] = ()) -> None:
    """Write a copy of a ledger, whether others use it or not.

    Two copies have the same bytes if their content is the same, also when one of the ledgers was
    installed from a copy.

    Args:
        ledger_path: The ledger.
        copy_path: The copy; an existing file is replaced.
        only_splits: If any, images without one of these splits are not selected in the copy. They
            keep their rows, and with them their splits.

    Raises:
        OiyoloError: The ledger cannot be read.
    """
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(files.atomic_write(copy_path))
        source = ledger_path
        if only_splits:
            source = stack.enter_context(files.part_path(copy_path.with_suffix(".selection")))
            _copy(ledger_path, source)
            with contextlib.closing(Database(source, read_only=False)) as database:
                database.execute(
                    "UPDATE images SET selected = 0 WHERE selected = 1 "
                    "AND state NOT IN (SELECT value FROM json_each(?))",
                    (json.dumps(list(only_splits)),),
                )
        _copy(source, part)
        _fix_header(part)


def check(copy_path: Path) -> None:
    """Raise InputFormError if a copy is not a ledger, or was written by a newer oiyolo."""
    with Ledger(copy_path, read_only=True) as ledger:
        ledger.counts()


def install_copy(copy_path: Path, ledger_path: Path) -> None:
    """Make a copy the project's ledger, while others may read it; the caller holds its lock.

    Raises:
        OiyoloError: The ledger cannot be written.
    """
    with Ledger(ledger_path):
        pass  # creates a missing one
    with contextlib.closing(Database(ledger_path, read_only=False)) as database:
        database.replace_content(copy_path)


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(Database(source, read_only=True)) as database:
        database.write_copy(target)


def _fix_header(path: Path) -> None:
    with path.open("r+b") as file:
        for position, number in _FIXED_BYTES.items():
            file.seek(position)
            file.write(number.to_bytes(_NUMBER_BYTES, "big"))
