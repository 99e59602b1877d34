"""Measure how fast both engines train on this machine's GPU and CPU, and how busy the GPU is.

``python benchmarks/gpu.py --project boats`` trains yolov3, yolov4 and yolov3-tiny at 416x416 on the
project's images, from random weights: with darknet and with the torch engine, on the GPU and on the
CPU. Darknet is built for both first, unless ``--gpu-darknet`` and ``--cpu-darknet`` name programs.
The measurements share ``--minutes`` equally; a program is stopped by the clock, and the iterations
that it has completed count, without the first quarter. On the GPU, each program has the fewest
subdivisions that fit into memory. The table has images per second, loading and log included, the
share of the bare step's rate (``_bare_step.py``), and the GPU usage that nvidia-smi reports every
second. ``--compiled`` adds the torch engine with a compiled network, for three more minutes each,
because compiling takes more than one. The same numbers are in ``gpu.json`` in ``--folder``. The
project must be split; it is not changed. Without a GPU, the script prints a message and exits with
1.

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
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from _measure import layout

import oiyolo
from oiyolo.core import process
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import data_file, probe, train_command
from oiyolo.demo_data.server import serve_mirror
from oiyolo.networks.builders import stock
from oiyolo.networks.layers import heads_of
from oiyolo.networks.schedule import divisors
from oiyolo.project.project import open_project
from oiyolo.stages.split import image_paths
from oiyolo.training.engine import torch_program, torch_version
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import ErrorReported, IterationStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.darknet.gpus import Gpu
    from oiyolo.networks.cfg import Cfg

QUERY_FIELDS: Final = ("utilization.gpu", "memory.used", "power.draw")
SAMPLE_INTERVAL_S: Final = 1.0
_WARM_UP_SHARE: Final = 0.25
_COMPILED: Final = "compiled torch"
_COMPILED_S: Final = 180.0
"""Fraction of the iterations, during which memory is allocated and algorithms are selected."""
_CPU_BATCH: Final = 4
"""Images of an iteration on a CPU, where a larger batch would not end in time."""
_BARE_STEP: Final = Path(__file__).with_name("_bare_step.py")
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
class Speed:
    """What was measured of a program; NaN where it was not.

    Attributes:
        network: Name of the network.
        program: "darknet", "torch", "compiled torch" or "bare step".
        device: "GPU" or "CPU".
        batch: Images per iteration.
        subdivisions: Parts of a batch.
        iterations: Completed iterations; 0 for the bare step.
        images_per_s: Images per second after the warm-up; of darknet and torch with everything.
        busy: Mean percentage of the time in which the GPU was computing.
        memory_mib: Peak GPU memory in MiB.
        power_w: Mean power draw of the GPU in watts.
        waits: How often the host waits for the GPU in an iteration of the torch engine.
        note: Why there is no speed.
    """

    network: str
    program: str
    device: str
    batch: int
    subdivisions: int = 1
    iterations: int = 0
    images_per_s: float = math.nan
    busy: float = math.nan
    memory_mib: float = math.nan
    power_w: float = math.nan
    waits: float = math.nan
    note: str = ""


class Case(NamedTuple):
    """What to measure; the attributes are those of ``Speed``."""

    network: str
    program: str
    device: str


class Bench(NamedTuple):
    """How to measure.

    Attributes:
        folder: Where the programs run; it has the list of images.
        commands: Executable of darknet by device; none where there is no darknet.
        size: Width and height of the input in pixels.
        batch: Images of an iteration on the GPU.
        iterations: After how many a measurement ends early.
        torch_devices: PyTorch's name of each device.
    """

    folder: Path
    commands: dict[str, str]
    size: int
    batch: int
    iterations: int
    torch_devices: dict[str, str]


class Clock:
    """Divides the time that is left among the measurements that are left.

    Args:
        seconds: The time.
        count: Number of measurements.
        now_s: Returns the time, in seconds.
    """

    def __init__(
        self, seconds: float, count: int, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._end_s, self._count, self._now_s = now_s() + seconds, count, now_s

    def next_share(self) -> float:
        """Return the seconds for the next measurement."""
        share = max(0.0, self._end_s - self._now_s()) / max(1, self._count)
        self._count -= 1
        return share


def main() -> None:
    """Run the benchmark and print its table, or check the script itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--project", type=Path, help="a project that has been split")
    task.add_argument("--self-check", action="store_true", help="check this script; needs no GPU")
    parser.add_argument("--networks", nargs="+", default=["yolov3", "yolov4", "yolov3-tiny"])
    parser.add_argument("--size", type=int, default=416, help="width and height of the input")
    parser.add_argument("--batch", type=int, default=64, help="images of an iteration on the GPU")
    parser.add_argument("--minutes", type=float, default=5.0, help="time of all measurements")
    parser.add_argument("--compiled", action="store_true", help="add torch with compiled networks")
    parser.add_argument("--iterations", type=int, default=2000, help="most of a measurement")
    parser.add_argument("--gpu-darknet", help="darknet executable for CUDA; default: build one")
    parser.add_argument("--cpu-darknet", help="darknet executable for the CPU; default: build one")
    parser.add_argument("--gpu-device", default="cuda", help=argparse.SUPPRESS)
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
    """Measure all programs; print the table and write ``gpu.json``."""
    available = gpus()
    if not available:
        raise SystemExit(_NO_GPU)
    bench = prepare(options, folder)
    cases = cases_of(options.networks, set(bench.commands), has_torch=bool(torch_version()))
    clock, speeds = Clock(60 * options.minutes, len(cases)), list[Speed]()
    extra = [Case(name, _COMPILED, "GPU") for name in options.networks if options.compiled]
    for case in [*cases, *extra]:
        seconds = _COMPILED_S if case in extra else clock.next_share()
        done = measure_case(bench, case, seconds, speeds)
        print(f"{case.network}, {case.program}, {case.device}: {done.images_per_s:.1f} images/s "
              f"{done.note}", file=sys.stderr)  # fmt: skip
        speeds.append(done)
    print(f"{describe_gpus(available)}\n\n{layout(rows(speeds))}")
    text = json.dumps([asdict(speed) for speed in speeds], indent=1)
    (folder / "gpu.json").write_text(text + "\n")


