"""Return unused memory to the system, because a training runs for days."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def release() -> None:
    """Free the memory that planning used and make the C library return it to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
