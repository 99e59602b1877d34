"""Measure what loading costs the torch engine on a CPU: its rate, relative to the bare step's.

``python benchmarks/torch_loader.py [--rounds N] [--seconds S]``

Both networks train on 8 images at a time: the demo's at 96x96 and yolov3-tiny at 416x416, in
channels_last and float32, or bfloat16 where that is faster. The bare step repeats forward pass,
backward pass and update on one batch, with the number of threads that is fastest; the other takes
each batch from the loader, with the augmentation that the .cfg requests, and computes with the
number of threads that the engine chooses. All are measured in turns; the table has the best round
of each, and the CPU time of all threads per step, which other programs influence less. The last
column is the CPU time of the loader alone, per step.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from PIL import Image

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.builders import stock
from oiyolo.torch_engine.loader import Loader
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import sgd
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.step import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.networks.cfg import Cfg

IMAGES: Final = 64
BATCH: Final = 8
DEMO: Final = Path(__file__).parents[1] / "cfg" / "demo.cfg"


class Rate(NamedTuple):
    """Duration and CPU time of a step."""

    wall_ms: float
    cpu_ms: float


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="duration of a round")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} cores")
    print("network       bare step, ms (CPU)   with the loader, ms (CPU)   rate, relative   loader")
    networks = {"demo": cfgs.read(DEMO), "yolov3-tiny": stock("yolov3-tiny")}
    for name, cfg in networks.items():
        bare, loaded, loader_ms = measure(cfg, arguments.rounds, arguments.seconds)
        print(
            f"{name:12} {bare.wall_ms:9.1f} ({bare.cpu_ms:.1f})"
            f" {loaded.wall_ms:17.1f} ({loaded.cpu_ms:.1f})"
            f" {bare.wall_ms / loaded.wall_ms:19.2f} {loader_ms:15.1f}"
        )


def measure(cfg: Cfg, rounds: int, seconds: float) -> tuple[Rate, Rate, float]:
    """Return the best rate of the bare step and of that with the loader, and the loader's CPU time.

    The latter is per step, in ms, on one thread.
    """
    rules, cores = rules_for("alexeyab", gpu=False), torch.get_num_threads()
    threads = thread_count(TorchNetwork(cfg, rules), BATCH)
    steps = [training_step(cfg, use_bfloat16=use) for use in (False, True)]
    noise = torch.rand(BATCH, 3, *cfg.size_wh[::-1]).to(memory_format=torch.channels_last)
    step = min(steps, key=lambda step: timed(lambda: step(noise), 1).wall_ms)
    bare, loaded, alone_ms = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), cfg.size_wh)
        for _ in range(rounds):
            with Loader(
                images,
                cfg,
                rules,
                device="cpu",
                seed=1,
                batch_images=BATCH,
                memory_format=torch.channels_last,
            ) as loader:
                torch.set_num_threads(threads)
                loaded.append(timed(lambda: step(next(loader).images), seconds))
                alone_ms.append(timed(lambda: next(loader), seconds / 4).cpu_ms)
            for count in sorted({1, cores}):
                torch.set_num_threads(count)
                bare.append(timed(lambda: step(noise), seconds))
    torch.set_num_threads(cores)
    return min(bare), min(loaded), min(alone_ms)


def training_step(cfg: Cfg, *, use_bfloat16: bool) -> Callable[[torch.Tensor], None]:
    """Return a function that trains on a batch, with a loss that costs nothing."""
    network = TorchNetwork(cfg, rules_for("alexeyab", gpu=False)).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    optimizer = sgd(network)

    def step(images: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
            outputs = network(images)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(outputs, [output * 1e-6 for output in outputs])
        optimizer.step()

    return step


def timed(function: Callable[[], object], seconds: float) -> Rate:
    """Return the mean duration of calls, after some that are not counted."""
    for _ in range(3):
        function()
    calls, start, start_cpu = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds:
        function()
        calls += 1
    return Rate(1000 * elapsed / calls, 1000 * (time.process_time() - start_cpu) / calls)


def write_images(folder: Path, size_wh: tuple[int, int]) -> Path:
    """Write images of the input's size, each with three boxes, and return their list."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(IMAGES):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        content = io.BytesIO()
        coarse.resize(size_wh, Image.Resampling.BICUBIC).save(content, "JPEG")
        path = folder / f"{number}.jpg"
        path.write_bytes(content.getvalue())
        boxes = random.uniform(0.3, 0.7, (3, 2))
        path.with_suffix(".txt").write_text("".join(f"0 {x} {y} .2 .3\n" for x, y in boxes))
        paths.append(str(path))
    (folder / "train.txt").write_text("\n".join(paths) + "\n")
    return folder / "train.txt"


if __name__ == "__main__":
    main()
