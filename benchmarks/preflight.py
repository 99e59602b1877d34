"""Measure the check of all images and labels before a training run: 26,000 by default.

It runs ``training.preflight.check`` on images of a few bytes (the check reads only their size and
last two bytes) and labels of one to five boxes. The baseline is less than any check has to do: get
the size of each image and read each label. The CPU time is that of the best of several rounds,
because all files are in the page cache after the first.

    python benchmarks/preflight.py [--images 26000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core import progress
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import data_file
from oiyolo.networks.builders import build
from oiyolo.networks.schedule import Schedule
from oiyolo.training import preflight

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=26_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    progress.enabled.set(False)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        objects, boxes = write_dataset(folder, arguments.images)
        run = write_run(folder, objects, arguments.images)
        schedule = Schedule(64, 16, 0.001, 26_000, 1000, (20_000,), (0.1,))
        cfg = build("yolov3", class_count=2, size_wh=(416, 416), schedule=schedule)
        baseline_s = best_of(lambda: read_all(objects, arguments.images))
        print(f"{arguments.images:,} images, {boxes:,} boxes")
        print("| step | CPU s | us/image | ratio |")
        print("|---|---|---|---|")
        for name, seconds in (
            ("size of each image, bytes of each label", baseline_s),
            ("preflight", best_of(lambda: preflight.check(run, cfg=cfg, fork=FORKS["pjreddie"]))),
        ):
            us_per_image = seconds / arguments.images * 1e6
            print(f"| {name} | {seconds:.2f} | {us_per_image:.1f} | {seconds / baseline_s:.2f} |")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory: {peak_mb:.0f} MB", file=sys.stderr)


def best_of(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest round."""
    cpu_s = []
    for _ in range(ROUNDS):
        start_s = time.process_time()
        work()
        cpu_s.append(time.process_time() - start_s)
    return min(cpu_s)


def read_all(objects: Path, count: int) -> int:
    """Get the size of each image and read each label; return the total number of bytes."""
    total = 0
    for number in range(count):
        total += os.stat(f"{objects}/{number}.jpg").st_size  # noqa: PTH116  (a minimal baseline)
        descriptor = os.open(f"{objects}/{number}.txt", os.O_RDONLY)
        total += len(os.read(descriptor, 1 << 16))
        os.close(descriptor)
    return total


def write_dataset(folder: Path, count: int) -> tuple[Path, int]:
    """Write images and labels; return their folder and the number of boxes."""
    objects = folder / "obj"
    objects.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    boxes = rng.integers(1, 6, count)
    for number, box_count in enumerate(boxes.tolist()):
        (objects / f"{number}.jpg").write_bytes(b"\xff\xd8\xff\xd9")
        rows = rng.uniform(0.1, 0.4, (box_count, 4))
        text = "".join(f"0 {x:.7f} {y:.7f} {w:.7f} {h:.7f}\n" for x, y, w, h in rows.tolist())
        (objects / f"{number}.txt").write_text(text)
    return objects, int(boxes.sum())


def write_run(folder: Path, objects: Path, count: int) -> Path:
    """Write and return the folder of a run that validates on a tenth of the images."""
    run = folder / "run"
    (run / "weights").mkdir(parents=True, exist_ok=True)
    valid = count // 10
    for name, numbers in (("train", range(valid, count)), ("valid", range(valid))):
        (run / f"{name}.txt").write_text("".join(f"{objects}/{n}.jpg\n" for n in numbers))
    (run / "obj.names").write_text("Boat\nCat\n")
    names = {name: f"{name}.txt" for name in ("train", "valid")}
    text = data_file(class_count=2, **names, names="obj.names", backup="weights", results="results")
    (run / "obj.data").write_text(text)
    return run


if __name__ == "__main__":
    main()
