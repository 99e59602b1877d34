"""Measure how fast darknet trains on this machine's GPU, and how busy the GPU is.

``python benchmarks/gpu.py --project boats`` builds and verifies darknet for CUDA and for the CPU.
With each build, it trains the demo's network and yolov3-tiny on the project's images for some
iterations, from random weights. It prints images per second, the speed-up over the CPU (the
baseline), and the GPU usage that nvidia-smi reports every second. The project must be split; it is
not changed. The same numbers are written to ``gpu.json`` in ``--folder``. Without a GPU, the script
prints a message and exits with 1.

``python benchmarks/gpu.py --self-check`` checks the script itself, with the darknet on PATH and a
stand-in for nvidia-smi, so that it works on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from _measure import layout

import oiyolo
from oiyolo.darknet.gpus import gpus
from oiyolo.demo_data.server import serve_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.darknet.gpus import Gpu

QUERY_FIELDS: Final = ("utilization.gpu", "memory.used", "power.draw")
SAMPLE_INTERVAL_S: Final = 1.0
_WARM_UP_SHARE: Final = 0.25
"""Fraction of the iterations, during which darknet allocates memory and selects algorithms."""
_STAND_IN: Final = """#!/bin/sh
case "$1" in
*compute_cap*) echo "0, Stand-in GPU, 16000, 15000, 8.0, 580.1" ;;
*) echo "90, 1000, 100.5" ;;
esac
"""
"""A program that answers like nvidia-smi on a machine with one busy GPU."""
_NO_GPU: Final = "nvidia-smi reports no GPU to measure. Run `oiyolo doctor` to see what is missing."


@dataclass(frozen=True)
class Sample:
    """The usage of a GPU as reported by nvidia-smi.

    Attributes:
        busy: Percentage of the time in which the GPU was computing.
        memory_mib: Memory in use, in MiB.
        power_w: Power draw in watts; NaN if it is not reported.
    """

    busy: float
    memory_mib: float
    power_w: float


@dataclass(frozen=True)
class Training:
    """The speed and GPU usage of a training run.

    Attributes:
        network: Name of the network.
        device: "GPU" or "CPU".
        iterations: Number of iterations.
        batch: Images per iteration.
        images_per_s: Speed as timed by darknet: computation only, the median after the warm-up.
        whole_images_per_s: Speed from the start of the run to its last weights, with all loading.
        busy: Mean percentage of the time in which the GPU was computing; NaN on the CPU.
        memory_mib: Peak GPU memory in MiB; NaN on the CPU.
        power_w: Mean power draw of the GPU in watts; NaN on the CPU or if it is not reported.
    """

    network: str
    device: str
    iterations: int
    batch: float
    images_per_s: float
    whole_images_per_s: float
    busy: float = math.nan
    memory_mib: float = math.nan
    power_w: float = math.nan


def main() -> None:
    """Run the benchmark and print its table, or check the script itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--project", type=Path, help="a project that has been split")
    task.add_argument("--self-check", action="store_true", help="check this script; needs no GPU")
    parser.add_argument("--network", nargs="+", default=["demo", "yolov3-tiny"])
    parser.add_argument("--iterations", type=int, default=300, help="iterations on the GPU")
    parser.add_argument("--cpu-iterations", type=int, default=20)
    parser.add_argument("--gpu-darknet", help="darknet executable for CUDA; default: build one")
    parser.add_argument("--cpu-darknet", help="darknet executable for the CPU; default: build one")
    parser.add_argument("--folder", type=Path, help="output folder; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oiyolo-gpu-") as name:
        folder: Path = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if options.self_check:
            self_check(folder)
            print("gpu.py: self-check passed")
        else:
            measure(options, folder)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Train on the CPU and on the GPU; print the table and write ``gpu.json``."""
    available = gpus()
    if not available:
        raise SystemExit(_NO_GPU)
    project = create_project(options.project, folder / "project")
    programs = {
        "CPU": options.cpu_darknet or build_darknet(project, folder / "cpu", "no"),
        "GPU": options.gpu_darknet or build_darknet(project, folder / "gpu", "yes"),
    }
    iterations = {"CPU": options.cpu_iterations, "GPU": options.iterations}
    trainings = [
        train(project, network, device, programs[device], iterations[device])
        for network in options.network
        for device in programs
    ]
    print(f"{describe_gpus(available)}\n\n{layout(rows(trainings))}")
    text = json.dumps([asdict(training) for training in trainings], indent=1)
    (folder / "gpu.json").write_text(text + "\n")


def create_project(project: Path, folder: Path) -> Path:
    """Create and return a project with another project's data and options, but its own runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(project / "oiyolo.toml", folder)
    (folder / "data").symlink_to((project / "data").absolute())
    return folder


