"""What the benchmarks share: a command's time and memory, and a table of such.

Seconds of one machine say little: each script takes its baseline in the same run and shows ratios.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: Of all its threads, in user and system mode.
        peak_mb: The most memory that was resident, in MB; this process's own at the least, because
            Linux counts from before ``exec``.
        output: What it printed.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def run(command: Sequence[str]) -> Measured:
    """Run a command to its end; Python's modules may be kept compiled, as when they are installed.

    Raises:
        RuntimeError: It failed.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, output)


def best(command: Sequence[str], runs: int = 3) -> Measured:
    """Run a command several times and give the quickest run: others only make it slower."""
    return min((run(command) for _ in range(runs)), key=lambda measured: measured.wall_s)


def table(rows: Sequence[tuple[str, Measured | float]]) -> str:
    """Lay out measurements, in seconds and as multiples of the first."""
    first = rows[0][1]
    first_s = first.wall_s if isinstance(first, Measured) else first
    lines = [("", "wall s", "ratio", "CPU s", "peak MB")]
    for name, value in rows:
        wall_s = value.wall_s if isinstance(value, Measured) else value
        more = ("", "")
        if isinstance(value, Measured):
            more = (f"{value.cpu_s:.2f}", f"{value.peak_mb:.0f}")
        lines.append((name, f"{wall_s:.2f}", f"{wall_s / first_s:.2f}", *more))
    return layout(lines)


def layout(lines: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
