"""Explain known failures of a build or a program start by their output. No side effects.

Causes are listed before their consequences: when a compiler is killed, make reports an error too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import cmake
from oiyolo.darknet.build.flags import architecture_remedy, format_capability

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_APT_INSTALL: Final = "On Debian or Ubuntu: apt-get install"
_OR_NO_GPU: Final = "or set [darknet] build_gpu to no"
_LIBRARIES: Final = {
    "cublas": ("cuBLAS", "libcublas-dev", "nvidia-cublas"),
    "curand": ("cuRAND", "libcurand-dev", "nvidia-curand"),
    "cudnn": ("cuDNN", "libcudnn9-dev", "nvidia-cudnn"),
    "cudart": ("CUDA's runtime", "cuda-cudart-dev", "nvidia-cuda-runtime"),
}
"""By library: its name, and the start of NVIDIA's and PyPI's package names."""
_LIBRARY_OF_HEADER: Final = {"cublas_v2": "cublas", "cuda_runtime": "cudart"}
_PACKAGES: Final = {"nvcc": "nvidia-cuda-toolkit", "cmake": "cmake"}


@dataclass(frozen=True)
class Failure:
    """The explanation of a failure.

    Attributes:
        what: What failed, without a full stop.
        remedy: What to do next, without a full stop.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}.\n{self.remedy}."


def explain(output: str) -> Failure | None:
    """Return the first known failure in the output of a build or a program; ``None`` if none."""
    for failure in _KNOWN_FAILURES:
        match = re.search(failure.pattern, output, re.MULTILINE)
        if match:
            named = failure.values(match[1]) if failure.values else {}
            what, remedy = (
                text.format(match[0], *match.groups(), **named)
                for text in (failure.what, failure.remedy)
            )
            return Failure(what, remedy)
    return None


def explained_error(what: str, output: str, *, remedy: str, **details: str) -> DarknetError:
    """Return an error that also says which known failure is in the output of a program.

    Args:
        what: What failed.
        output: The program's output.
        remedy: What to do if the failure is not known.
        **details: ``where`` and ``found``, as for ``OiyoloError``.
    """
    failure = explain(output)
    if failure is not None:
        what, remedy = f"{what}: {failure.what}", failure.remedy
    return DarknetError(what, remedy=remedy, **details)


@dataclass(frozen=True)
class _KnownFailure:
    """A regular expression, and the texts of a ``Failure``.

    The texts refer to the groups of the pattern by number, and to what ``values`` returns for the
    first group by name.
    """

    pattern: str
    what: str
    remedy: str
    values: Callable[[str], Mapping[str, str]] | None = None


def _library(word: str) -> dict[str, str]:
    names = _LIBRARIES[_LIBRARY_OF_HEADER.get(word, word)]
    return dict(zip(("library", "debian", "python"), names, strict=True))