def prepare(options: argparse.Namespace, folder: Path) -> Bench:
    """Build darknet where no program is given, and write the list of the project's images."""
    project = create_project(options.project, folder / "project")
    given = {"GPU": options.gpu_darknet, "CPU": options.cpu_darknet}
    commands = {
        device: program
        for device, path in given.items()
        if (program := path or build_darknet(project, folder, device))
    }
    work = folder / "work"
    (work / "weights").mkdir(parents=True, exist_ok=True)
    paths = image_paths(open_project(options.project), "train")
    (work / "train.txt").write_text("".join(f"{path}\n" for path in paths))
    (work / "obj.names").write_text("object\n" * 80)
    (work / "obj.data").write_text(
        data_file(
            class_count=80,
            train="train.txt",
            valid="train.txt",
            names="obj.names",
            backup="weights",
            results="results",
        )
    )
    devices = {"GPU": options.gpu_device, "CPU": "cpu"}
    return Bench(work, commands, options.size, options.batch, options.iterations, devices)


def cases_of(networks: Sequence[str], darknet_devices: set[str], *, has_torch: bool) -> list[Case]:
    """Return what to measure: of each network the GPU's programs first."""
    programs = [("darknet", device) for device in ("GPU", "CPU") if device in darknet_devices]
    if has_torch:
        programs += [("torch", "GPU"), ("bare step", "GPU"), ("torch", "CPU")]
    programs.sort(key=lambda pair: pair[1], reverse=True)  # stable
    return [Case(network, *pair) for network in networks for pair in programs]


