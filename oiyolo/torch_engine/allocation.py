"""How the C library hands out memory."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
_NEVER_BYTES: Final = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, instead of returning it to the system.

    PyTorch allocates the same large tensors in each iteration. By default glibc maps each of them
    again, and the kernel fills every page with zeros.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    set_option(_TRIM_THRESHOLD, _NEVER_BYTES)
    set_option(_MMAP_MAX, 0)
