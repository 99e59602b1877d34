"""Measure what supervising a training run costs: CPU time and memory of oiyolo's process.

``python benchmarks/supervise.py`` runs a stand-in that prints what AlexeyAB's darknet prints for
YOLOv3 with 64 subdivisions: two lines for each of three layers and each subdivision, spread over an
iteration of four seconds, as on a GPU. As a stress test it also prints the output of a tiny network
as fast as possible. The baseline only writes the same lines through ``process.stream`` to a file.
Memory is that of the process with everything that ``oiyolo train`` imports.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import layout

import oiyolo.stages.train  # noqa: F401  (as in a real training run)
from oiyolo.core import process
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import EarlyStopping, Explosion, NanLoss, OutOfMemory, Stall
from oiyolo.training.supervise import release_memory, supervise

PRINT = """
import os, sys, time
subdivisions, iterations, pause_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
region = (b"v3 (mse loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region %d Avg (IOU: "
          b"0.332327), count: 11, class_loss = 27.921522, iou_loss = 2.854937, total_loss = "
          b"30.776459 \\n")
for n in range(1, iterations + 1):
    for part in range(subdivisions):
        for layer in (82, 94, 106):
            os.write(2, region % layer)
            os.write(2, b" total_bbox = 11, rewritten_bbox = 0.000000 % \\n")
        time.sleep(pause_s / subdivisions)
    os.write(1, b"\\n %d: 1.604102, 1.521056 avg loss, 0.001000 rate, 4.125164 seconds, "
             b"%d images, 0.004530 hours left\\n" % (n, n * 64))
"""


def supervise_stand_in(role: str, numbers: list[str]) -> None:
    """Read the lines in this process, and print the cost as JSON."""
    logging.disable(logging.WARNING)
    argv = [sys.executable, "-S", "-c", PRINT, *numbers]
    release_memory()
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "train_log.txt"
        start, start_s = os.times(), time.perf_counter()
        if role == "baseline":
            with log_path.open("wb", buffering=0) as log:

                def write(_: str, line: bytes) -> None:
                    log.write(line + b"\n")

                process.stream(argv, write)
        else:
            monitors = [NanLoss(), Explosion(0), OutOfMemory(), Stall()]
            monitors.append(EarlyStopping(1000, measures_map=False))
            supervise(
                argv,
                cwd=Path(folder),
                log_path=log_path,
                read=LiveReader(),
                monitors=monitors,
                total=10**6,
            )
        end, wall_s = os.times(), time.perf_counter() - start_s
        lines = log_path.read_bytes().count(b"\n")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident_kb = next(int(row.split()[1]) for row in status.splitlines() if "VmRSS" in row)
    sys.stdout.write(
        json.dumps(
            {
                "cpu_s": end.user + end.system - start.user - start.system,
                "wall_s": wall_s,
                "lines": lines,
                "mb": resident_kb * 1024 / 1e6,
            }
        )
    )


def main() -> None:
    """Measure the baseline and the supervision, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=("baseline", "supervise"))
    parser.add_argument("--iterations", type=int, default=5, help="iterations of four seconds each")
    parser.add_argument("numbers", nargs="*")
    arguments = parser.parse_args()
    if arguments.role:
        supervise_stand_in(arguments.role, arguments.numbers)
        return
    cases = {
        "64 subdivisions, 4 s per iteration": ("64", str(arguments.iterations), "4"),
        "a tiny network, as fast as possible": ("1", "5000", "0"),
    }
    rows = [("", "lines/s", "CPU us/line", "% of a core", "MB")]
    for name, numbers in cases.items():
        for role in ("baseline", "supervise"):
            command = [sys.executable, __file__, "--role", role, *numbers]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(2)
            ]
            best = min(runs, key=lambda run: run["cpu_s"])
            rows.append(
                (
                    f"{name}: {role}",
                    f"{best['lines'] / best['wall_s']:,.0f}",
                    f"{best['cpu_s'] / best['lines'] * 1e6:.1f}",
                    f"{best['cpu_s'] / best['wall_s']:.2%}",
                    f"{best['mb']:.0f}",
                )
            )
    sys.stdout.write(layout(rows) + "\n")


if __name__ == "__main__":
    main()
