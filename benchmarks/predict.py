"""Measure how fast images are predicted, and compare with darknet and with onnxruntime alone.

``python benchmarks/predict.py [--photographs FOLDER] [--pretrained FOLDER] [--rounds N]``

The network is yolov3-tiny at 416x416 with random weights. Everything runs on the CPU. Printed are

- the time of ``oiyolo predict`` with one photograph and a small pretrained network, next to that of
  importing the libraries which it needs;
- images per second, and CPU time per image, of ``darknet detector valid`` on PATH (without its
  start: the difference between a long and a short list), of onnxruntime alone on images that are
  decoded and fitted already, and of ``Detector.stream``, which also reads and decodes the files;
  the last two with a batch of 1 and of 8, in interleaved rounds, the best of each;
- memory after 1,000 and after 10,000 images with the demo's small network.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from _measure import fastest, layout, run

from oiyolo.darknet.program import data_file
from oiyolo.imagery.upright import decode_upright
from oiyolo.inference.detected import Detected
from oiyolo.inference.placement import fit_image
from oiyolo.networks.builders import stock
from oiyolo.networks.layers import HEAD_KINDS, layers
from oiyolo.operations.detectors import load_detector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from oiyolo.inference.detector import Detector
    from oiyolo.networks.cfg import Cfg

REAL: Final = Path(__file__).parents[2] / "shared" / "real"
NETWORK: Final = "yolov3-tiny"
SMALL_NETWORK: Final = "demo"
MEMORY_STEPS: Final = (1_000, 10_000)
SHORT_LIST, LONG_LIST = 4, 12
_LIBRARIES: Final = "import numpy, cv2, PIL.Image, onnx.helper, onnxruntime, click"
_OBJECTNESS_BIAS: Final = -2.6
"""With it, random weights detect a few objects per image, as trained weights do."""


class Speed(NamedTuple):
    """How long an image takes.

    Attributes:
        wall_s: Wall-clock time per image.
        cpu_s: CPU time of all threads per image.
    """

    wall_s: float
    cpu_s: float


def write_network(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a network of the project with random weights; return the paths of both files."""
    cfg = stock(name)
    cfg_path, weights_path = folder / f"{name}.cfg", folder / f"random-{name}.weights"
    cfg_path.write_bytes(cfg.encode())
    weights_path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 0) + random_parameters(cfg))
    return cfg_path, weights_path


