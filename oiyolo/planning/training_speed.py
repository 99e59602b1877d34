"""Estimate the duration of a training iteration from measured and published figures.

This serves until a run of the project has measured it. No side effects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.errors import UsageError
from oiyolo.networks.layers import layers
from oiyolo.networks.schedule import schedule_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.darknet.gpus import Gpu
    from oiyolo.darknet.program import Engine
    from oiyolo.networks.cfg import Cfg


class GpuRates(NamedTuple):
    """Published peak rates of a GPU.

    Attributes:
        tflops: 10^12 floating-point operations per second, in single precision (FP32).
        gb_s: Memory bandwidth in 10^9 bytes per second.
    """

    tflops: float
    gb_s: float


GPUS: Final = {
    "H200": GpuRates(67.0, 4800.0),
    "H100 PCIe": GpuRates(51.0, 2000.0),
    "H100": GpuRates(67.0, 3350.0),
    "A100": GpuRates(19.5, 1555.0),
    "V100": GpuRates(15.7, 900.0),
    "P100": GpuRates(9.3, 732.0),
    "L40S": GpuRates(91.6, 864.0),
    "L4": GpuRates(30.3, 300.0),
    "A10": GpuRates(31.2, 600.0),
    "T4": GpuRates(8.1, 320.0),
    "RTX 4090": GpuRates(82.6, 1008.0),
    "RTX 3090": GpuRates(35.6, 936.0),
    "RTX 2080 Ti": GpuRates(13.4, 616.0),
    "RTX 2070": GpuRates(7.5, 448.0),
}
"""By the words of the product name that ``nvidia-smi`` prints. Source: NVIDIA's data sheets (SXM
versions where there are several, the A100 with 40 GB)."""

_REFERENCE: Final = GPUS["H200"]
_YOLOV3_GFLOP: Final = 65.864
_YOLOV3_IMAGES_PER_S: Final = 224.0
_TINY_IMAGES_PER_S: Final = 369.0
"""Measured on an H200 with 16 processors at 416x416 and a batch of 64 (docs/gpu.md). yolov3 used
the GPU fully; yolov3-tiny, with a twelfth of the operations, was limited by everything else.

Scaled to a V100 and 608x608, yolov3 takes 3.3 s an iteration, where a user measured about 3 s
(AlexeyAB/darknet, issue 7236)."""
_TORCH_YOLOV3_IMAGES_PER_S: Final = 958.0
_TORCH_TINY_IMAGES_PER_S: Final = 3659.0
"""The bare step of PyTorch in the same place: forward pass, backward pass and update, on images
that are on the GPU already (docs/gpu.md). No training is faster."""
_CPU_S_PER_GFLOP: Final = 12.5 / 8 / 5.565
"""Debian's darknet, which uses one processor: 12.5 s for 8 images of yolov3-tiny at 416x416. The
demo's network, with 0.7 % of the operations, takes 14 % longer per operation."""
_TORCH_CPU_S_PER_GFLOP: Final = 1.76 / 8 / 5.565
_TORCH_CPU_S_PER_IMAGE: Final = 0.0045
"""The torch engine on 2 cores (docs/engines.md): 1.76 s for 8 images of yolov3-tiny at 416x416, and
0.024 s for 4 images of the demo's network, whose operations take a quarter of that."""
_MIN_SHOWN_SHARE: Final = 0.99


def find_gpu(name: str) -> str | None:
    """Return the key in ``GPUS`` for a product name, such as "Tesla T4"; ``None`` if unknown."""
    words = _words(name)
    for key in GPUS:
        wanted = _words(key)
        if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
            return key
    return None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def check_gpu_name(name: str | None) -> None:
    """Raise if there are no figures for a GPU that the user names.

    Raises:
        UsageError: The GPU is not in ``GPUS``.
    """
    if name is not None and find_gpu(name) is None:
        raise UsageError(
            "no figures for this GPU",
            where="--gpu-name",
            expected=f"one of {', '.join(GPUS)}",
            found=repr(name),
            remedy="Name the most similar one, or set --seconds-per-iteration",
        )


