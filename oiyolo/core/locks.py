"""File locks that the operating system releases when their holder dies, for whatever reason.

A lock file is opened without following a link, and never truncated: in a project from another user,
it may be a link to another file, or a file with other content.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import LockedError, UnavailableError
from oiyolo.core.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OWN_TEXT: Final = "oiyolo "
"""How the text of a lock file begins."""
_TEXT_BYTES: Final = 200
_NOT_WRITABLE: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, operation: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path`` while the block runs.

    Args:
        path: The lock file. It is never removed; its text names the last holder.
        what: What is locked, for the error message: "the dataset".
        operation: What the holder is doing, for the error message in another process.
        wait: Whether to wait until another holder releases the lock.

    Raises:
        LockedError: Another process holds the lock, and ``wait`` is false.
        UnavailableError: The folder is read-only.
        NotRegularFileError: Something other than a file is at ``path``.
    """
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockedError(
                f"{what} is in use by another process",
                where=str(path.parent),
                found=_read_holder(descriptor) or "an unknown process",
                remedy="Wait until it ends, then run the same command again",
            ) from None
        since = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        text = f"{_OWN_TEXT}{operation}, process {os.getpid()}, since {since}\n"
        _write_holder(descriptor, text)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_regular(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise UnavailableError(
            "the folder is read-only, and a lock cannot be taken in it",
            where=str(path.parent),
            found=str(error.strerror),
            remedy="Work in a copy of the folder, or have its owner allow you to write to it",
        ) from error


def _read_holder(descriptor: int) -> str:
    """Return what the holder wrote; empty for the text of anything else."""
    text, _, _ = os.pread(descriptor, _TEXT_BYTES, 0).decode(errors="replace").partition("\n")
    return text if text.startswith(_OWN_TEXT) else ""


def _write_holder(descriptor: int, text: str) -> None:
    """Write the holder into the first line, unless the file has other content."""
    if _read_holder(descriptor) or not os.fstat(descriptor).st_size:
        os.pwrite(descriptor, text.encode(), 0)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock, by trying to take a shared lock for a moment."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
