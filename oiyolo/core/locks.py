"""Locks that the system frees when their holder dies, however it dies."""

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
def exclusive(path: Path, *, what: str, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold ``path`` as a lock while the block runs.

    Args:
        path: The lock's file; it stays, and holds the words about its last holder.
        what: What is locked, for the message: "the dataset".
        doing: What the holder does, for the message of whoever comes second.
        wait: Wait for another holder to end rather than give up.

    Raises:
        LockedError: Another process holds it, and this one would not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise LockedError(
                f"{what} is in use by another run",
                where=str(path.parent),
                found=holder or "a holder that left no name",
                remedy="Wait until it ends, then give the same command again",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"oiyolo {doing}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock; takes nothing but a moment's shared hold."""
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
