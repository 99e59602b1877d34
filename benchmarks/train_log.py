"""Measure how fast a long training log is parsed, against one ``re`` search per line.

``python benchmarks/train_log.py`` writes logs of 1 million region lines and 20,000 iteration lines
(about 120 MB in the format of pjreddie's fork), one for each dialect. It measures, each in its own
process:

- the baseline: two regular expressions searched in every line, with the numbers stored in arrays;
- all tables and the metrics (``read_log``). Target: at most half the time of the baseline, and less
  than 300 MB;
- the iteration lines only. Target: at most a third of the time of the baseline (1 s where that
  takes 3.5 s);
- an update of a follower after a few lines are appended, on a long log and on a short one. Target:
  the same time on both.

Times exclude imports. They are CPU seconds of all threads, so that other load on the machine
matters little; those of the follower are wall times. The peak includes the memory of Python, numpy
and pandas (about 70 MB).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import layout, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITERATIONS = 20_000
REGIONS_PER_ITERATION = 50
DISTINCT_REGION_LINES = 30_000
APPENDED_ITERATIONS = 20

NUMBER = r"([-+]?(?:nan|inf|\d+(?:\.\d+)?))"
BASELINE = {
    "pjreddie": (
        r"Region (\d+) Avg IOU: @, Class: @, Obj: @, No Obj: @, \.5R: @, \.75R: @,  count: (\d+)",
        r"(\d+): @, @ avg, @ rate, @ seconds, (-?\d+) images",
    ),
    "alexeyab": (
        r"Region (\d+) Avg \(IOU: @\), count: (\d+), class_loss = @, iou_loss = @, total_loss = @",
        r"(\d+): @, @ avg loss, @ rate, @ seconds, (-?\d+) images, @ hours left",
    ),
    "hank": (
        r"Region (\d+) Avg \(IOU: @\), count: (\d+), class_loss: @, iou_loss: @, total_loss: @",
        r"(\d+): loss=@, avg loss=@,.*? rate=@,.*?train=@ milliseconds, (-?\d+) images",
    ),
}


def pjreddie_region(rng: random.Random, layer: int) -> str:
    """Return a region line; one in seven has no object."""
    count = rng.choice((0, 1, 2, 3, 5, 11, 17))
    scores = [f"{rng.random():f}" if count else "-nan" for _ in range(5)]
    iou, class_score, objectness, recall_50, recall_75 = scores
    return (
        f"Region {layer} Avg IOU: {iou}, Class: {class_score}, Obj: {objectness}, "
        f"No Obj: {rng.random():f}, .5R: {recall_50}, .75R: {recall_75},  count: {count}\n"
    )


def pjreddie_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Return the lines after the region lines of an iteration."""
    return (
        f"{n}: {loss:f}, {loss * 1.01:f} avg, 0.001000 rate, {rng.random() * 5:f} seconds, "
        f"{n * 64} images\nLoaded: 0.000034 seconds\n"
    )


def alexeyab_region(rng: random.Random, layer: int) -> str:
    """Return a region line and the line with the number of boxes that follows it."""
    count = rng.choice((1, 2, 3, 5, 11, 17, 120))
    class_loss, iou_loss = rng.lognormvariate(0, 2.5), rng.lognormvariate(0, 2.5)
    return (
        f"v3 (iou loss, Normalizer: (iou: 0.07, obj: 1.00, cls: 1.00) Region {layer} Avg "
        f"(IOU: {rng.random():f}), count: {count}, class_loss = {class_loss:f}, "
        f"iou_loss = {iou_loss:f}, total_loss = {class_loss + iou_loss:f} \n"
        f" total_bbox = {rng.randrange(1_000_000)}, rewritten_bbox = {rng.random():f} % \n"
    )


def alexeyab_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Return the lines after the region lines of an iteration, with the window title."""
    hours_left = 20 - n / 1000
    return (
        f"\n (next mAP calculation at {n // 100 * 100 + 100} iterations) \x1b[H\x1b[J{n}/20000: "
        f"loss={loss:.1f} hours left={hours_left:.1f}\x07\n {n}: {loss:f}, "
        f"{loss * 1.01:f} avg loss, 0.001000 rate, {rng.random() * 5:f} seconds, {n * 64} images, "
        f"{hours_left:f} hours left\n"
        "Loaded: 0.000034 seconds\n"
    )


def hank_region(rng: random.Random, layer: int) -> str:
    """Return a region line and the line with the number of boxes, as printed with ``-verbose``."""
    line = alexeyab_region(rng, layer).replace("v3 (", "v3 ").replace(" = ", ": ")
    return line.replace(" \n total_bbox: ", "\ntotal_bbox=").replace("rewritten_bbox: ", "x=")


def hank_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Return the line after the region lines of an iteration, with window title and colours."""
    return (
        f"\x1b]2;{n}/20000: loss={loss:.1f} time=3 seconds\x07\x1b[1;37m{n}\x1b[0m: "
        f"loss=\x1b[1;36m{loss:.3f}\x1b[0m, avg loss=\x1b[0;36m{loss * 1.01:.3f}\x1b[0m, "
        f"last=\x1b[0mnone\x1b[0m, best=\x1b[0mnone\x1b[0m, mAP=100, rate=0.00100000, "
        f"load 64={rng.random() * 50:.1f} milliseconds, train={rng.random() * 900:.1f} "
        f"milliseconds, {n * 64} images, time remaining={rng.randrange(100)} minutes\n"
    )


FORMS: dict[str, tuple[Callable[..., str], Callable[..., str], tuple[int, ...]]] = {
    "pjreddie": (pjreddie_region, pjreddie_iteration, (82, 94, 106)),
    "alexeyab": (alexeyab_region, alexeyab_iteration, (139, 150, 161)),
    "hank": (hank_region, hank_iteration, (139, 150, 161)),
}


