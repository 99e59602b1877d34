"""File locks that the operating system releases when their holder dies, for whatever reason."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from oiyolo.core.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise LockedError(
                f"{what} is in use by another process",
                where=str(path.parent),
                found=holder or "an unknown process",
                remedy="Wait until it ends, then run the same command again",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"oiyolo {operation}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock, by trying to take a shared lock for a moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