def gflop_per_image(cfg: Cfg) -> float:
    """Return the operations of a forward pass in 10^9: two for each use of a weight."""
    operations = 0
    for layer in layers(cfg):
        width, height, _ = layer.output_whc
        weights = sum(s.count for s in layer.segments if s.name == "weights")
        operations += 2 * width * height * weights
    return operations / 1e9


def estimate(
    cfg: Cfg,
    gpus: Sequence[Gpu],
    gpu_name: str | None = None,
    *,
    engine: Engine = "darknet",
) -> tuple[float | None, str]:
    """Return the expected seconds per iteration, and in words what they are based on.

    On several GPUs, darknet trains a batch on each in an iteration, whose duration is that of one.
    The torch engine shares a batch among them; the duration is that of one GPU, too.

    Args:
        cfg: The network with its size and batch.
        gpus: The GPUs of this machine; the CPU trains if it is empty.
        gpu_name: The GPU to estimate for instead.
        engine: What trains.

    Returns:
        ``None``, and what to do, if there are no figures for the GPU.
    """
    gflop, batch = gflop_per_image(cfg), schedule_of(cfg).batch
    name = gpu_name or (gpus[0].name if gpus else "")
    if not name and engine == "torch":
        return batch * (gflop * _TORCH_CPU_S_PER_GFLOP + _TORCH_CPU_S_PER_IMAGE), (
            "scaled from yolov3-tiny with torch on 2 CPU cores, since this machine has no GPU; to "
            "plan for a GPU, pass --gpu-name"
        )
    if not name:
        return batch * gflop * _CPU_S_PER_GFLOP, (
            "scaled from yolov3-tiny with Debian's darknet on one CPU core, since this machine has "
            "no GPU; to plan for a GPU, pass --gpu-name"
        )
    gpu = find_gpu(name)
    if gpu is None:
        return None, (
            f"unknown for {name}; set it with --seconds-per-iteration, pass a similar GPU with "
            "--gpu-name, or run `oiyolo train` for a few minutes"
        )
    return (_torch_on_gpu if engine == "torch" else _on_gpu)(gpu, gflop, batch)


def _torch_on_gpu(gpu: str, gflop: float, batch: int) -> tuple[float, str]:
    scaled = gflop / _YOLOV3_GFLOP / _TORCH_YOLOV3_IMAGES_PER_S
    per_image_s = max(scaled, 1 / _TORCH_TINY_IMAGES_PER_S) * _slowness(gpu)
    return batch * per_image_s, (
        f"for {gpu}: at best, from PyTorch's bare step on an H200 without loading images; no "
        "training with torch has been measured on a GPU"
    )


def _slowness(gpu: str) -> float:
    """Return how many times as long a GPU takes as an H200, by the slower of its two rates."""
    rates = GPUS[gpu]
    return max(_REFERENCE.tflops / rates.tflops, _REFERENCE.gb_s / rates.gb_s)


def _on_gpu(gpu: str, gflop: float, batch: int) -> tuple[float, str]:
    computing_s = gflop / _YOLOV3_GFLOP * _slowness(gpu) / _YOLOV3_IMAGES_PER_S
    loading_s = 1 / _TINY_IMAGES_PER_S
    if computing_s < loading_s:
        return batch * loading_s, (
            f"for {gpu}: limited by loading images, as measured with yolov3-tiny on an H200 with "
            "16 CPU cores"
        )
    is_measured = GPUS[gpu] == _REFERENCE and abs(gflop / _YOLOV3_GFLOP - 1) < 1 - _MIN_SHOWN_SHARE
    basis = "as measured" if is_measured else "scaled from yolov3"
    source = "" if is_measured else " by operations and NVIDIA's published rates"
    return batch * computing_s, f"for {gpu}: {basis} on an H200 with AlexeyAB's darknet{source}"
