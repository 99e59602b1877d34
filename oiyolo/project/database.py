"""Open the ledger's SQLite file, also in a read-only folder, and say what its errors mean.

A remedy that could lose data is given only for a file that SQLite reports as damaged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, LockedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.core.errors import OiyoloError

_BUSY_TIMEOUT_S: Final = 30.0
_PAGE_ROWS: Final = 10_000
_DAMAGED: Final = ("not a database", "malformed")
_NOT_WRITABLE: Final = ("readonly", "unable to open")
_DISK: Final = ("disk is full", "disk I/O error")
_OTHER_TABLES: Final = ("no such table", "no such column", "already exists", "datatype mismatch")


class Database:
    """A connection to a SQLite file, whose errors say what is wrong.

    Args:
        path: The file. A missing one is created, unless ``read_only``.
        read_only: Whether to open it for reading only. This needs no permission to write anywhere.

    Raises:
        UnavailableError: The file is read-only, or it cannot be read.
        InputFormError: The file is not a SQLite file.
        LockedError: Another process has locked it.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path, self._read_only = path, read_only
        self._cleanup = contextlib.ExitStack()
        if read_only and not path.exists():
            raise InputFormError("there is no ledger", where=str(path))
        files.check_regular(path)
        with self._explained():
            self._connection = self._connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._cleanup.close()

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Execute a statement."""
        with self._explained():
            return self._connection.execute(statement, values)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return all rows of a query."""
        with self._explained():
            return self._connection.execute(query, values).fetchall()

    def pages(self, query: str) -> Iterator[list[tuple[object, ...]]]:
        """Yield the rows of a query, many at once."""
        with self._explained():
            cursor = self._connection.execute(query)
            while rows := cursor.fetchmany(_PAGE_ROWS):
                yield rows

    def value(self, query: str) -> int:
        """Return the number that a query returns."""
        (row,) = self.rows(query)
        return int(str(row[0]))

    def write_copy(self, path: Path) -> None:
        """Write the content at this moment into a new file, which has no free pages and no log."""
        self.execute("VACUUM INTO ?", (str(path),))

    def replace_content(self, path: Path) -> None:
        """Replace all content by that of another SQLite file, in one transaction."""
        with self._explained(), contextlib.closing(_open(path, "mode=ro")) as source:
            source.backup(self._connection)

    def _connect(self) -> sqlite3.Connection:
        if not self._read_only:
            return _open(self._path, "mode=rwc")
        try:
            return _open(self._path, "mode=ro")
        except sqlite3.OperationalError:
            # A reader of a write-ahead log shares memory through a file, which it has to create.
            if not self._path.is_file() or os.access(self._path.parent, os.W_OK):
                raise
        log_path = _log_path(self._path)
        if not (log_path.is_file() and log_path.stat().st_size):
            return _open(self._path, "mode=ro&immutable=1")
        # A process was killed, so that the newest changes are in the log only.
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="oiyolo-")))
        copy = folder / self._path.name
        shutil.copyfile(self._path, copy)
        shutil.copyfile(log_path, _log_path(copy))
        return _open(copy, "mode=rw")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(str(error)) from error

    def _error(self, found: str) -> OiyoloError:
        """Return what an error of SQLite means; its text is the same in all versions."""
        where = str(self._path)
        if any(text in found for text in _DAMAGED):
            return InputFormError(
                "the ledger is damaged",
                where=where,
                expected="a SQLite file written by oiyolo",
                found=found,
                remedy="Restore it from a copy; it is the only record of each image's split. "
                "Without a copy, start again in a new folder",
            )
        if any(text in found for text in _OTHER_TABLES):
            return InputFormError(
                "this is not a ledger",
                where=where,
                expected="a SQLite file written by oiyolo",
                found=found,
            )
        if "locked" in found:
            return LockedError(
                "the ledger is in use by another process",
                where=where,
                found=found,
                remedy="Wait until it ends, then run the same command again",
            )
        if any(text in found for text in _NOT_WRITABLE) and not self._may_write():
            return UnavailableError(
                "the project is read-only: its ledger cannot be written",
                where=where,
                found=found,
                remedy="Use a copy of the project in a folder of your own",
            )
        reason = "its disk has an error" if any(text in found for text in _DISK) else ""
        return UnavailableError(
            "the ledger cannot be used" + (f": {reason}" if reason else ""),
            where=where,
            found=found,
            remedy="Check the disk, its free space and the file's permissions, then run the same "
            "command again",
        )

    def _may_write(self) -> bool:
        """Return whether this process may write to the file and its folder."""
        paths = [path for path in (self._path, self._path.parent) if path.exists()]
        return all(os.access(path, os.W_OK) for path in paths)


def _open(path: Path, parameters: str) -> sqlite3.Connection:
    """Return a connection that has read the file's header."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{parameters}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
    )
    try:
        connection.execute("PRAGMA user_version").fetchone()
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _log_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
