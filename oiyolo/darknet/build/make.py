"""What make is told to build AlexeyAB's and pjreddie's darknet; pure.

Their Makefiles know CUDA in /usr/local/cuda alone and compile for GPUs that today's CUDA does not
know; what is given on make's command line overrides that, and the sources stay as they are.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.darknet.build.flags import Flags
    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.networks.lint import DarknetLine

_COMPILERS: Final[dict[str, tuple[str, str]]] = {
    "alexeyab": ("gcc", "g++ -std=c++11"),
    "pjreddie": ("gcc", "g++"),
}
"""What the Makefiles have as CC and CPP."""


def command(
    flags: Flags, toolchain: Toolchain, line: DarknetLine, *, links: Path, jobs: int
) -> tuple[str, ...]:
    """Give the command that builds; it runs in the folder of the sources.

    Args:
        flags: The switches.
        toolchain: Where CUDA is.
        line: The line that the sources are.
        links: A folder with links to CUDA's libraries by the names that the linker looks for.
        jobs: How many compilers run at the same time.
    """
    switches = {
        "GPU": flags.gpu,
        "CUDNN": flags.cudnn,
        "OPENCV": flags.opencv,
        "OPENMP": flags.openmp,
    }
    if line == "alexeyab":
        switches |= {"CUDNN_HALF": flags.cudnn_half, "AVX": flags.avx}
    given = [f"{name}={int(on)}" for name, on in switches.items()]
    if flags.gpu:
        c, cpp = _COMPILERS[line]
        if flags.synchronize_by_device:
            c += " -DcudaThreadSynchronize=cudaDeviceSynchronize"
        # Ahead of all that the Makefile gives them, so that no other CUDA comes first.
        headers = sorted({str(part.header_folder) for part in toolchain.components.values()})
        includes = "".join(f" -I{shlex.quote(folder)}" for folder in headers)
        libraries = f" -L{shlex.quote(str(links))}"
        given += [
            f"ARCH={arch(flags.architectures)}",
            _variable("CC", c + includes + libraries),
            _variable("CPP", cpp + includes + libraries),
            _variable("NVCC", shlex.quote(str(toolchain.nvcc)) + includes),
        ]
    return ("make", f"-j{jobs}", *given)


def arch(architectures: Sequence[str]) -> str:
    """Give what nvcc is told to compile for: code for each, and PTX for what comes after them."""
    return " ".join(f"-gencode arch=compute_{n},code=[sm_{n},compute_{n}]" for n in architectures)


def _variable(name: str, value: str) -> str:
    return f"{name}={value.replace('$', '$$')}"
