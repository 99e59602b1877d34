"""How much memory is available: on this machine, and within its control groups (containers)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.files import text_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Files(NamedTuple):
    """The files of a version of control groups.

    Attributes:
        folder: Where the groups are.
        limit: File with the limit in bytes, or ``max``.
        used: File with the memory in use, which includes cached files.
        cached: Name, in ``memory.stat``, of cached files that are given up first.
    """

    folder: str
    limit: str
    used: str
    cached: str


_V1: Final = _Files(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
_V2: Final = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this process may still take without swapping.

    Args:
        root: Folder that contains ``proc`` and ``sys``.

    Returns:
        The smallest of what is available on the machine and what is left in each control group of
        the process, in bytes; ``None`` on systems without ``/proc/meminfo``.
    """
    available = _number(root / "proc/meminfo", r"^MemAvailable:\s*(\d+) kB")
    if available is None:
        return None
    return min([available << 10, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left in each control group that this process is in, and in their parents."""
    for line in text_or_empty(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _V1 if controllers else _V2
        # In a container the path may be the host's; the container's own group is the folder.
        for part in (Path(path), *Path(path).parents):
            group = root / files.folder / str(part).lstrip("/")
            limit = _number(group / files.limit, r"^(\d+)")
            used = _number(group / files.used, r"^(\d+)")
            if limit is not None and used is not None:
                cached = _number(group / "memory.stat", rf"^{files.cached} (\d+)") or 0
                yield max(0, limit - max(0, used - cached))


def _number(path: Path, pattern: str) -> int | None:
    match = re.search(pattern, text_or_empty(path), re.MULTILINE)
    return int(match[1]) if match else None