def measure_case(bench: Bench, case: Case, seconds: float, before: Sequence[Speed]) -> Speed:
    """Measure a program for some seconds, with the fewest subdivisions that fit into memory.

    Args:
        bench: How to measure.
        case: What to measure.
        seconds: How long, all tries included.
        before: What has been measured; the bare step has the subdivisions of the torch engine.
    """
    on_gpu = case.device == "GPU"
    batch, end_s = bench.batch if on_gpu else _CPU_BATCH, time.monotonic() + seconds
    tries = divisors(batch) if on_gpu else [1]
    engine = [
        s for s in before if (s.network, s.program, s.device) == (case.network, "torch", "GPU")
    ]
    if case.program in {"bare step", _COMPILED} and engine:
        tries = [engine[0].subdivisions]
    speed = Speed(case.network, case.program, case.device, batch)
    for subdivisions in tries:
        cfg = benchmark_cfg(case.network, bench.size, batch, subdivisions)
        (bench.folder / "bench.cfg").write_bytes(cfg.encode())
        with gpu_samples() as samples:
            left_s = end_s - time.monotonic()
            fits, speed = run_case(bench, replace(speed, subdivisions=subdivisions), left_s)
        if on_gpu:
            busy, memory_mib, power_w = summary(samples)
            speed = replace(speed, busy=busy, memory_mib=memory_mib, power_w=power_w)
        if fits or time.monotonic() > end_s:
            break
    return speed


def benchmark_cfg(network: str, size: int, batch: int, subdivisions: int) -> Cfg:
    """Return a network that trains at one size without an end.

    Darknet uses tensor cores after three times ``burn_in`` iterations only (src/detector.c of
    AlexeyAB's fork), and forks of it only with a ``loss_scale``
    (forward_convolutional_layer_gpu in src/convolutional_kernels.cu). So there is no burn-in, the
    scale is a common one, and the rate is too low to do harm.
    """
    cfg = stock(network).copy()
    values = {
        "width": size,
        "height": size,
        "batch": batch,
        "subdivisions": subdivisions,
        "burn_in": 0,
        "loss_scale": 128,
        "learning_rate": 1e-6,
        "max_batches": 1_000_000,
    }
    for key, value in values.items():
        cfg.net.set(key, value)
    for section in heads_of(cfg):
        section.set("random", 0)
    return cfg


def run_case(bench: Bench, speed: Speed, seconds: float) -> tuple[bool, Speed]:
    """Run a program; return whether it had enough memory, and its speed."""
    if speed.program == "bare step":
        return run_bare_step(bench, speed, seconds)
    if speed.program != "darknet":
        program = torch_program(torch_version(), has_gpu=speed.device == "GPU")
        choice = "always" if speed.program == _COMPILED else "never"
        options = ["--device", bench.torch_devices[speed.device], "--compile", choice]
    else:
        program, options = probe(Path(bench.commands[speed.device]), ""), []
    words = train_command(program, data="obj.data", cfg="bench.cfg", weights=None, resume=False)
    log = TrainingLog(time.monotonic() + seconds, bench.iterations)
    hidden = {} if speed.device == "GPU" else {"CUDA_VISIBLE_DEVICES": ""}
    code = process.stream(
        [*words, *options],
        log.on_line,
        cwd=bench.folder,
        environment=hidden,
        should_end=lambda _: log.should_end(),
    )
    times = log.iterations
    note = ""
    if len(times) < 2:  # noqa: PLR2004  (a duration has two ends)
        note = "out of memory" if log.is_out_of_memory else log.last_line
        if log.should_end() and not log.is_out_of_memory:
            note = f"fewer than 2 iterations in {seconds:.0f} s"
        elif not note:
            note = process.describe_exit(code)
    is_as_wanted = speed.program != _COMPILED or log.compilation.startswith("Compiled")
    return not log.is_out_of_memory, replace(
        speed,
        iterations=len(times),
        images_per_s=images_per_s(times, speed.batch) if is_as_wanted else math.nan,
        note=note or log.compilation,
    )


