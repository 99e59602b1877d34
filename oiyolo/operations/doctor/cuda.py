"""Check that driver, CUDA toolkit, libraries and GPUs are compatible. No side effects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.core.units import format_bytes
from oiyolo.darknet.build.flags import (
    architecture_for,
    architecture_remedy,
    few_cores,
    format_capability,
    slow_augmentation,
)
from oiyolo.darknet.build.toolchain import version_tuple
from oiyolo.operations.doctor.facts import CheckResult, Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.gpus import Gpu

MIN_DRIVER: Final = (
    ((13, 0), (580,)),
    ((12, 0), (525, 60, 13)),
    ((11, 0), (450, 80, 2)),
    ((10, 2), (440, 33)),
    ((10, 1), (418, 39)),
    ((10, 0), (410, 48)),
    ((9, 2), (396, 26)),
    ((9, 1), (390, 46)),
    ((9, 0), (384, 81)),
    ((8, 0), (375, 26)),
)
"""First CUDA version of a range and the oldest Linux driver that runs its programs; since CUDA 11,
the first driver of a major version runs all its minor versions. Source: the CUDA Toolkit's release
notes, "CUDA Toolkit and Corresponding Driver Versions"."""

_LOW_MEMORY_BYTES: Final = 4 << 30
"""YOLOv3 at 416x416 needs more than this unless a batch has many subdivisions."""
_BUSY_SHARE: Final = 0.5
_SHOWN_CHARACTERS: Final = 160


def parse_driver(output: str, exit_code: int) -> Driver:
    """Parse the header of ``nvidia-smi``'s table.

    Args:
        output: Its complete output.
        exit_code: Its exit code.
    """
    version = re.search(r"Driver Version:\s*(\d+(?:\.\d+)+)", output)
    cuda = re.search(r"CUDA Version:\s*(\d+\.\d+)", output)
    if exit_code != 0 or version is None:
        message = " ".join(output.split())[:_SHOWN_CHARACTERS]
        return Driver(present=True, failure=message or "(no output)")
    return Driver(present=True, version=version[1], cuda=cuda[1] if cuda else "")


def min_driver(cuda: str) -> tuple[int, ...]:
    """Return the oldest driver for a CUDA version, as numbers; () if unknown."""
    version = version_tuple(cuda)
    return next((driver for first, driver in MIN_DRIVER if version >= first), ())


def max_cuda(driver: Driver) -> str:
    """Return the newest CUDA version that a driver supports; "" if unknown."""
    if driver.cuda:
        return driver.cuda
    version = version_tuple(driver.version)
    for (major, minor), needed in MIN_DRIVER:
        if version >= needed:
            return f"{major}.x" if (major, minor) >= (11, 0) else f"{major}.{minor}"
    return ""


def check_gpus(toolchain: Toolchain, driver: Driver) -> Iterator[CheckResult]:
    """Yield the results for the driver, the GPUs, the CUDA toolkit and its libraries."""
    if not driver.present and not toolchain.gpus and toolchain.nvcc is None:
        yield CheckResult(
            "GPU",
            "missing",
            "none: neither the NVIDIA driver nor CUDA is installed",
            "The demo trains on a CPU; for YOLOv3 use a machine with an NVIDIA GPU",
        )
        return
    yield _check_driver(driver, toolchain)
    for gpu in toolchain.gpus:
        yield _check_gpu(gpu, toolchain)
    if not toolchain.gpus and driver.version:
        yield CheckResult(
            "GPU",
            "missing",
            "the driver is installed but reports no GPU",
            "Check with `nvidia-smi` whether a GPU is attached to this machine or container",
        )
    yield _check_toolkit(toolchain, driver)
    if toolchain.nvcc is not None and toolchain.cuda:
        yield from _check_libraries(toolchain)


def _check_driver(driver: Driver, toolchain: Toolchain) -> CheckResult:
    if driver.version:
        highest = max_cuda(driver)
        support = f", supports CUDA up to {highest}" if highest else ""
        return CheckResult("driver", "ok", driver.version + support)
    if driver.present:
        return CheckResult(
            "driver",
            "warning",
            f"nvidia-smi fails: {driver.failure}",
            "Reinstall the driver (on Debian and Ubuntu the package nvidia-driver) and reboot; "
            "start a container with --gpus all",
        )
    return CheckResult(
        "driver",
        "missing",
        f"nvidia-smi is not installed, but CUDA's compiler is ({toolchain.nvcc})",
        "To train on a GPU, install the NVIDIA driver; without it darknet can only be compiled",
    )


def _check_toolkit(toolchain: Toolchain, driver: Driver) -> CheckResult:
    if toolchain.nvcc is None:
        newest = max_cuda(driver)
        toolkit = f"CUDA toolkit {newest} or older" if newest else "CUDA toolkit"
        return CheckResult(
            "CUDA", "missing", "no nvcc", f"To build darknet for the GPU, install the {toolkit}"
        )
    if not toolchain.cuda:
        return CheckResult(
            "CUDA",
            "warning",
            f"{toolchain.nvcc} does not report its version",
            "Reinstall the CUDA toolkit, or point CUDA_HOME at another one",
        )
    text = f"{toolchain.cuda} ({toolchain.nvcc})"
    needed, newest = min_driver(toolchain.cuda), max_cuda(driver)
    if driver.version and needed and version_tuple(driver.version) < needed:
        return CheckResult(
            "CUDA",
            "warning",
            f"{text} needs driver {'.'.join(map(str, needed))} or newer, but {driver.version} is "
            "installed",
            f"Install a newer driver, or {f'CUDA {newest}' if newest else 'an older CUDA version'}",
        )
    return CheckResult("CUDA", "ok", text)


def _check_gpu(gpu: Gpu, toolchain: Toolchain) -> CheckResult:
    text = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, "
        f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.memory_bytes)} free"
    )
    architecture = gpu.compute_capability.replace(".", "")
    remedy = ""
    if not architecture.isdigit():
        remedy = (
            "The driver does not report the compute capability; install a newer driver, or build "
            "with --arch"
        )
    elif toolchain.cuda and architecture_for(toolchain, architecture) is None:
        name = format_capability(architecture)
        text += f"; CUDA {toolchain.cuda} does not compile for {name}"
        remedy = architecture_remedy(architecture)
    elif gpu.memory_bytes < _LOW_MEMORY_BYTES:
        remedy = "Use a tiny network, or more [train] subdivisions"
    elif gpu.free_bytes < _BUSY_SHARE * gpu.memory_bytes:
        remedy = "Find out with `nvidia-smi` which programs use it"
    return CheckResult(f"GPU {gpu.index}", "warning" if remedy else "ok", text, remedy)


def _check_libraries(toolchain: Toolchain) -> Iterator[CheckResult]:
    if toolchain.missing:
        yield CheckResult(
            "CUDA libraries",
            "missing",
            f"no {', '.join(toolchain.missing)} of CUDA {toolchain.cuda}",
            "Install the complete CUDA toolkit, or these libraries with their headers; `oiyolo "
            "build --build-gpu yes` names the packages",
        )
    else:
        found = "cudart, cublas and curand, with their headers"
        yield CheckResult("CUDA libraries", "ok", found)
    if toolchain.cudnn:
        yield CheckResult("cuDNN", "ok", toolchain.cudnn)
    else:
        major = toolchain.cuda.partition(".")[0]
        remedy = f"Optional: cuDNN makes training faster; install the one for CUDA {major}"
        yield CheckResult("cuDNN", "missing", "not found", remedy)


def check_loading(toolchain: Toolchain) -> Iterator[CheckResult]:
    """Yield what slows down the loading of images for a GPU."""
    if not toolchain.gpus:
        return
    if advice := slow_augmentation(toolchain, "alexeyab"):
        yield CheckResult("OpenCV", "missing", *advice)
    if advice := few_cores(toolchain):
        yield CheckResult("CPU cores", "warning", *advice)