def build_darknet(project: Path, cache: Path, build_gpu: str) -> str:
    """Build and verify darknet in a separate cache folder; return the path of the executable."""
    done = oiyolo.build(project, build_gpu=build_gpu, cache=str(cache.absolute()))
    print(done)
    return str(done.as_dict()["executable"])


def train(project: Path, network: str, device: str, program: str, iterations: int) -> Training:
    """Train from random weights while sampling the GPU; return the measurements."""
    with gpu_samples() as samples:
        done: Any = oiyolo.train(
            project,
            again=True,
            network=network,
            weights="none",
            max_batches=iterations,
            executable=program,
        )
    metrics = oiyolo.read_log(done.run.log_path).metrics()
    batch, images_per_s = speed(metrics)
    whole_images_per_s = iterations * batch / done.seconds
    name = Path(network).stem
    if device == "CPU":
        return Training(name, device, iterations, batch, images_per_s, whole_images_per_s)
    return Training(
        name, device, iterations, batch, images_per_s, whole_images_per_s, *summary(samples)
    )


def speed(metrics: pd.DataFrame) -> tuple[float, float]:
    """Return images per iteration, and images per second after the warm-up."""
    batch = float(metrics["images"].iloc[-1] / metrics["iteration"].iloc[-1])
    after_warm_up = metrics.iloc[int(len(metrics) * _WARM_UP_SHARE) :]
    return batch, batch / float(after_warm_up["seconds"].median())


