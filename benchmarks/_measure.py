"""Shared by the benchmarks: measuring the time and memory of a command, and formatting tables.

Absolute times depend on the machine, so each script measures a baseline in the same run and prints
ratios.
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
class Measurement:
    """Time, memory and output of a command.

    Attributes:
        wall_s: Wall-clock time from start to end.
        cpu_s: User and system CPU time of all threads.
        peak_mb: Peak resident memory in MB. It is at least that of the measuring process, because
            Linux includes the time before ``exec``.
        output: Standard output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def run(command: Sequence[str]) -> Measurement:
    """Run a command, and return its measurement.

    Python may cache compiled modules, as it does for an installed package.

    Raises:
        RuntimeError: The command failed.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if process.stdout is None:
            raise AssertionError("stdout is a pipe")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start_s
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    return Measurement(
        wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, output
    )


def fastest(command: Sequence[str], runs: int = 3) -> Measurement:
    """Run a command several times, and return the fastest run: other load only slows it down."""
    return min((run(command) for _ in range(runs)), key=lambda measurement: measurement.wall_s)


def table(rows: Sequence[tuple[str, Measurement | float]]) -> str:
    """Return a table of measurements, with the ratio of each time to the first."""
    first = rows[0][1]
    first_s = first.wall_s if isinstance(first, Measurement) else first
    lines = [("", "wall s", "ratio", "CPU s", "peak MB")]
    for name, value in rows:
        wall_s = value.wall_s if isinstance(value, Measurement) else value
        cpu_and_memory = ("", "")
        if isinstance(value, Measurement):
            cpu_and_memory = (f"{value.cpu_s:.2f}", f"{value.peak_mb:.0f}")
        lines.append((name, f"{wall_s:.2f}", f"{wall_s / first_s:.2f}", *cpu_and_memory))
    return layout(lines)


def layout(lines: Sequence[Sequence[str]]) -> str:
    """Return a text table: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
