"""Explain known failures of a build or a program start by their output. No side effects.

Causes are listed before their consequences: when a compiler is killed, make reports an error too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.darknet.build.flags import architecture_remedy

if TYPE_CHECKING:
    from collections.abc import Callable

_APT_INSTALL: Final = "On Debian or Ubuntu: apt-get install"
_OR_NO_GPU: Final = "or set [darknet] build_gpu to no"
_LIBRARIES: Final = {
    "cublas_v2": ("cuBLAS", "libcublas-dev", "nvidia-cublas"),
    "curand": ("cuRAND", "libcurand-dev", "nvidia-curand"),
    "cudnn": ("cuDNN", "libcudnn9-dev", "nvidia-cudnn"),
    "cuda_runtime": ("CUDA's runtime", "cuda-cudart-dev", "nvidia-cuda-runtime"),
}
"""By header: the library's name, and the start of NVIDIA's and PyPI's package names."""
_HEADER_OF_LIBRARY: Final = {"cublas": "cublas_v2", "cudart": "cuda_runtime"}


@dataclass(frozen=True)
class Failure:
    """The explanation of a failure.

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
class _KnownFailure:
    name: str
    pattern: str
    explain: Callable[[re.Match[str]], tuple[str, str]]


def explain(output: str) -> Failure | None:
    """Return the first known failure in the output of a build or a program; ``None`` if none."""
    for failure in _KNOWN_FAILURES:
        match = re.search(failure.pattern, output, re.MULTILINE)
        if match:
            return Failure(failure.name, *failure.explain(match))
    return None


def _fixed_text(what: str, remedy: str) -> Callable[[re.Match[str]], tuple[str, str]]:
    return lambda _: (what, remedy)


def _missing_library(match: re.Match[str]) -> tuple[str, str]:
    key = _HEADER_OF_LIBRARY.get(match[1], match[1])
    name, debian, python = _LIBRARIES[key]
    remedy = (
        f"Install {debian}-<CUDA version> from NVIDIA's repository, or run `pip install {python}` "
        f"(append -cu12 to the name for CUDA 12), {_OR_NO_GPU}"
    )
    return f"{name} is missing (its library or its headers)", remedy


def _unsupported_architecture(match: re.Match[str]) -> tuple[str, str]:
    return (
        f"this CUDA does not compile for compute capability {match[1][:-1]}.{match[1][-1]}",
        architecture_remedy(match[1]),
    )


def _cmake_too_old(match: re.Match[str]) -> tuple[str, str]:
    return (
        f"CMake {match[2]} is too old; {match[1]} or newer is needed",
        "Install a newer CMake, for example with `pip install cmake`",
    )


def _gcc_too_new(match: re.Match[str]) -> tuple[str, str]:
    remedy = (
        f"Install gcc-{match[1]} and g++-{match[1]}, and set NVCC_PREPEND_FLAGS='-ccbin "
        f"g++-{match[1]}', or install a newer CUDA"
    )
    return f"this CUDA version does not work with gcc newer than {match[1]}", remedy


def _missing_tool(match: re.Match[str]) -> tuple[str, str]:
    package = {"nvcc": "nvidia-cuda-toolkit", "cmake": "cmake"}.get(match[1], "build-essential")
    return f"the program {match[1]} is missing", f"{_APT_INSTALL} {package}"


def _missing_shared_library(match: re.Match[str]) -> tuple[str, str]:
    remedy = (
        "Install the package that contains it, or add its folder to LD_LIBRARY_PATH; if the "
        "library has moved, build darknet again"
    )
    return f"the library {match[1]} was not found when the program started", remedy


_KNOWN_FAILURES: Final = (
    _KnownFailure(
        "out of memory",
        r"Killed signal terminated program|out of memory allocating|virtual memory exhausted"
        r"|died due to signal 9|^Killed$|\bError 137$",
        _fixed_text(
            "a compiler ran out of memory and was killed",
            "Close other programs or add swap space, then build again; one compiler runs for "
            "every 2 GB of free memory",
        ),
    ),
    _KnownFailure(
        "terminated",
        r"Terminated signal terminated program|^g?make.*\] Terminated$",
        _fixed_text(
            "the compilers were terminated from outside",
            "Run the same command again; no incomplete build was kept",
        ),
    ),
    _KnownFailure(
        "disk full",
        r"No space left on device",
        _fixed_text(
            "the disk is full",
            "Free some space, or set [openimages] cache to a folder on another disk",
        ),
    ),
    _KnownFailure(
        "architecture",
        r"Unsupported gpu architecture '(?:compute|sm)_(\d+)[a-z]?'",
        _unsupported_architecture,
    ),
    _KnownFailure(
        "new gcc", r"unsupported GNU version! gcc(?: versions)? later than (\d+)", _gcc_too_new
    ),
    _KnownFailure(
        "cudnn with pjreddie",
        r"(?:undefined reference to|error:).*\b(?:CUDNN_CONVOLUTION_\w+_SPECIFY_WORKSPACE_LIMIT"
        r"|cudnnGetConvolution\w+Algorithm)\b",
        _fixed_text(
            "this source tree supports cuDNN up to version 7 only",
            "Build AlexeyAB's darknet, which supports current cuDNN versions, or build this one "
            "without cuDNN (CUDNN=0)",
        ),
    ),
    _KnownFailure(
        "header",
        r"fatal error: (cublas_v2|curand|cudnn|cuda_runtime)\.h: No such file",
        _missing_library,
    ),
    _KnownFailure(
        "cudaThreadSynchronize",
        r"(?:undefined reference to|error:).*\bcudaThreadSynchronize\b",
        _fixed_text(
            "this source tree calls cudaThreadSynchronize, which CUDA 13 dropped",
            "Build it with CUDA 12.9, or replace the call by cudaDeviceSynchronize in the sources",
        ),
    ),
    _KnownFailure(
        "driver library",
        r"cannot find -lcuda(?::|$|\s)",
        _fixed_text(
            "the linker found no libcuda, which is part of the NVIDIA driver",
            "Install the NVIDIA driver, or CUDA's driver stubs (cuda-driver-dev-<CUDA version>)",
        ),
    ),
    _KnownFailure(
        "library", r"cannot find -l(cublas|curand|cudnn|cudart)(?::|$|\s)", _missing_library
    ),
    _KnownFailure(
        "old cmake",
        r"CMake (\S+) or higher is required\.\s+You are running version (\S+)",
        _cmake_too_old,
    ),
    _KnownFailure(
        "tags",
        r"No names found, cannot describe anything|No tags can describe"
        r"|not a git repository|VERSION \"[^\"]*\" format invalid",
        _fixed_text(
            "this source tree takes its version from git tags, but it has no tags",
            "In a git clone, run `git fetch --tags --unshallow`; an unpacked archive does not "
            "work: clone the repository with git, in full",
        ),
    ),
    _KnownFailure(
        "opencv",
        r"FindOpenCV\.cmake|provided by \"OpenCV\"|Package opencv4? was not found"
        r"|No package 'opencv4?' found|fatal error: opencv2?/\S+: No such file",
        _fixed_text("OpenCV or its headers are missing", f"{_APT_INSTALL} libopencv-dev"),
    ),
    _KnownFailure(
        "old opencv",
        r"\bIplImage\b",
        _fixed_text(
            "this source tree needs an OpenCV version older than 3",
            "Build it without OpenCV (OPENCV=0); this only makes reading images slower",
        ),
    ),
    _KnownFailure(
        "tool",
        r"(?:^|/|: )(gcc|g\+\+|make|nvcc|cmake|ar): (?:No such file or directory|"
        r"[Cc]ommand not found|not found)",
        _missing_tool,
    ),
    _KnownFailure(
        "compiler",
        r"No CMAKE_C(?:XX)?_COMPILER could be found|compiler identification is unknown",
        _fixed_text("no C++ compiler was found", f"{_APT_INSTALL} build-essential"),
    ),
    _KnownFailure(
        "processor",
        r"unrecognized command.line option \W?-m(?:avx|sse)",
        _fixed_text(
            "the build requests AVX, which this processor does not have",
            "Set [darknet] source to sources whose Makefile has AVX=0, or report a bug",
        ),
    ),
    _KnownFailure(
        "no driver",
        r"libcuda\.so\.1: cannot open shared object file",
        _fixed_text(
            "this darknet is built for CUDA, and this machine has no NVIDIA driver",
            f"Install the NVIDIA driver, {_OR_NO_GPU} and build again",
        ),
    ),
    _KnownFailure(
        "old driver",
        r"CUDA driver version is insufficient for CUDA runtime version",
        _fixed_text(
            "the NVIDIA driver is older than this CUDA needs, or is not running",
            "Install a newer driver (nvidia-smi shows the newest CUDA version it supports), or "
            "build with an older CUDA",
        ),
    ),
    _KnownFailure(
        "no gpu",
        r"no CUDA-capable device is detected",
        _fixed_text(
            "this darknet is built for CUDA, but the driver detects no GPU",
            f"Check the output of nvidia-smi (start a container with --gpus all), {_OR_NO_GPU} "
            "and build again",
        ),
    ),
    _KnownFailure(
        "other gpu",
        r"no kernel image is available for execution on the device",
        _fixed_text(
            "this darknet was not compiled for this GPU",
            "Build again with --arch set to the GPU's compute capability (nvidia-smi "
            "--query-gpu=compute_cap --format=csv prints it)",
        ),
    ),
    _KnownFailure(
        "gpu memory",
        r"(?:CUDA Error|cuda\w* *error|status)\W.*out of memory|cudaErrorMemoryAllocation",
        _fixed_text(
            "the GPU has too little free memory",
            "Find out with nvidia-smi which programs use it, or use another GPU",
        ),
    ),
    _KnownFailure(
        "library at start",
        r"error while loading shared libraries: (\S+): cannot open shared object",
        _missing_shared_library,
    ),
)
