"""Whether driver, CUDA toolkit, libraries and GPUs fit each other; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.darknet.build.flags import NEVER, SERVED, dotted, known_architectures, remedy_for
from oiyolo.darknet.build.toolchain import numbers
from oiyolo.operations.doctor.facts import Driver, Finding
from oiyolo.planning.units import told_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.darknet.gpus import Gpu

DRIVER_FOR: Final = (
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
"""From each version of CUDA on, the oldest driver for Linux that runs its programs; since CUDA 11
all of a major version run on the driver of its first. Source: the CUDA Toolkit's release notes,
"CUDA Toolkit and Corresponding Driver Versions"."""

_LITTLE_MEMORY_BYTES: Final = 4 << 30
"""YOLOv3 at 416x416 wants more than this unless a batch is cut in many parts."""
_BUSY_SHARE: Final = 0.5
_SHOWN_CHARACTERS: Final = 160


def parse_driver(said: str, exit_code: int) -> Driver:
    """Read what ``nvidia-smi`` prints above its table.

    Args:
        said: All that it printed.
        exit_code: How it ended.
    """
    version = re.search(r"Driver Version:\s*(\d+(?:\.\d+)+)", said)
    cuda = re.search(r"CUDA Version:\s*(\d+\.\d+)", said)
    if exit_code != 0 or version is None:
        words = " ".join(said.split())[:_SHOWN_CHARACTERS]
        return Driver(present=True, failure=words or "nothing")
    return Driver(present=True, version=version[1], cuda=cuda[1] if cuda else "")


def driver_needed(cuda: str) -> tuple[int, ...]:
    """Give the oldest driver for a version of CUDA; () if nobody knows it."""
    version = numbers(cuda)
    return next((driver for first, driver in DRIVER_FOR if version >= first), ())


def highest_cuda(driver: Driver) -> str:
    """Give the newest CUDA that a driver serves, as it says or by its version; "" if unknown."""
    if driver.cuda:
        return driver.cuda
    version = numbers(driver.version)
    for (major, minor), needed in DRIVER_FOR:
        if version >= needed:
            return f"{major}.x" if (major, minor) >= (11, 0) else f"{major}.{minor}"
    return ""


def judge(toolchain: Toolchain, driver: Driver) -> Iterator[Finding]:
    """Judge all that has to do with GPUs."""
    if not driver.present and not toolchain.gpus and toolchain.nvcc is None:
        yield Finding(
            "GPU",
            "missing",
            "none: neither NVIDIA's driver nor CUDA is here",
            "The demo trains on a CPU; for YOLOv3 take a machine with a GPU of NVIDIA's",
        )
        return
    yield _driver(driver, toolchain)
    for gpu in toolchain.gpus:
        yield _gpu(gpu, toolchain)
    if not toolchain.gpus and driver.version:
        yield Finding(
            "GPU",
            "missing",
            "the driver is here, and shows no GPU that can be read",
            "Look with `nvidia-smi` whether it is attached to this machine or container",
        )
    yield _toolkit(toolchain, driver)
    if toolchain.nvcc is not None and toolchain.cuda:
        yield _libraries(toolchain)
        yield _cudnn(toolchain)


def _driver(driver: Driver, toolchain: Toolchain) -> Finding:
    if driver.version:
        highest = highest_cuda(driver)
        serves = f", serves CUDA up to {highest}" if highest else ""
        return Finding("driver", "ok", driver.version + serves)
    if driver.present:
        return Finding(
            "driver",
            "warning",
            f"nvidia-smi says: {driver.failure}",
            "Install the driver anew (on Debian and Ubuntu the package nvidia-driver), and start "
            "the machine again; in a container, start it with --gpus all",
        )
    at = f"nvidia-smi is not here; CUDA's compiler is ({toolchain.nvcc})"
    return Finding(
        "driver",
        "missing",
        at,
        "To train on a GPU, install NVIDIA's driver; without one darknet can only be compiled",
    )


def _toolkit(toolchain: Toolchain, driver: Driver) -> Finding:
    if toolchain.nvcc is None:
        fitting = highest_cuda(driver)
        which = f"CUDA toolkit {fitting} or older" if fitting else "CUDA toolkit"
        return Finding(
            "CUDA", "missing", "no nvcc", f"To build darknet for the GPU, install the {which}"
        )
    if not toolchain.cuda:
        return Finding(
            "CUDA",
            "warning",
            f"{toolchain.nvcc} does not tell its version",
            "Install the CUDA toolkit anew, or point CUDA_HOME at another one",
        )
    found = f"{toolchain.cuda} ({toolchain.nvcc})"
    needed = driver_needed(toolchain.cuda)
    if driver.version and needed and numbers(driver.version) < needed:
        return Finding(
            "CUDA",
            "warning",
            f"{found} needs a driver from {'.'.join(map(str, needed))} on, and this one is "
            f"{driver.version}",
            f"Install a newer driver, or CUDA {highest_cuda(driver) or 'of its time'}",
        )
    return Finding("CUDA", "ok", found)


def _gpu(gpu: Gpu, toolchain: Toolchain) -> Finding:
    topic = f"GPU {gpu.index}"
    found = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, "
        f"{told_bytes(gpu.free_bytes)} of {told_bytes(gpu.memory_bytes)} free"
    )
    architecture = gpu.compute_capability.replace(".", "")
    if not architecture.isdigit():
        return Finding(
            topic,
            "warning",
            found,
            "The driver does not tell what it can; install a newer one, or build with --arch",
        )
    if toolchain.cuda and not _is_served(architecture, toolchain):
        unfit = f"{found}; CUDA {toolchain.cuda} does not compile for {dotted(architecture)}"
        return Finding(topic, "warning", unfit, remedy_for(architecture))
    if gpu.memory_bytes < _LITTLE_MEMORY_BYTES:
        return Finding(topic, "warning", found, "Take a tiny network, or more [train] subdivisions")
    if gpu.free_bytes < _BUSY_SHARE * gpu.memory_bytes:
        return Finding(topic, "warning", found, "Look with `nvidia-smi` who else uses it")
    return Finding(topic, "ok", found)


def _is_served(architecture: str, toolchain: Toolchain) -> bool:
    """Tell whether this CUDA compiles for a GPU: exactly, or for an older one that it then runs."""
    first, last = SERVED.get(architecture, ("", NEVER))
    if last != NEVER and numbers(last) < numbers(toolchain.cuda):
        return False
    known = known_architectures(toolchain)
    return architecture in known or (not first or numbers(first) > numbers(toolchain.cuda))


def _libraries(toolchain: Toolchain) -> Finding:
    if not toolchain.missing:
        return Finding("CUDA libraries", "ok", "cudart, cublas and curand, with their headers")
    return Finding(
        "CUDA libraries",
        "missing",
        f"no {', '.join(toolchain.missing)} of CUDA {toolchain.cuda}",
        "Install the whole CUDA toolkit, or these libraries with their headers; `oiyolo build "
        "--build-gpu yes` names the packages",
    )


def _cudnn(toolchain: Toolchain) -> Finding:
    if toolchain.cudnn:
        return Finding("cuDNN", "ok", toolchain.cudnn)
    return Finding(
        "cuDNN",
        "missing",
        "not found",
        "It is not needed, and makes a training quicker; install the one for "
        f"CUDA {toolchain.cuda.partition('.')[0]}",
    )
