"""Known failures of a build or a start, recognised in what was said, with their remedy; pure.

A cause stands before what follows from it: a compiler that was killed makes make say more, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.darknet.build.flags import remedy_for

if TYPE_CHECKING:
    from collections.abc import Callable

_ON_DEBIAN: Final = "On Debian or Ubuntu: apt-get install"
_NO_GPU: Final = "or set [darknet] build_gpu to no"
_HAVE: Final = {
    "cublas_v2": ("cuBLAS", "libcublas-dev", "nvidia-cublas"),
    "curand": ("cuRAND", "libcurand-dev", "nvidia-curand"),
    "cudnn": ("cuDNN", "libcudnn9-dev", "nvidia-cudnn"),
    "cuda_runtime": ("CUDA's runtime", "cuda-cudart-dev", "nvidia-cuda-runtime"),
}
"""What is missing by its header: its name, and how NVIDIA's and PyPI's packages of it begin."""
_LIBRARY_OF: Final = {"cublas": "cublas_v2", "cudart": "cuda_runtime"}


@dataclass(frozen=True)
class Failure:
    """A failure in plain words.

    Attributes:
        name: Its key.
        what: What failed, without a full stop.
        remedy: What to do next, without a full stop.
    """

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}.\n{self.remedy}."


@dataclass(frozen=True)
class _Known:
    name: str
    said: str
    explain: Callable[[re.Match[str]], tuple[str, str]]


def explain(said: str) -> Failure | None:
    """Find the first known failure in what a build or a program said; ``None``: none is known."""
    for known in _KNOWN:
        found = re.search(known.said, said, re.MULTILINE)
        if found:
            return Failure(known.name, *known.explain(found))
    return None


def _always(what: str, remedy: str) -> Callable[[re.Match[str]], tuple[str, str]]:
    return lambda _: (what, remedy)


def _missing(found: re.Match[str]) -> tuple[str, str]:
    key = _LIBRARY_OF.get(found[1], found[1])
    name, debian, python = _HAVE[key]
    remedy = (
        f"Install {debian}-<version of CUDA> from NVIDIA's repository, or `pip install {python}` "
        f"(with -cu12 behind it for CUDA 12), {_NO_GPU}"
    )
    return f"{name} is missing, or its headers are", remedy


def _unsupported(found: re.Match[str]) -> tuple[str, str]:
    return (
        f"this CUDA does not compile for compute capability {found[1][:-1]}.{found[1][-1]}",
        remedy_for(found[1]),
    )


def _old_cmake(found: re.Match[str]) -> tuple[str, str]:
    return (
        f"CMake {found[2]} is too old, {found[1]} or newer is needed",
        "Install a newer one, for instance with `pip install cmake`",
    )


def _new_gcc(found: re.Match[str]) -> tuple[str, str]:
    remedy = (
        f"Install gcc-{found[1]} and g++-{found[1]}, and set NVCC_PREPEND_FLAGS='-ccbin "
        f"g++-{found[1]}', or install a newer CUDA"
    )
    return f"this CUDA does not work with a gcc newer than {found[1]}", remedy


def _absent_tool(found: re.Match[str]) -> tuple[str, str]:
    package = {"nvcc": "nvidia-cuda-toolkit", "cmake": "cmake"}.get(found[1], "build-essential")
    return f"the program {found[1]} is missing", f"{_ON_DEBIAN} {package}"


def _absent_library(found: re.Match[str]) -> tuple[str, str]:
    remedy = (
        "Install the package that has it, or add its folder to LD_LIBRARY_PATH; if it moved, "
        "build darknet anew"
    )
    return f"the library {found[1]} was not found when the program started", remedy


_KNOWN: Final = (
    _Known(
        "out of memory",
        r"Killed signal terminated program|out of memory allocating|virtual memory exhausted"
        r"|died due to signal 9|^Killed$|\bError 137$",
        _always(
            "a compiler ran out of memory and was killed",
            "Close other programs or add swap, then build again: as many compilers run at the "
            "same time as there are 2 GB of free memory",
        ),
    ),
    _Known(
        "ended",
        r"Terminated signal terminated program|^g?make.*\] Terminated$",
        _always(
            "the compilers were ended from outside",
            "Give the same command again; nothing half-built is kept",
        ),
    ),
    _Known(
        "disk full",
        r"No space left on device",
        _always("the disk is full", "Free some space, or set [openimages] cache to another disk"),
    ),
    _Known(
        "architecture", r"Unsupported gpu architecture '(?:compute|sm)_(\d+)[a-z]?'", _unsupported
    ),
    _Known("new gcc", r"unsupported GNU version! gcc(?: versions)? later than (\d+)", _new_gcc),
    _Known(
        "cudnn with pjreddie",
        r"(?:undefined reference to|error:).*\b(?:CUDNN_CONVOLUTION_\w+_SPECIFY_WORKSPACE_LIMIT"
        r"|cudnnGetConvolution\w+Algorithm)\b",
        _always(
            "these sources know cuDNN up to version 7 only",
            "Build AlexeyAB's darknet, which takes today's cuDNN, or build these without it",
        ),
    ),
    _Known(
        "header",
        r"fatal error: (cublas_v2|curand|cudnn|cuda_runtime)\.h: No such file",
        _missing,
    ),
    _Known(
        "cudaThreadSynchronize",
        r"(?:undefined reference to|error:).*\bcudaThreadSynchronize\b",
        _always(
            "these sources call cudaThreadSynchronize, which CUDA 13 dropped",
            "Build them with CUDA 12.9, or replace it by cudaDeviceSynchronize in the sources",
        ),
    ),
    _Known(
        "driver library",
        r"cannot find -lcuda(?::|$|\s)",
        _always(
            "the linker found no libcuda, which the driver brings",
            "Install the NVIDIA driver, or CUDA's stubs of it (cuda-driver-dev-<version of CUDA>)",
        ),
    ),
    _Known("library", r"cannot find -l(cublas|curand|cudnn|cudart)(?::|$|\s)", _missing),
    _Known(
        "old cmake",
        r"CMake (\S+) or higher is required\.\s+You are running version (\S+)",
        _old_cmake,
    ),
    _Known(
        "tags",
        r"No names found, cannot describe anything|No tags can describe"
        r"|not a git repository|VERSION \"[^\"]*\" format invalid",
        _always(
            "these sources take their version from git's tags, and there are none",
            "In a clone: `git fetch --tags --unshallow`; else clone them with git, in full, "
            "rather than unpack an archive",
        ),
    ),
    _Known(
        "opencv",
        r"FindOpenCV\.cmake|provided by \"OpenCV\"|Package opencv4? was not found"
        r"|No package 'opencv4?' found|fatal error: opencv2?/\S+: No such file",
        _always("OpenCV or its headers are missing", f"{_ON_DEBIAN} libopencv-dev"),
    ),
    _Known(
        "old opencv",
        r"\bIplImage\b",
        _always(
            "these sources need an OpenCV older than 3",
            "Build them without it (OPENCV=0), which costs no more than speed in reading images",
        ),
    ),
    _Known(
        "tool",
        r"(?:^|/|: )(gcc|g\+\+|make|nvcc|cmake|ar): (?:No such file or directory|"
        r"[Cc]ommand not found|not found)",
        _absent_tool,
    ),
    _Known(
        "compiler",
        r"No CMAKE_C(?:XX)?_COMPILER could be found|compiler identification is unknown",
        _always("no C++ compiler was found", f"{_ON_DEBIAN} build-essential"),
    ),
    _Known(
        "processor",
        r"unrecognized command.line option \W?-m(?:avx|sse)",
        _always(
            "this processor has no AVX, which was asked for",
            "Set [darknet] source to a tree whose Makefile says AVX=0, or report this machine",
        ),
    ),
    _Known(
        "no driver",
        r"libcuda\.so\.1: cannot open shared object file",
        _always(
            "this darknet is built for CUDA, and this machine has no NVIDIA driver",
            f"Install the driver, {_NO_GPU} and build anew",
        ),
    ),
    _Known(
        "old driver",
        r"CUDA driver version is insufficient for CUDA runtime version",
        _always(
            "the NVIDIA driver is older than this CUDA needs, or is not running",
            "Install a newer driver (nvidia-smi shows which CUDA it serves), or build with an "
            "older CUDA",
        ),
    ),
    _Known(
        "no gpu",
        r"no CUDA-capable device is detected",
        _always(
            "this darknet is built for CUDA, and the driver knows no GPU here",
            f"See what nvidia-smi says (a container needs --gpus all), {_NO_GPU} and build anew",
        ),
    ),
    _Known(
        "other gpu",
        r"no kernel image is available for execution on the device",
        _always(
            "this darknet was not compiled for this GPU",
            "Give --arch the GPU's compute capability (nvidia-smi --query-gpu=compute_cap "
            "--format=csv), and build anew",
        ),
    ),
    _Known(
        "gpu memory",
        r"(?:CUDA Error|cuda\w* *error|status)\W.*out of memory|cudaErrorMemoryAllocation",
        _always(
            "the GPU has too little free memory",
            "See what uses it with nvidia-smi, or use another GPU",
        ),
    ),
    _Known(
        "library at start",
        r"error while loading shared libraries: (\S+): cannot open shared object",
        _absent_library,
    ),
)