@contextmanager
def gpu_samples() -> Iterator[list[Sample]]:
    """Yield a list to which a thread adds samples of all GPUs every second."""
    samples: list[Sample] = []
    ended = threading.Event()

    def sample_until_ended() -> None:
        while not ended.wait(SAMPLE_INTERVAL_S):
            samples.extend(parse_samples(_query()))

    thread = threading.Thread(target=sample_until_ended, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _query() -> str:
    argv = ["nvidia-smi", f"--query-gpu={','.join(QUERY_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def parse_samples(text: str) -> list[Sample]:
    """Parse the output of nvidia-smi, one GPU per line; invalid lines are skipped."""
    samples = []
    for line in text.splitlines():
        cells = [_number(cell) for cell in line.split(",")]
        if len(cells) == len(QUERY_FIELDS) and not math.isnan(cells[0] + cells[1]):
            samples.append(Sample(*cells))
    return samples


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return math.nan


def summary(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Return the mean busy percentage, peak memory and mean power; NaN without samples.

    Samples of idle GPUs are ignored: before and after the training, and of GPUs that it does not
    use.
    """
    busy = [sample for sample in samples if sample.busy > 0]
    if not busy:
        return math.nan, math.nan, math.nan
    powers = [sample.power_w for sample in busy if not math.isnan(sample.power_w)]
    return (
        statistics.fmean(sample.busy for sample in busy),
        max(sample.memory_mib for sample in busy),
        statistics.fmean(powers) if powers else math.nan,
    )


def rows(trainings: Sequence[Training]) -> list[tuple[str, ...]]:
    """Return the rows of the table: each network on the CPU and on the GPU, with the speed-up."""
    lines: list[tuple[str, ...]] = [
        ("", "iterations", "batch", "images/s", "with loading", "speed-up", "GPU busy",
         "GPU memory", "power")
    ]  # fmt: skip
    cpu = {training.network: training for training in trainings if training.device == "CPU"}
    for training in trainings:
        baseline = cpu.get(training.network)
        ratio = training.images_per_s / baseline.images_per_s if baseline else math.nan
        lines.append(
            (
                f"{training.network}, {training.device}",
                f"{training.iterations}",
                f"{training.batch:.0f}",
                f"{training.images_per_s:.1f}",
                f"{training.whole_images_per_s:.1f}",
                _format(ratio, ".1f", ""),
                _format(training.busy, ".0f", " %"),
                _format(training.memory_mib, ".0f", " MiB"),
                _format(training.power_w, ".0f", " W"),
            )
        )
    return lines


def _format(number: float, format_spec: str, unit: str) -> str:
    return "-" if math.isnan(number) else f"{number:{format_spec}}{unit}"


def describe_gpus(available: Sequence[Gpu]) -> str:
    """Return one line for each GPU."""
    return "\n".join(
        f"GPU {gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, driver "
        f"{gpu.driver_version}"
        for gpu in available
    )


def self_check(folder: Path) -> None:
    """Check the arithmetic on known values, then run the whole benchmark with stand-ins."""
    _check_samples()
    _check_table()
    _check_whole_run(folder)


def _check_samples() -> None:
    two_gpus = parse_samples("5, 100, 50\n0, 3, 40.0\n")
    _check("two GPUs", two_gpus, [Sample(5.0, 100.0, 50.0), Sample(0.0, 3.0, 40.0)])
    _check("nonsense", parse_samples("[N/A], 100, 50\n, ,\nnonsense\n1, 2\n"), [])
    no_power = summary(parse_samples("97, 10240, [N/A]\n"))
    _check("power that is not reported", (*no_power[:2], str(no_power[2])), (97.0, 10240.0, "nan"))
    samples = parse_samples("0, 5, 30\n80, 900, 200\n100, 700, 300\n0, 5, 30\n")
    _check("idle samples are ignored", summary(samples), (90.0, 900.0, 250.0))
    _check("no samples", [str(number) for number in summary([])], ["nan"] * 3)


def _check_table() -> None:
    seconds = [9.0, 9.0, 2.0, 2.0, 2.0, 2.0, 7.0, 2.0]
    metrics = pd.DataFrame(
        {"iteration": range(1, 9), "images": range(64, 9 * 64, 64), "seconds": seconds}
    )
    _check("the median after the warm-up", speed(metrics), (64.0, 32.0))
    header, cpu, gpu = rows(
        [
            Training("demo", "CPU", 20, 64, 10.0, 8.0),
            Training("demo", "GPU", 300, 64, 450.0, 300.0, 93.4, 2048, math.nan),
        ]
    )
    _check("columns", (len(cpu), len(gpu)), (len(header), len(header)))
    _check("CPU", cpu, ("demo, CPU", "20", "64", "10.0", "8.0", "1.0", "-", "-", "-"))
    _check("GPU", gpu[5:], ("45.0", "93 %", "2048 MiB", "-"))


def _check_whole_run(folder: Path) -> None:
    """Run the script on a small project of drawn scenes, without and with a stand-in GPU."""
    darknet = shutil.which("darknet")
    if darknet is None:
        raise SystemExit("the self-check needs a darknet on PATH")
    project, tools = folder / "drawn", folder / "tools"
    with serve_mirror(folder / "mirror", scenes=60) as mirror:
        oiyolo.init(
            project,
            classes=["Boat"],
            base_url=mirror.openimages_url,
            mirror_url=mirror.images_url,
            cache=str(folder / "cache"),
            size=(96, 96),
            tolerance=0.2,
        )
        oiyolo.fetch(project)
    oiyolo.split(project)
    before = _digests(project)
    tools.mkdir()
    words = [sys.executable, __file__, "--project", str(project), "--network", "demo"]
    words += ["--iterations", "12", "--cpu-iterations", "4", "--folder", str(folder / "out")]
    words += ["--gpu-darknet", darknet, "--cpu-darknet", darknet]
    without_gpu = subprocess.run(
        words, env={**os.environ, "PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    _check("without a GPU", (without_gpu.returncode, without_gpu.stdout), (1, ""))
    _check("the message without a GPU", without_gpu.stderr.strip(), _NO_GPU)
    (tools / "nvidia-smi").write_text(_STAND_IN)
    (tools / "nvidia-smi").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    table = subprocess.run(
        words, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    _check("the GPU's name", "Stand-in GPU" in table, expected=True)
    trainings = json.loads((folder / "out" / "gpu.json").read_text())
    runs = [(run["device"], run["iterations"], run["batch"]) for run in trainings]
    _check("runs", runs, [("CPU", 4, 4.0), ("GPU", 12, 4.0)])
    _check("speeds", all(training["images_per_s"] > 0 for training in trainings), expected=True)
    _check("the project is not changed", _digests(project), before)


def _digests(folder: Path) -> dict[str, str]:
    """Return the MD5 of each file; SQLite adds files next to the ledger when it is read."""
    return {
        str(path): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("ledger.sqlite-")
    }


def _check(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected}, found {actual}")


if __name__ == "__main__":
    main()
