"""What a look at everything costs before a training: 26,000 images and labels, or a million.

Measured is ``training.preflight.check`` on a run whose images are a few bytes each (it asks for
their size only) with labels of one to five boxes, against the least that any check has to do: to
ask for each image's size and to read each label. CPU seconds of the best of some rounds, because
the page cache has all after the first.

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
from oiyolo.darknet.forks import LINES
from oiyolo.darknet.program import data_file
from oiyolo.networks.builders import build
from oiyolo.networks.schedule import Schedule
from oiyolo.training import preflight

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=26_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    progress.shown.set(False)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        objects, boxes = write_dataset(folder, arguments.images)
        run = write_run(folder, objects, arguments.images)
        schedule = Schedule(64, 16, 0.001, 26_000, 1000, (20_000,), (0.1,))
        cfg = build("yolov3", class_count=2, size_wh=(416, 416), schedule=schedule)
        least = best_of(lambda: read_all(objects, arguments.images))
        print(f"{arguments.images:,} images, {boxes:,} boxes")
        print("| what | CPU s | us an image | ratio |")
        print("|---|---|---|---|")
        for name, seconds in (
            ("size of each image, bytes of each label", least),
            ("preflight", best_of(lambda: preflight.check(run, cfg=cfg, line=LINES["pjreddie"]))),
        ):
            each = seconds / arguments.images * 1e6
            print(f"| {name} | {seconds:.2f} | {each:.1f} | {seconds / least:.2f} |")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"most memory in use: {peak_mb:.0f} MB", file=sys.stderr)


def best_of(work: Callable[[], object]) -> float:
    """Give the CPU seconds of the quickest round."""
    taken = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        work()
        taken.append(time.process_time() - began_s)
    return min(taken)


def read_all(objects: Path, count: int) -> int:
    """Ask for each image's size, read each label."""
    total = 0
    for number in range(count):
        total += os.stat(f"{objects}/{number}.jpg").st_size  # noqa: PTH116  (the least it takes)
        descriptor = os.open(f"{objects}/{number}.txt", os.O_RDONLY)
        total += len(os.read(descriptor, 1 << 16))
        os.close(descriptor)
    return total


def write_dataset(folder: Path, count: int) -> tuple[Path, int]:
    """Write images and labels; give their folder and how many boxes there are."""
    objects = folder / "obj"
    objects.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    boxes = rng.integers(1, 6, count)
    for number, box_count in enumerate(boxes.tolist()):
        (objects / f"{number}.jpg").write_bytes(b"\xff\xd8")
        rows = rng.uniform(0.1, 0.4, (box_count, 4))
        text = "".join(f"0 {x:.7f} {y:.7f} {w:.7f} {h:.7f}\n" for x, y, w, h in rows.tolist())
        (objects / f"{number}.txt").write_text(text)
    return objects, int(boxes.sum())


def write_run(folder: Path, objects: Path, count: int) -> Path:
    """Write a run's folder; a tenth of the images is for validation."""
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
