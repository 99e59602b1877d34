"""Measure how fast darknet and the torch engine train on this machine's CPU.

``python benchmarks/engine_speed.py [--minutes N] [--alexeyab PROGRAM]`` trains yolov3-tiny at
416x416 and the demo's network with the darknet on PATH (Debian's computes on one thread), with
AlexeyAB's if it is given (build it with AVX=1 OPENMP=1; it gets all cores), and with torch: the
same cfg, drawn images and machine, loading, augmentation, log and weights included. The programs
take turns in several rounds, and each has the same time. A program's figure is that of its fastest
round, from its first iteration line to its last one: other load only slows it down. Compare the
ratios, and repeat it where the load averages, which are printed, exceed the number of cores before
the first round.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from _measure import layout

import oiyolo
from oiyolo.darknet.lists import pad
from oiyolo.darknet.program import data_file, probe, train_command
from oiyolo.demo_data.server import serve_mirror
from oiyolo.networks.builders import build
from oiyolo.networks.layers import heads_of
from oiyolo.training.engine import torch_program, torch_version

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet

SCENES: Final = 60
ROUNDS: Final = 3
ITERATION: Final = re.compile(r"^\s*(\d+): \S+, \S+ avg")


class Workload(NamedTuple):
    """A network to train.

    Attributes:
        network: Its name.
        side_px: Width and height of the images.
        batch: Images per iteration.
        share: Share of the whole time.
    """

    network: str
    side_px: int
    batch: int
    share: float


WORKLOADS: Final = (Workload("yolov3-tiny", 416, 8, 0.75), Workload("demo", 96, 4, 0.25))


class Round(NamedTuple):
    """What a program did in one round.

    Attributes:
        seconds: Wall-clock time per iteration; NaN if it was too slow for two of them.
        iterations: Number of iterations measured.
    """

    seconds: float
    iterations: int


def create_images(work: Workload, folder: Path) -> Path:
    """Draw images, unless they exist, and return the list of their paths."""
    project = folder / work.network
    train_list = project / "data" / "dataset" / "train.txt"
    if not train_list.is_file():
        with serve_mirror(folder / "mirror", scenes=SCENES) as mirror:
            oiyolo.init(
                project,
                classes=["Boat"],
                base_url=mirror.openimages_url,
                mirror_url=mirror.images_url,
                tolerance=0.3,
                size=(work.side_px, work.side_px),
                cache=str(folder / "cache"),
                look=False,
            )
            oiyolo.fetch(project)
        oiyolo.split(project)
    return train_list


def write_run(work: Workload, train_list: Path, folder: Path) -> None:
    """Write the folder in which every program trains a network."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "weights").mkdir(parents=True)
    cfg = build(work.network, class_count=1, size_wh=(work.side_px,) * 2, multi_scale=False)
    settings = {"batch": work.batch, "subdivisions": 1, "max_batches": 100_000, "burn_in": 1000}
    for key, value in settings.items():
        cfg.net.set(key, value)
    for head in heads_of(cfg):
        head.set("random", 0)
    (folder / "n.cfg").write_bytes(cfg.encode())
    paths = train_list.read_text(encoding="utf-8").split()
    (folder / "train.txt").write_text("".join(f"{path}\n" for path in pad(paths)))
    (folder / "n.names").write_text("Boat\n")
    lists = {"train": "train.txt", "valid": "train.txt", "names": "n.names"}
    text = data_file(class_count=1, backup="weights", results="weights", **lists)
    (folder / "n.data").write_text(text)


def train(program: Darknet, folder: Path, limit_s: float) -> Round:
    """Train for some time, but at least two iterations, and return how fast."""
    argv = train_command(program, data="n.data", cfg="n.cfg", weights=None, resume=False)
    if program.engine == "torch":
        argv = (*argv, "--compile", "never")
    argv = ("stdbuf", "-oL", *argv)
    times_s = []
    with (
        (folder / "stderr.txt").open("w") as errors,
        subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True) as run,
    ):
        for line in run.stdout or ():
            if ITERATION.match(line):
                times_s.append(time.perf_counter())
                # The limit counts from the first iteration, so that torch's start costs no more.
                if times_s[-1] - times_s[0] > limit_s and len(times_s) > 1:
                    break
        run.send_signal(signal.SIGKILL)
    if len(times_s) < 2:  # noqa: PLR2004  (an iteration lies between two lines)
        raise RuntimeError(f"{argv} ended early: {(folder / 'stderr.txt').read_text()[-500:]}")
    iterations = len(times_s) - 1
    return Round((times_s[-1] - times_s[0]) / iterations, iterations)


def measure(
    work: Workload, programs: dict[str, Darknet], folder: Path, minutes: float
) -> dict[str, list[Round]]:
    """Return what each program does in each round."""
    train_list = create_images(work, folder)
    limit_s = 60 * minutes * work.share / (ROUNDS * len(programs))
    rounds: dict[str, list[Round]] = {name: [] for name in programs}
    for number in range(ROUNDS):
        order = list(programs.items())
        for name, program in order if number % 2 == 0 else reversed(order):
            write_run(work, train_list, folder / "run")
            load = os.getloadavg()[0]
            done = train(program, folder / "run", limit_s)
            rounds[name].append(done)
            words = f"{work.network}, {name}, load {load:.1f} before"
            print(f"{words}: {done.seconds:.3f} s ({done.iterations})", file=sys.stderr, flush=True)
    return rounds


def report(work: Workload, rounds: dict[str, list[Round]]) -> str:
    """Return the table of a network: seconds per iteration, and torch's speed relative to each."""
    best = {name: min(done.seconds for done in every) for name, every in rounds.items()}
    lines = [("", "s/iteration", "all rounds", "iterations", "times as fast is torch")]
    for name, every in rounds.items():
        seconds = ", ".join(f"{done.seconds:.3f}" for done in every)
        counts = ", ".join(str(done.iterations) for done in every)
        ratio = f"{best[name] / best['torch']:.1f}"
        lines.append((name, f"{best[name]:.3f}", seconds, counts, ratio))
    title = f"{work.network} at {work.side_px}x{work.side_px}, {work.batch} images per iteration"
    return f"{title}\n{layout(lines)}"


def main() -> None:
    """Measure, and print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="time for all, about")
    parser.add_argument("--darknet", default=shutil.which("darknet"), help="pjreddie's darknet")
    parser.add_argument("--alexeyab", help="AlexeyAB's darknet; left out by default")
    names = [work.network for work in WORKLOADS]
    parser.add_argument("--network", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    if not torch_version():
        sys.exit("PyTorch is not installed")
    given = {"darknet on PATH": options.darknet, "AlexeyAB's darknet": options.alexeyab}
    programs = {name: probe(Path(path), "given") for name, path in given.items() if path}
    if not programs:
        sys.exit("no darknet to compare with: none on PATH, and none given")
    programs["torch"] = torch_program(torch_version(), has_gpu=False)
    works = [work for work in WORKLOADS if work.network in options.network]
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{os.cpu_count()} cores, load averages before: {loads}")
    with tempfile.TemporaryDirectory() as folder:
        for work in works:
            rounds = measure(work, programs, Path(folder), options.minutes)
            print(f"\n{report(work, rounds)}", flush=True)


if __name__ == "__main__":
    main()
