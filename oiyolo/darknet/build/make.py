"""make command lines for AlexeyAB's and pjreddie's darknet. No side effects.

Their Makefiles look for CUDA in /usr/local/cuda only and compile for GPUs that current CUDA
versions no longer support. Variables on make's command line override both, so the sources need no
patches.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.networks.lint import ForkName

_COMPILERS: Final[dict[str, tuple[str, str]]] = {
    "alexeyab": ("gcc", "g++ -std=c++11"),
    "pjreddie": ("gcc", "g++"),
}
"""The values of CC and CPP in the Makefiles."""


def command(
    flags: Flags, toolchain: Toolchain, fork: ForkName, *, links: Path, jobs: int
) -> tuple[str, ...]:
    """Return the command that builds, to be run in the source folder.

    Args:
        flags: The build flags.
        toolchain: The toolchain, with the location of CUDA.
        fork: The fork of darknet in the source folder.
        links: A folder with links to CUDA's libraries by the names that the linker looks for.
        jobs: Number of compilers that run in parallel.
    """
    switches = {
        "GPU": flags.gpu,
        "CUDNN": flags.cudnn,
        "OPENCV": flags.opencv,
        "OPENMP": flags.openmp,
    }
    if fork == "alexeyab":
        switches |= {"CUDNN_HALF": flags.cudnn_half, "AVX": flags.avx}
    variables = [f"{name}={int(on)}" for name, on in switches.items()]
    if flags.gpu:
        c, cpp = _COMPILERS[fork]
        if flags.synchronize_by_device:
            c += " -DcudaThreadSynchronize=cudaDeviceSynchronize"
        # These paths come before the Makefile's own, so that no other CUDA is found first.
        headers = sorted({str(part.header_folder) for part in toolchain.components.values()})
        includes = "".join(f" -I{shlex.quote(folder)}" for folder in headers)
        libraries = f" -L{shlex.quote(str(links))}"
        variables += [
            f"ARCH={arch(flags.architectures)}",
            _variable("CC", c + includes + libraries),
            _variable("CPP", cpp + includes + libraries),
            _variable("NVCC", shlex.quote(str(toolchain.nvcc)) + includes),
        ]
    return ("make", f"-j{jobs}", *variables)


def arch(architectures: Sequence[str]) -> str:
    """Return nvcc's architecture flags: machine code for each, and PTX for later GPUs."""
    return " ".join(f"-gencode arch=compute_{n},code=[sm_{n},compute_{n}]" for n in architectures)


def _variable(name: str, value: str) -> str:
    return f"{name}={value.replace('$', '$$')}"