class TrainingLog:
    """When a program completed its iterations, and whether it has run long enough.

    Args:
        end_s: When it is to end, in seconds of ``time.monotonic``.
        most: Number of iterations after which it is to end.

    Attributes:
        iterations: Number and time of each iteration.
        is_out_of_memory: Whether the program reported that.
        compilation: What it said of compiling the network; empty if nothing.
        last_line: The last line that it printed.
    """

    def __init__(self, end_s: float, most: int) -> None:
        self._end_s, self._most = end_s, most
        self._reader = LiveReader()
        self.iterations: list[tuple[int, float]] = []
        self.is_out_of_memory = False
        self.compilation = ""
        self.last_line = ""

    def on_line(self, _: str, line: bytes) -> None:
        """Note what a line says."""
        self.last_line = line.decode(errors="replace").strip() or self.last_line
        if self.last_line.startswith(("Compiled in", "Compilation failed")):
            self.compilation = self.last_line
        for event in self._reader(line):
            if isinstance(event, IterationStats):
                self.iterations.append((event.iteration, time.monotonic()))
            elif isinstance(event, ErrorReported):
                self.is_out_of_memory |= event.out_of_memory

    def should_end(self) -> bool:
        """Return whether the program has run long enough."""
        return time.monotonic() > self._end_s or len(self.iterations) >= self._most


def images_per_s(times: Sequence[tuple[int, float]], batch: int) -> float:
    """Return the speed after the warm-up, given the number and time of each iteration."""
    counted = times[int(len(times) * _WARM_UP_SHARE) :]
    if len(counted) < 2 or counted[-1][1] <= counted[0][1]:  # noqa: PLR2004  (as above)
        return math.nan
    (first, start_s), (last, end_s) = counted[0], counted[-1]
    return (last - first) * batch / (end_s - start_s)


def run_bare_step(bench: Bench, speed: Speed, seconds: float) -> tuple[bool, Speed]:
    """Measure the bare step; return whether it had enough memory, and its speed."""
    words = [sys.executable, str(_BARE_STEP), "bench.cfg", bench.torch_devices[speed.device]]
    words += [str(max(1.0, seconds / 2)), str(bench.iterations)]  # the other half is its start
    done = process.run(words, cwd=bench.folder, timeout_s=max(1.0, seconds))
    if done.exit_code:
        last_line = done.output.strip().rpartition("\n")[2]
        fits = "out of memory" not in done.output
        return fits, replace(speed, note=last_line or done.exit_description)
    figures = json.loads(done.output.strip().rpartition("\n")[2])
    return True, replace(
        speed,
        images_per_s=figures["images_per_s"],
        waits=figures["waits"],
        note=figures["form"],
    )


