"""Explain known failures of a build or of a darknet by its output or signal. No side effects.

Causes are listed before their consequences: when a compiler is killed, make reports an error too.
"""

from __future__ import annotations

import re
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import cmake
from oiyolo.darknet.build.flags import architecture_remedy, format_capability
from oiyolo.trainlog.cuda_errors import spell_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_APT_INSTALL: Final = "On Debian or Ubuntu: apt-get install"
_OR_NO_GPU: Final = "or set [darknet] build_gpu to no"
_REMEDIES_OF_BUILDS: Final = {
    "or_cpu": "or set [darknet] build_gpu to no and build again",
    "rebuild": "Delete the program's folder, and run `oiyolo build` on this machine",
    "rebuild_for_gpu": "Set [darknet] arch to it, or to auto, and run `oiyolo build`",
}
_REMEDIES_OF_PROGRAMS: Final = {
    "or_cpu": "or set [darknet] executable to a darknet for the CPU",
    "rebuild": "Run `oiyolo build` on this machine, without [darknet] executable",
    "rebuild_for_gpu": "Build the program again for it, or run `oiyolo build` without [darknet] "
    "executable",
}
"""What helps, by placeholder, for a program that oiyolo built and for any other one: the options of
a build have no effect on the latter."""
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
        line: The line of the output that says so, quoted; empty if the exit code does.
    """

    what: str
    remedy: str
    line: str = ""

    def __str__(self) -> str:
        return f"{self.what}.\n{self.remedy}."


def explain(output: str, exit_code: int = 0, *, is_built: bool = True) -> Failure | None:
    """Return the first known failure of a build or a program; ``None`` if none is known.

    Args:
        output: The output of the build tools or of the program.
        exit_code: Exit code as ``subprocess`` reports it, or as a shell does (128 + signal).
        is_built: Whether the program is, or would be, built by oiyolo, so that the options of a
            build can help.
    """
    remedies = _REMEDIES_OF_BUILDS if is_built else _REMEDIES_OF_PROGRAMS
    output = spell_out(output)
    for failure in _KNOWN_FAILURES:
        match = re.search(failure.pattern, output, re.MULTILINE)
        if match:
            named = failure.values(match[1]) if failure.values else {}
            what, remedy = (
                text.format(match[0], *match.groups(), **{**remedies, **named})
                for text in (failure.what, failure.remedy)
            )
            return Failure(what, remedy, quoted_line(match))
    ended = _SIGNALS.get(-exit_code if exit_code < 0 else exit_code - _SHELL_SIGNAL)
    return ended and Failure(ended.what, ended.remedy.format(**remedies))


def explained_error(
    what: str,
    output: str,
    *,
    remedy: str,
    where: str = "",
    found: str = "",
    exit_code: int = 0,
    is_built: bool = True,
) -> DarknetError:
    """Return an error that quotes a program's output, and explains a known failure.

    Args:
        what: What failed.
        output: The program's output.
        remedy: What to do if the failure is not known.
        where: As for ``OiyoloError``.
        found: As for ``OiyoloError``; if empty, the line that names the failure.
        exit_code: As for ``explain``.
        is_built: As for ``explain``.
    """
    failure = explain(output, exit_code, is_built=is_built)
    if failure is not None:
        what, remedy, found = f"{what}: {failure.what}", failure.remedy, found or failure.line
    return DarknetError(what, where=where, found=found or complaint(output), remedy=remedy)


def complaint(output: str) -> str:
    """Return the line of an output that names the failure, quoted: the first error, or the last.

    It is empty if the output is.
    """
    all_lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in all_lines if not _CONSEQUENCE.match(line)] or all_lines
    line = next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "")
    return repr(line[:_SHOWN_CHARACTERS]) if line else ""


def quoted_line(match: re.Match[str]) -> str:
    """Return the line in which a match in an output begins, quoted."""
    start = match.string.rfind("\n", 0, match.start()) + 1
    line = match.string[start:].partition("\n")[0].strip()
    return repr(line[:_SHOWN_CHARACTERS])


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


_ERROR: Final = re.compile(
    r"\b(?:error|fatal)\s*:|undefined reference|cannot find|not found|No such file", re.IGNORECASE
)
_CONSEQUENCE: Final = re.compile(r"g?make(?:\[\d+\])?: |\$ ")
"""What make adds after an error, and the commands in a build log."""
_SHOWN_CHARACTERS: Final = 300
_SHELL_SIGNAL: Final = 128
"""A shell adds this to the number of the signal that ended a program."""
_MISSING_LIBRARY: Final = "{library} is missing (its library or its headers)"
_INSTALL_LIBRARY: Final = (
    "Install {debian}-<CUDA version> from NVIDIA's repository, or run `pip install {python}` "
    "(append -cu12 to the name for CUDA 12), " + _OR_NO_GPU
)
_CHECK_CUDA: Final = (
    "Check with `oiyolo doctor` whether driver, CUDA and cuDNN fit together, and with nvidia-smi "
    "whether the GPU works and has free memory; restart the machine if it fails again"
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
        r"(?:Unsupported gpu architecture|Value) '\[?(?:compute|sm)_(\d+)[a-z]?\]?'",
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
        r"/c\+\+/(\d+)/\S+ error: parameter packs not expanded",
        "this CUDA version cannot compile the headers of gcc {1}",
        "Install {older} and set NVCC_PREPEND_FLAGS='-ccbin {older}', or install a newer CUDA",
        lambda version: {"older": f"g++-{int(version) - 1}"},
    ),
    _KnownFailure(
        r"(?:trying to exec|cannot execute) \W?cc1plus",
        "gcc cannot compile C++: the g++ of its version is missing",
        f"{_APT_INSTALL} build-essential; if `gcc --version` and `g++ --version` differ, install "
        "the g++ of gcc's version, too",
    ),
    _KnownFailure(
        r"undefined reference to \W?__kmpc_",
        "the compiler is clang, or older objects are, but gcc's OpenMP library is linked",
        "Check `gcc --version`; install gcc (apt-get install build-essential) and put it first on "
        "PATH, and unset CC and CXX",
    ),
    _KnownFailure(
        r"undefined reference to (?:symbol )?\W?(?:cv::|_Z\w*2cv)",
        "OpenCV's headers and libraries are of different versions: several are installed",
        "Remove all but one, or set PKG_CONFIG_PATH to the folder with the .pc file of the one to "
        "use",
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
        r"detected dubious ownership in repository at '([^'\n]+)'",
        "the git repository belongs to another user, and git does not trust it",
        "Run `git config --global --add safe.directory {folder}`, or become its owner",
        lambda folder: {"folder": shlex.quote(folder)},
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
        "Install the NVIDIA driver, {or_cpu}",
    ),
    _KnownFailure(
        r"CUDA driver version is insufficient for CUDA runtime version"
        r"|PTX was compiled with an unsupported toolchain",
        "the NVIDIA driver is older than this CUDA needs, or is not running",
        "Install a newer driver (nvidia-smi shows the newest CUDA version it supports), or build "
        "with an older CUDA",
    ),
    _KnownFailure(
        r"no CUDA-capable device is detected",
        "this darknet is built for CUDA, but the driver detects no GPU",
        "Check the output of nvidia-smi (start a container with --gpus all), {or_cpu}",
    ),
    _KnownFailure(
        r"no kernel image is available for execution on the device|CUDA.*invalid device function"
        r"|CUDA.*(?:device kernel image is invalid|PTX JIT compilation failed)",
        "this darknet was not compiled for this GPU",
        "Find the GPU's compute capability with nvidia-smi --query-gpu=compute_cap --format=csv. "
        "{rebuild_for_gpu}",
    ),
    _KnownFailure(
        r"(?:CUDA Error|cuda\w* *error|status)\W.*out of memory|cudaErrorMemoryAllocation"
        r"|CUDA memory allocation failed",
        "the GPU has too little free memory",
        "Find out with nvidia-smi which programs use it, or use another GPU",
    ),
    _KnownFailure(
        r"cuDNN.*[Ee]rror.*\b(CUDNN_STATUS_\w+)",
        "cuDNN fails with {1}",
        _CHECK_CUDA,
    ),
    _KnownFailure(
        r"\bcuDNN hasn't found \S+ algo|\bcu(?:BLAS|DNN|RAND)(?: status)? [Ee]rror\b",
        "a library of CUDA fails",
        _CHECK_CUDA,
    ),
    _KnownFailure(
        # Not the format in a line of the sources that a compiler quotes.
        r"(?:CUDA [Ee]rror(?: Prev| code)?:|cuda[A-Z]\w*(?:\(\))? error:|\bcudaError(?:_t)?:?)"
        r" (?:status=)?(\d[^%\"\n]*|[a-z][^%\"\n]*)$",
        "CUDA fails: {1}",
        _CHECK_CUDA,
    ),
    _KnownFailure(
        r"error while loading shared libraries: (\S+): cannot open shared object",
        "the library {1} was not found when the program started",
        "Install the package that contains it, or add its folder to LD_LIBRARY_PATH; if the "
        "library has moved, build darknet again",
    ),
)
_SIGNALS: Final[Mapping[int, Failure]] = {
    signal.SIGILL: Failure(
        "it was built for another processor (illegal instruction)",
        "{rebuild}; AVX is then used only if the processor has it",
    ),
    signal.SIGSEGV: Failure(
        "it crashes (segmentation fault)",
        "{rebuild}: it may have been built with other versions of its libraries",
    ),
    signal.SIGKILL: Failure(
        "it was killed: it took too long, or the machine is out of memory",
        "Close programs that use much memory or processor time, and try again",
    ),
}
"""Failures by the signal that ended the program, if its output names none."""