def random_parameters(cfg: Cfg) -> bytes:
    """Return random parameters under which activations neither vanish nor explode."""
    rng, parts = np.random.default_rng(0), []
    network = layers(cfg)
    for layer, following in zip(network, [*network[1:], None], strict=True):
        is_before_head = following is not None and following.kind in HEAD_KINDS
        for segment in layer.segments:
            values = np.ones(segment.count)
            if segment.name == "weights":
                fan_in = segment.count // layer.output_whc[2]
                values = rng.normal(size=segment.count) * np.sqrt(2 / fan_in)
            elif segment.name in {"biases", "means"}:
                values = np.zeros(segment.count)
            if is_before_head and segment.name == "biases":
                values[4 :: segment.count // 3] = _OBJECTNESS_BIAS
            parts.append(values.astype("<f4").tobytes())
    return b"".join(parts)


def best(measure: Callable[[], Speed], before: Speed | None) -> Speed:
    """Return the smaller wall-clock and CPU time of a new and an earlier measurement."""
    new = measure()
    return new if before is None else Speed(*map(min, new, before))


def timed(work: Callable[[], object], images: int) -> Speed:
    """Return the speed of a function that processes a number of images."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    return Speed(
        (time.perf_counter() - start_s) / images, (time.process_time() - start_cpu_s) / images
    )


def measure_darknet(folder: Path, network: tuple[Path, Path], photos: Sequence[Path]) -> Speed:
    """Return the speed of ``darknet detector valid``, without its start."""
    work = folder / "darknet"
    shutil.rmtree(work, ignore_errors=True)
    (work / "results").mkdir(parents=True)
    classes = stock(NETWORK).layers[-1].integer("classes", 0)
    (work / "all.names").write_text("".join(f"{n}\n" for n in range(classes)))
    lists = {"train": "list.txt", "valid": "list.txt", "names": "all.names"}
    text = data_file(class_count=classes, backup="results", results="results", **lists)
    (work / "all.data").write_text(text)
    argv = ["darknet", "detector", "valid", "all.data", *map(str, network)]
    spent = []
    for count in (SHORT_LIST, LONG_LIST):
        (work / "list.txt").write_text("".join(f"{path}\n" for path in photos[:count]))
        before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(argv, cwd=work, capture_output=True, check=False)
        wall_s = time.perf_counter() - start_s
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spent.append((wall_s, cpu_s))
    (short, short_cpu), (long, long_cpu) = spent
    images = LONG_LIST - SHORT_LIST
    return Speed((long - short) / images, (long_cpu - short_cpu) / images)


def fitted(detector: Detector, photos: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Return the photographs as the network reads them, shape (n, 3, height, width)."""
    width, height = detector.size_wh
    inputs = np.empty((len(photos), 3, height, width), np.float32)
    for path, planes in zip(photos, inputs, strict=True):
        fit_image(decode_upright(path.read_bytes()), detector.size_wh, detector.fit, planes)
    return inputs


def run_bare(model: Path, inputs: npt.NDArray[np.float32], batch: int) -> Callable[[], object]:
    """Return a function that runs onnxruntime with its own defaults on decoded images."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def work() -> None:
        for start in range(0, len(inputs), batch):
            session.run(None, {"images": inputs[start : start + batch]})

    work()
    return work


def items(photos: Sequence[Path]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the photographs as the detector reads them."""
    for path in photos:
        yield str(path), partial(read, path)


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Return the upright pixels of a photograph."""
    return decode_upright(path.read_bytes())


def run_stream(detector: Detector, photos: Sequence[Path], batch: int) -> Callable[[], object]:
    """Return a function that reads and predicts photographs."""

    def work() -> list[Any]:
        return list(detector.stream(items(photos), batch=batch))

    return work


def speed_table(folder: Path, photos: Sequence[Path], rounds: int) -> str:
    """Return a table of the speed of darknet, of onnxruntime alone and of ``Detector.stream``."""
    from oiyolo.operations.export import export_onnx  # noqa: PLC0415

    network = write_network(NETWORK, folder)
    detector = load_detector(cfg=network[0], weights=network[1])
    exported = export_onnx(folder, cfg=network[0], weights=network[1], out=folder / "n.onnx")
    results = list(detector.stream(items(photos)))
    found = sum(len(result) for result in results if isinstance(result, Detected))
    print(f"{len(photos)} photographs, {found / len(photos):.1f} detections each")
    inputs = fitted(detector, photos)
    measures: dict[str, Callable[[], Speed]] = {}
    if shutil.which("darknet"):
        measures["darknet detector valid"] = partial(measure_darknet, folder, network, photos)
    for batch in (1, 8):
        bare = run_bare(exported.path, inputs, batch)
        measures[f"onnxruntime alone, batch {batch}"] = partial(timed, bare, len(photos))
        stream = run_stream(detector, photos, batch)
        measures[f"Detector.stream, batch {batch}"] = partial(timed, stream, len(photos))
    speeds: dict[str, Speed] = {}
    for _ in range(rounds):
        for name, measure in measures.items():
            speeds[name] = best(measure, speeds.get(name))
    bare_s = min(speeds[f"onnxruntime alone, batch {batch}"].wall_s for batch in (1, 8))
    first_s = next(iter(speeds.values())).wall_s
    lines = [("", "images/s", "wall ms", "CPU ms", "times the first", "of onnxruntime's time")]
    for name, (wall_s, cpu_s) in speeds.items():
        ratios = f"{first_s / wall_s:.1f}", f"{wall_s / bare_s:.2f}"
        lines.append(
            (name, f"{1 / wall_s:.1f}", f"{wall_s * 1e3:.1f}", f"{cpu_s * 1e3:.1f}", *ratios)
        )
    return layout(lines)


def print_memory(photographs: Path) -> None:
    """Predict 10,000 images with a small network, and print the memory along the way."""
    photos = sorted(photographs.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as name:
        cfg, weights = write_network(SMALL_NETWORK, Path(name))
        detector = load_detector(cfg=cfg, weights=weights)
    small = [read(path)[:96, :128].copy() for path in photos[:20]]
    images = ((str(n), partial(np.copy, small[n % len(small)])) for n in range(MEMORY_STEPS[-1]))
    for done, _ in enumerate(detector.stream(images), start=1):
        if done in MEMORY_STEPS:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{done:,} images: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB")


def first_detection_table(photo: Path, pretrained: Path, folder: Path) -> str:
    """Return a table of the time of one prediction, and of importing its libraries."""
    cfg = pretrained / "yolo-fastest-1.1.cfg"
    words = ["--cfg", cfg, "--weights", cfg.with_suffix(".weights"), "--out", folder / "out"]
    words += ["--names", pretrained / "coco.names"]
    argv = [sys.executable, "-m", "oiyolo", "predict", "-q", str(photo), *map(str, words)]
    lines = [("", "wall s", "CPU s", "peak MB")]
    for name, command in (
        ("importing the libraries", [sys.executable, "-c", _LIBRARIES]),
        ("oiyolo predict photo.jpg", argv),
    ):
        measured = fastest(command, runs=5)
        times = f"{measured.wall_s:.2f}", f"{measured.cpu_s:.2f}"
        lines.append((name, *times, f"{measured.peak_mb:.0f}"))
    return layout(lines)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=REAL / "alpaca" / "images")
    parser.add_argument("--pretrained", type=Path, default=REAL / "pretrained")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.photographs)
        return
    photos = sorted(arguments.photographs.glob("*.jpg"))[:48]
    if len(photos) < LONG_LIST:
        raise SystemExit(f"fewer than {LONG_LIST} photographs in {arguments.photographs}")
    with tempfile.TemporaryDirectory() as name:
        if arguments.pretrained.is_dir():  # first, while this process is still small
            print(first_detection_table(photos[0], arguments.pretrained, Path(name)), flush=True)
        print(speed_table(Path(name), photos, arguments.rounds), flush=True)
    argv = [sys.executable, __file__, "--memory", "--photographs", str(arguments.photographs)]
    print(run(argv).output, end="")


if __name__ == "__main__":
    main()
