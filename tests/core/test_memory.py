"""Memory that is available on a machine and in its control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.memory import available_bytes

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
V1_UNLIMITED = "9223372036854771712"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def machine(available: int = 16 * GIB) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {available >> 10} kB"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16 * GIB),
        # Version 2: the smallest of a group and its parents; cached files are given up first.
        (
            {
                "proc/self/cgroup": "0::/user/job",
                "sys/fs/cgroup/user/memory.max": str(8 * GIB),
                "sys/fs/cgroup/user/memory.current": str(5 * GIB),
                "sys/fs/cgroup/user/memory.stat": f"anon 1\ninactive_file {2 * GIB}",
                "sys/fs/cgroup/user/job/memory.max": "max",
                "sys/fs/cgroup/user/job/memory.current": str(GIB),
            },
            5 * GIB,
        ),
        # Version 1 in a container, which sees the host's path but only its own group.
        (
            {
                "proc/self/cgroup": "5:cpu:/docker/1\n4:memory:/docker/1",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(3 * GIB),
                "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB}",
            },
            2 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(3 * GIB),
            },
            16 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": str(GIB),
                "sys/fs/cgroup/memory.current": str(2 * GIB),
            },
            0,
        ),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_bytes(write(tmp_path, machine() | files)) == expected


def test_memory_is_unknown_without_meminfo(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