_MISSING_LIBRARY: Final = "{library} is missing (its library or its headers)"
_INSTALL_LIBRARY: Final = (
    "Install {debian}-<CUDA version> from NVIDIA's repository, or run `pip install {python}` "
    "(append -cu12 to the name for CUDA 12), " + _OR_NO_GPU
)
_KNOWN_FAILURES: Final = (
    _KnownFailure(
        r"Killed signal terminated program|out of memory allocating|virtual memory exhausted"
        r"|died due to signal 9|^Killed$|\bError 137$",
        "a compiler ran out of memory and was killed",
        "Close other programs or add swap space, then build again; one compiler runs for every "
        "2 GB of free memory",
    ),
    _KnownFailure(
        r"Terminated signal terminated program|^g?make.*\] Terminated$",
        "the compilers were terminated from outside",
        "Run the same command again; no incomplete build was kept",
    ),
    _KnownFailure(
        r"No space left on device",
        "the disk is full",
        "Free some space, or set [openimages] cache to a folder on another disk",
    ),
    _KnownFailure(
        r"Unsupported gpu architecture '(?:compute|sm)_(\d+)[a-z]?'",
        "this CUDA does not compile for compute capability {capability}",
        "{advice}",
        lambda architecture: {
            "capability": format_capability(architecture),
            "advice": architecture_remedy(architecture),
        },
    ),
    _KnownFailure(
        r"unsupported GNU version! gcc(?: versions)? later than (\d+)",
        "this CUDA version does not work with gcc newer than {1}",
        "Install gcc-{1} and g++-{1}, and set NVCC_PREPEND_FLAGS='-ccbin g++-{1}', or install a "
        "newer CUDA",
    ),
    _KnownFailure(
        r"(?:undefined reference to|error:).*\b(?:CUDNN_CONVOLUTION_\w+_SPECIFY_WORKSPACE_LIMIT"
        r"|cudnnGetConvolution\w+Algorithm)\b",
        "this source tree supports cuDNN up to version 7 only",
        "Set [darknet] source to AlexeyAB's darknet, which supports current cuDNN versions, or "
        "install cuDNN 7, " + _OR_NO_GPU,
    ),
    _KnownFailure(
        r"fatal error: (cublas_v2|curand|cudnn|cuda_runtime)\.h: No such file",
        _MISSING_LIBRARY,
        _INSTALL_LIBRARY,
        _library,
    ),
    _KnownFailure(
        r"(?:undefined reference to|error:).*\bcudaThreadSynchronize\b",
        "this source tree calls cudaThreadSynchronize, which CUDA 13 dropped",
        "Build it with CUDA 12.9, or replace the call by cudaDeviceSynchronize in the sources",
    ),
    _KnownFailure(
        r"cannot find -lcuda(?::|$|\s)",
        "the linker found no libcuda, which is part of the NVIDIA driver",
        "Install the NVIDIA driver, or CUDA's driver stubs (cuda-driver-dev-<CUDA version>)",
    ),
    _KnownFailure(
        r"cannot find -l(cublas|curand|cudnn|cudart)(?::|$|\s)",
        _MISSING_LIBRARY,
        _INSTALL_LIBRARY,
        _library,
    ),
    _KnownFailure(
        r"CMake (\S+) or higher is required\.\s+You are running version (\S+)",
        "CMake {2} is too old; {1} or newer is needed",
        cmake.NEWER_CMAKE,
    ),
    _KnownFailure(
        r"No names found, cannot describe anything|No tags can describe"
        r"|not a git repository|VERSION \"[^\"]*\" format invalid",
        "this source tree takes its version from git tags, but it has no tags",
        cmake.FULL_CLONE,
    ),
    _KnownFailure(
        r"FindOpenCV\.cmake|provided by \"OpenCV\"|Package opencv4? was not found"
        r"|No package 'opencv4?' found|fatal error: opencv2?/\S+: No such file",
        "OpenCV or its headers are missing",
        f"{_APT_INSTALL} libopencv-dev",
    ),
    _KnownFailure(
        r"\bIplImage\b",
        "this source tree needs an OpenCV version older than 3",
        "Set [darknet] source to newer sources, or remove OpenCV's headers (apt-get remove "
        "libopencv-dev) to build without it; this only makes reading images slower",
    ),
    _KnownFailure(
        r"(?:^|/|: )(gcc|g\+\+|make|nvcc|cmake|ar): (?:No such file or directory|"
        r"[Cc]ommand not found|not found)",
        "the program {1} is missing",
        _APT_INSTALL + " {package}",
        lambda program: {"package": _PACKAGES.get(program, "build-essential")},
    ),
    _KnownFailure(
        r"No CMAKE_C(?:XX)?_COMPILER could be found|compiler identification is unknown",
        "no C++ compiler was found",
        f"{_APT_INSTALL} build-essential",
    ),
    _KnownFailure(
        r"unrecognized command.line option \W?(-m(?:avx|sse|fma)[\w.]*)",
        "the compiler does not support {1}: it is too old, or compiles for another processor",
        "Check the output of `gcc --version` and `gcc -dumpmachine`; install this system's own "
        "compiler (apt-get install build-essential), or set [darknet] executable to an existing "
        "darknet",
    ),
    _KnownFailure(
        r"libcuda\.so\.1: cannot open shared object file",
        "this darknet is built for CUDA, and this machine has no NVIDIA driver",
        f"Install the NVIDIA driver, {_OR_NO_GPU} and build again",
    ),
    _KnownFailure(
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the NVIDIA driver is older than this CUDA needs, or is not running",
        "Install a newer driver (nvidia-smi shows the newest CUDA version it supports), or build "
        "with an older CUDA",
    ),
    _KnownFailure(
        r"no CUDA-capable device is detected",
        "this darknet is built for CUDA, but the driver detects no GPU",
        f"Check the output of nvidia-smi (start a container with --gpus all), {_OR_NO_GPU} and "
        "build again",
    ),
    _KnownFailure(
        r"no kernel image is available for execution on the device",
        "this darknet was not compiled for this GPU",
        "Build again with --arch set to the GPU's compute capability (nvidia-smi "
        "--query-gpu=compute_cap --format=csv prints it)",
    ),
    _KnownFailure(
        r"(?:CUDA Error|cuda\w* *error|status)\W.*out of memory|cudaErrorMemoryAllocation",
        "the GPU has too little free memory",
        "Find out with nvidia-smi which programs use it, or use another GPU",
    ),
    _KnownFailure(
        r"error while loading shared libraries: (\S+): cannot open shared object",
        "the library {1} was not found when the program started",
        "Install the package that contains it, or add its folder to LD_LIBRARY_PATH; if the "
        "library has moved, build darknet again",
    ),
)