def iterations(form: str, first: int, last: int) -> Iterator[str]:
    """Yield the lines of some iterations; the same arguments produce the same lines."""
    region, iteration, layers = FORMS[form]
    rng = random.Random(first)  # noqa: S311  (lines of a synthetic log)
    lines = [region(rng, layers[i % len(layers)]) for i in range(DISTINCT_REGION_LINES)]
    for n in range(first, last + 1):
        yield "".join(rng.choices(lines, k=REGIONS_PER_ITERATION))
        yield iteration(rng, n, 2000 * 0.999**n + rng.random())


def baseline(path: Path, form: str) -> str:
    """Parse the log by searching two regular expressions in every line."""
    region, iteration = (re.compile(p.replace("@", NUMBER)) for p in BASELINE[form])
    columns = [array("d") for _ in range(max(region.groups, iteration.groups))]
    counts = [0, 0]
    with path.open(encoding="utf-8") as file:
        for line in file:
            match = region.search(line)
            counts[match is None] += 1
            match = match or iteration.search(line)
            if match:
                for column, text in zip(columns, match.groups(), strict=False):
                    column.append(float(text))
    return f"{counts[0]:,} region lines"


def tables(path: Path, form: str) -> str:
    """Parse the log into all tables and the metrics."""
    from oiyolo.trainlog.parse import read_log  # noqa: PLC0415  (the baseline does without)

    log = read_log(path)
    sizes = [len(t) for t in (log.iterations, log.regions, log.maps, log.events, log.metrics())]
    del form
    return f"{sizes[1]:,} region lines, {sizes[0]:,} iterations"


def iterations_only(path: Path, form: str) -> str:
    """Parse the log into the table of iterations."""
    from oiyolo.trainlog.parse import read_log  # noqa: PLC0415  (the baseline does without)

    del form
    return f"{len(read_log(path, regions=False).iterations):,} iterations"


def follow(path: Path, form: str) -> str:
    """Append lines to a short and a long log, and return the time of a follower's updates."""
    from oiyolo.trainlog.follow import LogFollower  # noqa: PLC0415  (the baseline does without)

    results = []
    lines = "".join(iterations(form, ITERATIONS + 1, ITERATIONS + 20 * APPENDED_ITERATIONS))
    ends = [m.end() for m in re.finditer(r" images.*\n", lines)][::APPENDED_ITERATIONS]
    pieces = [lines[start:end] for start, end in itertools.pairwise(ends)]
    for share in (100, 1):
        copy = path.with_name(f"{path.stem}-{share}.copy")
        with path.open("rb") as source, copy.open("wb") as target:
            target.write(source.read(path.stat().st_size // share).rpartition(b"\n")[0] + b"\n")
        follower = LogFollower(copy)
        follower.update()
        times = []
        for piece in pieces:
            with copy.open("a", encoding="utf-8") as target:
                target.write(piece)
            start = time.perf_counter()
            follower.update()
            _ = follower.log.latest
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        follower.log.metrics()
        metrics_ms = (time.perf_counter() - start) * 1e3
        size_mb = copy.stat().st_size / 1e6
        copy.unlink()
        results.append(
            f"{min(times) * 1e3:.1f} ms for {len(pieces[0]) / 1e3:.0f} kB added to "
            f"{size_mb:.0f} MB (metrics {metrics_ms:.0f} ms)"
        )
    return "; ".join(results)


TASKS = {"baseline": baseline, "tables": tables, "iterations only": iterations_only}


def measure(task: str, path: Path, form: str, rounds: int) -> tuple[float, float, str]:
    """Return the best CPU seconds, peak MB and summary of a task, run in its own processes."""
    command = [sys.executable, __file__, "--one", task, "--log", str(path), "--form", form]
    runs = [run(command) for _ in range(rounds)]
    results = [json.loads(measurement.output) for measurement in runs]
    best = min(results, key=lambda result: result["seconds"])
    return best["seconds"], max(measurement.peak_mb for measurement in runs), best["summary"]


def run_task(task: str, path: Path, form: str) -> None:
    """Run a task in this process, and print the measurement as JSON."""
    with path.open("rb") as file:  # fills the page cache
        while file.read(1 << 24):
            pass
    import pandas as pd  # noqa: F401, PLC0415  (imports are not measured)

    import oiyolo.trainlog.follow  # noqa: F401, PLC0415  (the same)

    start = time.process_time()
    summary = {**TASKS, "follow": follow}[task](path, form)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "summary": summary}))


def main() -> None:
    """Run the benchmark and print its table or, with ``--one``, run a single task."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="folder in which the logs are kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_task(options.one, options.log, options.form)
        return
    lines = [("log", "CPU s", "ratio", "peak MB")]
    follow_results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for form in [options.form] if options.form else FORMS:
            path = folder / f"{form}.log"
            if not path.exists():
                with path.open("w", encoding="utf-8") as file:
                    file.writelines(iterations(form, 1, ITERATIONS))
            baseline_s = 0.0
            for task in TASKS:
                seconds, peak_mb, summary = measure(task, path, form, options.rounds)
                baseline_s = baseline_s or seconds
                name = f"{form}, {path.stat().st_size / 1e6:.0f} MB, {task}: {summary}"
                lines.append(
                    (name, f"{seconds:.2f}", f"{seconds / baseline_s:.2f}", f"{peak_mb:.0f}")
                )
            follow_results.append(f"{form}, follower: {measure('follow', path, form, 1)[2]}")
    print(layout(lines), *follow_results, sep="\n")


if __name__ == "__main__":
    main()
