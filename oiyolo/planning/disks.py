"""Query the file systems of folders that may not exist yet."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_BYTES = 512
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
