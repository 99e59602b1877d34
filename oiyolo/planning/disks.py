"""The disks below folders that may not be there yet."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_BYTES = 512
"""What ``st_blocks`` counts in, whatever the file system's own blocks are (stat(2))."""


def existing(path: Path) -> Path:
    """Give the nearest folder above that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def device(path: Path) -> int:
    """Tell file systems apart."""
    return existing(path).stat().st_dev


def free_bytes(path: Path) -> int:
    """Give what is free where a folder is or will be."""
    return shutil.disk_usage(existing(path)).free


def used_bytes(folder: Path) -> int:
    """Give what a folder takes on its disk, in whole blocks; 0 where there is none."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            # What a live run has just taken away takes nothing any more.
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{above}/{name}").st_blocks * _BLOCK_BYTES
    return total
