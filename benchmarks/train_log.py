"""How quickly a long training log becomes tables, against one ``re`` pass per line.

``python benchmarks/train_log.py`` makes logs of 1 M region lines and 20,000 iteration lines (about
120 MB in pjreddie's form), one per dialect, and measures, each in a process of its own: the
baseline (two expressions searched in every line, numbers kept in arrays), everything into tables
(``read_log``, all tables, the metrics), the iteration lines alone, and what following the log costs
when a little is appended to a long log and to a short one. Targets: at most half the baseline and
under 300 MB for everything; iteration lines alone within a third of the baseline (1 s where it
takes 3.5 s); an update of a follower as quick on a long log as on a short one.

Seconds are the processor's, of all threads together, without imports, so that other work on the
machine counts little. The peak includes what Python, numpy and pandas take (about 70 MB).
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
LINES_IN_STOCK = 30_000
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
    """Write a region line; one in seven layers meets no object."""
    count = rng.choice((0, 1, 2, 3, 5, 11, 17))
    scores = [f"{rng.random():f}" if count else "-nan" for _ in range(5)]
    iou, kind, obj, half, most = scores
    return (
        f"Region {layer} Avg IOU: {iou}, Class: {kind}, Obj: {obj}, No Obj: {rng.random():f}, "
        f".5R: {half}, .75R: {most},  count: {count}\n"
    )


def pjreddie_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Write what follows the region lines of an iteration."""
    return (
        f"{n}: {loss:f}, {loss * 1.01:f} avg, 0.001000 rate, {rng.random() * 5:f} seconds, "
        f"{n * 64} images\nLoaded: 0.000034 seconds\n"
    )


def alexeyab_region(rng: random.Random, layer: int) -> str:
    """Write a region line and the line of boxes that comes with it."""
    count = rng.choice((1, 2, 3, 5, 11, 17, 120))
    kind, box = rng.lognormvariate(0, 2.5), rng.lognormvariate(0, 2.5)
    return (
        f"v3 (iou loss, Normalizer: (iou: 0.07, obj: 1.00, cls: 1.00) Region {layer} Avg "
        f"(IOU: {rng.random():f}), count: {count}, class_loss = {kind:f}, iou_loss = {box:f}, "
        f"total_loss = {kind + box:f} \n"
        f" total_bbox = {rng.randrange(1_000_000)}, rewritten_bbox = {rng.random():f} % \n"
    )


