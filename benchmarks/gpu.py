"""How quickly darknet trains on this machine's GPU, and how much of it that keeps busy.

``python benchmarks/gpu.py --project boats`` builds darknet for CUDA and for the CPU, lets both
prove themselves, trains the demo's network and yolov3-tiny on the project's images on each, for
some iterations from noise, and prints images a second, the GPU's use as nvidia-smi tells it every
second, and the ratio to the CPU, which is the baseline. The project has to be split; it is only
read. The same numbers go into ``gpu.json`` in ``--folder``. Without a GPU it says so and ends with
1.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from _measure import layout

import oiyolo
from oiyolo.darknet.gpus import gpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from oiyolo.darknet.gpus import Gpu

ASKED: Final = ("utilization.gpu", "memory.used", "power.draw")
EVERY_S: Final = 1.0
_WARM_UP_SHARE: Final = 0.25
"""Of the iterations: in the first ones memory is taken, and algorithms are tried."""
_NONE: Final = (
    "No GPU answers nvidia-smi here, so there is nothing to measure. `oiyolo doctor` says what is "
    "missing."
)


@dataclass(frozen=True)
class Use:
    """What a GPU did at one moment.

    Attributes:
        busy: Share of the time in which it computed, in percent.
        memory_mib: Memory in use.
        power_w: What it draws; nan where it does not tell.
    """

    busy: float
    memory_mib: float
    power_w: float


@dataclass(frozen=True)
class Training:
    """A measured training.

    Attributes:
        network: What was trained.
        device: "GPU" or "CPU".
        iterations: How many.
        batch: Images an iteration.
        images_per_s: By darknet's own clock: computing alone, the median after the warm-up.
        whole_images_per_s: By ours, from the start to the last weights, loading and all.
        busy: Mean share of the time in which the GPU computed, in percent; nan on the CPU.
        memory_mib: The most of its memory that was in use.
        power_w: The mean of what it drew.
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="a project that is split")
    parser.add_argument("--network", nargs="+", default=["demo", "yolov3-tiny"])
    parser.add_argument("--iterations", type=int, default=300, help="on the GPU")
    parser.add_argument("--cpu-iterations", type=int, default=20)
    parser.add_argument("--gpu-darknet", help="a program built for CUDA, rather than building one")
    parser.add_argument("--cpu-darknet", help="the same for the CPU")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one without it")
    options = parser.parse_args()
    found = gpus()
    if not found:
        raise SystemExit(_NONE)
    with tempfile.TemporaryDirectory(prefix="oiyolo-gpu-") as name:
        folder: Path = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        project = borrowed(options.project, folder / "project")
        programs = {
            "CPU": options.cpu_darknet or built(project, folder / "cpu", "no"),
            "GPU": options.gpu_darknet or built(project, folder / "gpu", "yes"),
        }
        counts = {"CPU": options.cpu_iterations, "GPU": options.iterations}
        measured = [
            train(project, network, device, programs[device], counts[device])
            for network in options.network
            for device in programs
        ]
        print(f"{told(found)}\n\n{layout(rows(measured))}")
        text = json.dumps([asdict(training) for training in measured], indent=1)
        (folder / "gpu.json").write_text(text + "\n")


def borrowed(project: Path, folder: Path) -> Path:
    """Make a project of the same images and options, with runs of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(project / "oiyolo.toml", folder)
    (folder / "data").symlink_to((project / "data").absolute())
    return folder


def built(project: Path, cache: Path, build_gpu: str) -> str:
    """Build darknet, and let it prove itself; its folder of builds is its own."""
    done = oiyolo.build(project, build_gpu=build_gpu, cache=str(cache.absolute()))
    print(done)
    return str(done.as_dict()["executable"])


def train(project: Path, network: str, device: str, program: str, iterations: int) -> Training:
    """Train from noise, and look at the GPU meanwhile."""
    with watched() as uses:
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
    whole = iterations * batch / done.seconds
    name = Path(network).stem
    if device == "CPU":
        return Training(name, device, iterations, batch, images_per_s, whole)
    return Training(name, device, iterations, batch, images_per_s, whole, *summary(uses))


def speed(metrics: pd.DataFrame) -> tuple[float, float]:
    """Give images an iteration, and images a second after the warm-up."""
    batch = float(metrics["images"].iloc[-1] / metrics["iteration"].iloc[-1])
    warm = metrics.iloc[int(len(metrics) * _WARM_UP_SHARE) :]
    return batch, batch / float(warm["seconds"].median())


@contextmanager
def watched() -> Iterator[list[Use]]:
    """Ask nvidia-smi every second what the GPUs do."""
    uses: list[Use] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            uses.extend(parse_uses(_asked()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield uses
    finally:
        ended.set()
        thread.join()


def _asked() -> str:
    argv = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def parse_uses(text: str) -> list[Use]:
    """Read what nvidia-smi says, one GPU a line; what is no such line is passed over."""
    found = []
    for line in text.splitlines():
        cells = [_number(cell) for cell in line.split(",")]
        if len(cells) == len(ASKED) and not math.isnan(cells[0] + cells[1]):
            found.append(Use(*cells))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return math.nan


def summary(uses: Sequence[Use]) -> tuple[float, float, float]:
    """Give the mean share of busy time, the most memory, and the mean power; nan for no samples.

    Samples of idle GPUs, at the start and at the end or where there are several, are left out.
    """
    busy = [use for use in uses if use.busy > 0]
    if not busy:
        return math.nan, math.nan, math.nan
    powers = [use.power_w for use in busy if not math.isnan(use.power_w)]
    return (
        statistics.fmean(use.busy for use in busy),
        max(use.memory_mib for use in busy),
        statistics.fmean(powers) if powers else math.nan,
    )


def rows(measured: Sequence[Training]) -> list[tuple[str, ...]]:
    """Give the table: each network on the CPU and on the GPU, and how much quicker that is."""
    lines: list[tuple[str, ...]] = [
        ("", "iterations", "batch", "images/s", "with loading", "times the CPU", "GPU busy",
         "GPU memory", "power")
    ]  # fmt: skip
    cpu = {training.network: training for training in measured if training.device == "CPU"}
    for training in measured:
        baseline = cpu.get(training.network)
        ratio = training.images_per_s / baseline.images_per_s if baseline else math.nan
        lines.append(
            (
                f"{training.network}, {training.device}",
                f"{training.iterations}",
                f"{training.batch:.0f}",
                f"{training.images_per_s:.1f}",
                f"{training.whole_images_per_s:.1f}",
                _shown(ratio, ".1f", ""),
                _shown(training.busy, ".0f", " %"),
                _shown(training.memory_mib, ".0f", " MiB"),
                _shown(training.power_w, ".0f", " W"),
            )
        )
    return lines


def _shown(number: float, form: str, unit: str) -> str:
    return "-" if math.isnan(number) else f"{number:{form}}{unit}"


def told(found: Sequence[Gpu]) -> str:
    """Name the GPUs."""
    return "\n".join(
        f"GPU {gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, driver "
        f"{gpu.driver_version}"
        for gpu in found
    )


if __name__ == "__main__":
    main()
