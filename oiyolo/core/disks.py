"""Disk space: how much is free or used, and the one error for too little of it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors of a write to a full disk: no space left, or the user's quota exceeded."""

_BLOCK_BYTES: Final = 512
"""Unit of ``st_blocks``, independent of the file system's block size (stat(2))."""


def nearest_folder(path: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def device(path: Path) -> int:
    """Return the number of the file system on which a folder is or will be."""
    return nearest_folder(path).stat().st_dev


def free_bytes(path: Path) -> int:
    """Return the free space of the file system on which a folder is or will be."""
    return shutil.disk_usage(nearest_folder(path)).free


def used_bytes(folder: Path) -> int:
    """Return a folder's disk usage in whole blocks; 0 if it does not exist."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # A running command may have just deleted the file.
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{parent}/{name}").st_blocks * _BLOCK_BYTES
    return total


def check_free_space(
    folder: Path, needed_bytes: float, *, what: str, remedy: str, parts: str = ""
) -> None:
    """Raise if a disk has less than ``needed_bytes`` of free space.

    Args:
        folder: A folder on the disk, which need not exist.
        needed_bytes: Size of what is still to be written, and what must stay free.
        what: What needs the space.
        remedy: What the user can do, besides freeing some space.
        parts: What the size consists of; empty if ``what`` says it.

    Raises:
        UnavailableError: Less is free.
    """
    if free_bytes(folder) < needed_bytes:
        raise disk_full_error(folder, needed_bytes, what=what, remedy=remedy, parts=parts)


def disk_full_error(
    folder: Path, needed_bytes: float | None, *, what: str, remedy: str, parts: str = ""
) -> UnavailableError:
    """Return the error for too little free space; ``needed_bytes`` is ``None`` if it is unknown.

    The other arguments are those of ``check_free_space``.
    """
    needed = "more space" if needed_bytes is None else f"{format_bytes(needed_bytes)} free"
    return UnavailableError(
        f"not enough disk space for {what}",
        where=str(folder),
        expected=f"{needed} ({parts})" if parts else needed,
        found=format_bytes(free_bytes(folder)),
        remedy=f"Free some space, {remedy}",
    )


@contextlib.contextmanager
def convert_disk_full_error(folder: Path, *, what: str, remedy: str) -> Iterator[None]:
    """Turn the operating system's error about a full disk into ``disk_full_error``."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full_error(folder, None, what=what, remedy=remedy) from error
        raise