def alexeyab_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Write what follows the region lines of an iteration, with the title of the window."""
    left = 20 - n / 1000
    return (
        f"\n (next mAP calculation at {n // 100 * 100 + 100} iterations) \x1b[H\x1b[J{n}/20000: "
        f"loss={loss:.1f} hours left={left:.1f}\x07\n {n}: {loss:f}, {loss * 1.01:f} avg loss, "
        f"0.001000 rate, {rng.random() * 5:f} seconds, {n * 64} images, {left:f} hours left\n"
        "Loaded: 0.000034 seconds\n"
    )


def hank_region(rng: random.Random, layer: int) -> str:
    """Write a region line and the line of boxes that comes with it, as with ``-verbose``."""
    line = alexeyab_region(rng, layer).replace("v3 (", "v3 ").replace(" = ", ": ")
    return line.replace(" \n total_bbox: ", "\ntotal_bbox=").replace("rewritten_bbox: ", "x=")


def hank_iteration(rng: random.Random, n: int, loss: float) -> str:
    """Write what follows the region lines of an iteration, with title and colours."""
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
    """Write the lines of some iterations; equal arguments give equal lines."""
    region, iteration, layers = FORMS[form]
    rng = random.Random(first)  # noqa: S311  (lines of a made-up log)
    stock = [region(rng, layers[i % len(layers)]) for i in range(LINES_IN_STOCK)]
    for n in range(first, last + 1):
        yield "".join(rng.choices(stock, k=REGIONS_PER_ITERATION))
        yield iteration(rng, n, 2000 * 0.999**n + rng.random())


def baseline(path: Path, form: str) -> str:
    """Search two expressions in every line."""
    region, iteration = (re.compile(p.replace("@", NUMBER)) for p in BASELINE[form])
    columns = [array("d") for _ in range(max(region.groups, iteration.groups))]
    found = [0, 0]
    with path.open(encoding="utf-8") as file:
        for line in file:
            match = region.search(line)
            found[match is None] += 1
            match = match or iteration.search(line)
            if match:
                for column, text in zip(columns, match.groups(), strict=False):
                    column.append(float(text))
    return f"{found[0]:,} region lines"


def tables(path: Path, form: str) -> str:
    """Make all tables and the metrics."""
    from oiyolo.trainlog.parse import read_log  # noqa: PLC0415  (not for the baseline)

    log = read_log(path)
    sizes = [len(t) for t in (log.iterations, log.regions, log.maps, log.events, log.metrics())]
    del form
    return f"{sizes[1]:,} region lines, {sizes[0]:,} iterations"


def iterations_alone(path: Path, form: str) -> str:
    """Make the table of iterations."""
    from oiyolo.trainlog.parse import read_log  # noqa: PLC0415  (not for the baseline)

    del form
    return f"{len(read_log(path, regions=False).iterations):,} iterations"


def follow(path: Path, form: str) -> str:
    """Append to a short and to a long log that are followed; give the update's times."""
    from oiyolo.trainlog.follow import LogFollower  # noqa: PLC0415  (the others need none)

    told = []
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
        told.append(
            f"{min(times) * 1e3:.1f} ms for {len(pieces[0]) / 1e3:.0f} kB more of {size_mb:.0f} MB "
            f"(metrics {metrics_ms:.0f} ms)"
        )
    return "; ".join(told)


TASKS = {"baseline": baseline, "tables": tables, "iterations alone": iterations_alone}


def measured(task: str, path: Path, form: str, rounds: int) -> tuple[float, float, str]:
    """Run a task in processes of its own; give the best seconds, the peak in MB, what it said."""
    command = [sys.executable, __file__, "--one", task, "--log", str(path), "--form", form]
    runs = [run(command) for _ in range(rounds)]
    results = [json.loads(done.output) for done in runs]
    best = min(results, key=lambda result: result["seconds"])
    return best["seconds"], max(done.peak_mb for done in runs), best["said"]


def one(task: str, path: Path, form: str) -> None:
    """Run one task here, and print what it took."""
    with path.open("rb") as file:  # so that it is cached for all alike
        while file.read(1 << 24):
            pass
    import pandas as pd  # noqa: F401, PLC0415  (what imports cost is not measured)

    import oiyolo.trainlog.follow  # noqa: F401, PLC0415  (the same)

    start = time.process_time()
    said = {**TASKS, "follow": follow}[task](path, form)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "said": said}))


def main() -> None:
    """Measure everything, or one task in this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the logs are kept for another run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.log, options.form)
        return
    lines = [("log", "CPU s", "ratio", "peak MB")]
    told = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for form in [options.form] if options.form else FORMS:
            path = folder / f"{form}.log"
            if not path.exists():
                with path.open("w", encoding="utf-8") as file:
                    file.writelines(iterations(form, 1, ITERATIONS))
            of = 0.0
            for task in TASKS:
                seconds, peak_mb, said = measured(task, path, form, options.rounds)
                of = of or seconds
                name = f"{form}, {path.stat().st_size / 1e6:.0f} MB, {task}: {said}"
                lines.append((name, f"{seconds:.2f}", f"{seconds / of:.2f}", f"{peak_mb:.0f}"))
            told.append(f"{form}, followed: {measured('follow', path, form, 1)[2]}")
    print(layout(lines), *told, sep="\n")


if __name__ == "__main__":
    main()
