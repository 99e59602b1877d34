"""Measure what scoring new weights costs a training with darknet on the CPU.

``python benchmarks/scoring.py [--pairs N] [--iterations N] [--folder FOLDER]`` trains the demo's
network on drawn images with darknet on PATH, in pairs of runs that take turns: without scoring
(``map = "darknet"`` with pjreddie's darknet, which measures no mAP) and with it (``map = "own"``).
A third of the images are in the valid split, so that scores take long. For each run it prints
darknet's own wall-clock and CPU time per iteration, and for each pair the ratio of darknet's rates.

Compare the ratios: other programs on the machine disturb both runs of a pair. CPU time per
iteration shows what scoring costs through shared caches and memory, also on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _measure import layout

import oiyolo
from oiyolo.demo_data.server import serve_mirror
from oiyolo.training.history import scores_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

SCENES: Final = 300
WRAPPER: Final = """\
#!{python} -IS
import json, resource, subprocess, sys, time
start_s = time.perf_counter()
code = subprocess.call([{darknet!r}, *sys.argv[1:]])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
if "obj.data" in sys.argv:
    seconds = time.perf_counter() - start_s, usage.ru_utime + usage.ru_stime
    with open({times!r}, "a") as file:
        file.write(json.dumps(seconds) + "\\n")
sys.exit(code if code >= 0 else 128 - code)
"""
"""A program that runs darknet and notes the time that it takes, without what comes after it."""


class Training(NamedTuple):
    """One training run.

    Attributes:
        wall_s: Wall-clock time of darknet per iteration.
        cpu_s: CPU time of darknet per iteration.
        scores: Number of weights that were scored.
        after_s: Time from darknet's end to the end of the command.
    """

    wall_s: float
    cpu_s: float
    scores: int
    after_s: float


def create_project(folder: Path) -> Path:
    """Create a split project with drawn images, unless it exists; return its folder."""
    project = folder / "project"
    if (project / "data" / "dataset" / "split.csv").is_file():
        return project
    with serve_mirror(folder / "mirror", seed=0, scenes=SCENES) as mirror:
        oiyolo.init(
            project,
            classes=["Boat"],
            base_url=mirror.openimages_url,
            mirror_url=mirror.images_url,
            tolerance=0.2,
            size=(96, 96),
            network="demo",
            cache=str(folder / "cache"),
            train=0.6,
            valid=0.35,
            test=0.05,
            look=False,
        )
        oiyolo.fetch(project)
    oiyolo.split(project)
    return project


def train(project: Path, wrapper: Path, times: Path, source: str, iterations: int) -> Training:
    """Train a new run and return what it took."""
    times.unlink(missing_ok=True)
    start_s = time.perf_counter()
    done: Any = oiyolo.train(
        project, again=True, map=source, max_batches=iterations, executable=str(wrapper)
    )
    all_s = time.perf_counter() - start_s
    wall_s, cpu_s = json.loads(times.read_text(encoding="utf-8").splitlines()[-1])
    scores = len(scores_in(done.run.scores_path))
    return Training(wall_s / iterations, cpu_s / iterations, scores, all_s - wall_s)


def row(name: str, training: Training) -> tuple[str, ...]:
    """Return the table's row of a run."""
    wall, cpu = (f"{1000 * seconds:.1f}" for seconds in (training.wall_s, training.cpu_s))
    return (name, wall, cpu, str(training.scores), f"{training.after_s:.1f}")


def report(pairs: Sequence[tuple[Training, Training]]) -> str:
    """Return the tables of runs, each without and with scoring, and of their ratios."""
    lines: list[tuple[str, ...]] = [
        ("", "wall ms/iteration", "CPU ms/iteration", "scores", "s before and after")
    ]
    for number, (without, with_scores) in enumerate(pairs, 1):
        lines += [row(f"pair {number}: without", without), row("        with", with_scores)]
    rates = [without.wall_s / scored.wall_s for without, scored in pairs]
    costs = [scored.cpu_s / without.cpu_s for without, scored in pairs]
    ratios: list[tuple[str, ...]] = [("with / without", "median", "lowest", "highest")]
    for name, values in (("darknet's rate", rates), ("darknet's CPU time", costs)):
        figures = (statistics.median(values), min(values), max(values))
        ratios.append((name, *(f"{figure:.3f}" for figure in figures)))
    return f"{layout(lines)}\n\n{layout(ratios)}"


def measure(folder: Path, pair_count: int, iterations: int) -> list[tuple[Training, Training]]:
    """Return what pairs of runs took, each without and with scoring, in changing order."""
    project, times = create_project(folder), folder / "times.jsonl"
    wrapper = folder / "darknet"
    text = WRAPPER.format(python=sys.executable, darknet=shutil.which("darknet"), times=str(times))
    wrapper.write_text(text, encoding="utf-8")
    wrapper.chmod(0o755)
    pairs = []
    for number in range(pair_count):
        order = ("darknet", "own") if number % 2 == 0 else ("own", "darknet")
        done = {source: train(project, wrapper, times, source, iterations) for source in order}
        pairs.append((done["darknet"], done["own"]))
        print(f"pair {number + 1}: {done}", file=sys.stderr)
    return pairs


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--folder", type=Path, help="folder that is kept for the next run")
    options = parser.parse_args()
    if shutil.which("darknet") is None:
        sys.exit("no darknet on PATH")
    logging.disable(logging.INFO)
    place: AbstractContextManager[Any] = tempfile.TemporaryDirectory()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        place = nullcontext(options.folder)
    with place as folder:
        print(report(measure(Path(folder).absolute(), options.pairs, options.iterations)))


if __name__ == "__main__":
    main()