def create_project(project: Path, folder: Path) -> Path:
    """Create and return a project with another project's data and options, but its own runs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(project / "oiyolo.toml", folder)
    (folder / "data").symlink_to((project / "data").absolute())
    return folder


def build_darknet(project: Path, folder: Path, device: str) -> str:
    """Build and verify darknet in a separate cache folder; return its path, or "" if it fails."""
    cache = str((folder / device.lower()).absolute())
    build_gpu = "yes" if device == "GPU" else "no"
    try:
        done = oiyolo.build(open_project(project, {"build_gpu": build_gpu, "cache": cache}))
    except oiyolo.OiyoloError as error:
        print(f"no darknet for the {device}: {error}", file=sys.stderr)
        return ""
    print(done)
    return str(done.as_dict()["executable"])


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


def rows(speeds: Sequence[Speed]) -> list[tuple[str, ...]]:
    """Return the rows of the table: each network's programs, with ratios to others of them."""
    lines: list[tuple[str, ...]] = [
        ("", "at once", "iterations", "images/s", "over darknet", "of the bare step", "GPU busy",
         "GPU memory", "power", "waits", "")
    ]  # fmt: skip
    speed_of = {(s.network, s.program, s.device): s.images_per_s for s in speeds}
    for speed in speeds:
        darknet = speed_of.get((speed.network, "darknet", speed.device), math.nan)
        bare = speed_of.get((speed.network, "bare step", speed.device), math.nan)
        lines.append(
            (
                f"{speed.network}, {speed.program}, {speed.device}",
                f"{speed.batch // speed.subdivisions} of {speed.batch}",
                f"{speed.iterations}" if speed.program != "bare step" else "-",
                _format(speed.images_per_s, ".1f", ""),
                _format(speed.images_per_s / darknet, ".1f", ""),
                _format(100 * speed.images_per_s / bare, ".0f", " %"),
                _format(speed.busy, ".0f", " %"),
                _format(speed.memory_mib, ".0f", " MiB"),
                _format(speed.power_w, ".0f", " W"),
                _format(speed.waits, ".0f", ""),
                speed.note,
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
    times = [(1, 5.0), (2, 20.0), (3, 22.0), (4, 24.0), (5, 26.0), (6, 28.0), (7, 30.0), (8, 32.0)]
    _check("the speed after the warm-up", images_per_s(times, 64), 32.0)
    _check("a single iteration", str(images_per_s(times[:1], 64)), "nan")
    header, darknet, torch, bare = rows(
        [
            Speed("demo", "darknet", "GPU", 64, 2, 20, 10.0, note="a note"),
            Speed("demo", "torch", "GPU", 64, 1, 300, 450.0, 93.4, 2048, math.nan),
            Speed("demo", "bare step", "GPU", 64, images_per_s=500.0, waits=0),
        ]
    )
    _check("columns", [len(row) for row in (darknet, torch, bare)], [len(header)] * 3)
    _check("darknet", darknet[1:6], ("32 of 64", "20", "10.0", "1.0", "2 %"))
    _check("a note", darknet[-1], "a note")
    _check("torch", torch[3:9], ("450.0", "45.0", "90 %", "93 %", "2048 MiB", "-"))
    _check("bare step", bare[2:6], ("-", "500.0", "50.0", "100 %"))


def _check_whole_run(folder: Path) -> None:
    """Run the script on a small project of drawn scenes, without and with a stand-in GPU."""
    darknet = shutil.which("darknet")
    if darknet is None:
        raise SystemExit("the self-check needs a darknet on PATH")
    project, tools = _drawn_project(folder), folder / "tools"
    before = _digests(project)
    tools.mkdir()
    words = [sys.executable, __file__, "--project", str(project), "--networks", "demo"]
    words += [
        "--size",
        "96",
        "--batch",
        "8",
        "--iterations",
        "6",
        "--minutes",
        "20",
        "--folder",
        str(folder / "out"),
        *(["--compiled"] if torch_version() else []),
    ]
    words += ["--gpu-darknet", darknet, "--cpu-darknet", darknet, "--gpu-device", "cpu"]
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
    speeds = json.loads((folder / "out" / "gpu.json").read_text())
    found = [(speed["program"], speed["device"], speed["batch"]) for speed in speeds]
    expected = [("darknet", "GPU", 8), ("darknet", "CPU", 4)]
    if torch_version():
        expected[1:1] = [("torch", "GPU", 8), ("bare step", "GPU", 8)]
        expected += [("torch", "CPU", 4), ("compiled torch", "GPU", 8)]
    _check("programs", found, expected)
    _check("speeds", [speed["images_per_s"] > 0 for speed in speeds], [True] * len(speeds))
    _check("the project is not changed", _digests(project), before)


def _drawn_project(folder: Path) -> Path:
    """Return a project of drawn scenes that has been split."""
    project = folder / "drawn"
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
    return project


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
