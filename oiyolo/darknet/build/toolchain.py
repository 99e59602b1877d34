"""Find the tools of this machine to build darknet: compilers, CUDA and its libraries, OpenCV, GPUs.

This module only reads: ``flags`` decides what to use, ``doctor`` reports it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import memory, process
from oiyolo.core.files import text_or_empty
from oiyolo.darknet import gpus as gpu_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from oiyolo.darknet.gpus import Gpu

_TIMEOUT_S: Final = 30.0
_TRIPLET: Final = f"{platform.machine()}-linux-gnu"
_TARGET: Final = f"targets/{platform.machine()}-linux"
_INCLUDES: Final = ("include", f"{_TARGET}/include", f"include/{_TRIPLET}")
_LIBRARIES: Final = ("lib64", "lib", f"{_TARGET}/lib", f"lib/{_TRIPLET}")
_SYSTEM_ROOTS: Final = (Path("/usr/local"), Path("/usr"))
_DRIVER_FOLDERS: Final = (
    f"lib/{_TRIPLET}",
    "lib64",
    "lib",
    "lib/wsl/lib",  # Windows Subsystem for Linux
    f"lib/{_TRIPLET}/nvidia/current",  # Debian
    "nvidia/lib64",  # containers on Google's Kubernetes
)
_HEADERS: Final = {
    "cudart": "cuda_runtime.h",
    "cublas": "cublas_v2.h",
    "curand": "curand.h",
    "cudnn": "cudnn.h",
}
_CUDA_VARIABLES: Final = ("CUDA_HOME", "CUDA_PATH")
_VERSIONED_LIKE_CUDA: Final = ("cudart", "cublas")
"""Libraries whose major version equals CUDA's; cuRAND and cuDNN have their own numbering."""
_PROCESSOR_FEATURES: Final = frozenset({"avx", "avx2", "fma"})
_OPENCV_PACKAGES: Final = ("opencv4", "opencv5", "opencv")


@dataclass(frozen=True)
class Component:
    """A CUDA library and its header, both of the same installation.

    Attributes:
        header_folder: The folder that contains its header.
        library: The shared library.
    """

    header_folder: Path
    library: Path


@dataclass(frozen=True)
class Toolchain:
    """The tools of a machine; the version of a missing tool is empty.

    Attributes:
        gcc: Version of gcc, such as "12.2.0".
        gxx: Version of g++.
        make: Version of make.
        cmake: Version of CMake.
        git: Version of git.
        nvcc: Path of CUDA's compiler.
        cuda: Version of CUDA, such as "13.0".
        architectures: Compute capabilities that nvcc compiles for, such as "75", in ascending
            order; empty if it does not list them (before CUDA 11).
        components: CUDA's libraries that match its version and have their header, by name:
            cudart, cublas, curand, cudnn.
        cudnn: Version of cuDNN, such as "9.28.0".
        driver_library: The driver's ``libcuda.so.1``, which CUDA programs need to start.
        stub_library: The toolkit's stub of it, to link against where there is no driver.
        opencv: Version of OpenCV; empty if its headers are missing.
        gpus: The GPUs that the driver lists.
        processor: Which of avx, avx2 and fma the processor supports, sorted.
        cpus: Number of processors that this process may use.
        memory_bytes: Memory that is available to compilers; 0 if unknown.
    """

    gcc: str = ""
    gxx: str = ""
    make: str = ""
    cmake: str = ""
    git: str = ""
    nvcc: Path | None = None
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    components: Mapping[str, Component] = field(default_factory=dict)
    cudnn: str = ""
    driver_library: Path | None = None
    stub_library: Path | None = None
    opencv: str = ""
    gpus: tuple[Gpu, ...] = ()
    processor: tuple[str, ...] = ()
    cpus: int = 1
    memory_bytes: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the CUDA libraries that darknet needs and that are missing, such as cublas."""
        needed = (name for name in _HEADERS if name != "cudnn")
        return tuple(name for name in needed if name not in self.components)

    @property
    def has_driver(self) -> bool:
        """Whether CUDA programs can start on this machine."""
        return self.driver_library is not None

    def as_dict(self) -> dict[str, object]:
        """Return the toolchain as JSON-compatible values."""
        values: dict[str, object] = json.loads(json.dumps(asdict(self), default=str))  # paths
        return values


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, which compare correctly ("12.10" > "12.9"); () if none."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def find(
    environment: Mapping[str, str] | None = None, *, system: Sequence[Path] = _SYSTEM_ROOTS
) -> Toolchain:
    """Return the toolchain of this machine.

    Args:
        environment: Environment variables; those of this process if ``None``.
        system: Folders that contain the system's ``include`` and ``lib``.
    """
    variables = os.environ if environment is None else environment
    search_path = variables.get("PATH", "")
    nvcc = _find_nvcc(variables, system)
    cuda = parse_cuda_version(_nvcc_output(nvcc, "--version"))
    prefixes = _prefixes(nvcc, cuda, variables, system)
    components = {
        name: component
        for name in _HEADERS
        if cuda and (component := _component(name, prefixes, variables, cuda)) is not None
    }
    return Toolchain(
        gcc=_program_version("gcc", search_path),
        gxx=_program_version("g++", search_path),
        make=_program_version("make", search_path),
        cmake=_program_version("cmake", search_path),
        git=_program_version("git", search_path),
        nvcc=nvcc,
        cuda=cuda,
        architectures=parse_architectures(_nvcc_output(nvcc, "--list-gpu-arch")),
        components=components,
        cudnn=_cudnn_version(components.get("cudnn")),
        driver_library=_driver_library(variables, system),
        stub_library=_first_file(
            prefix / folder / "stubs" / "libcuda.so" for prefix in prefixes for folder in _LIBRARIES
        ),
        opencv=_opencv_version(search_path),
        gpus=tuple(gpu_query.gpus()),
        processor=tuple(sorted(_PROCESSOR_FEATURES & _processor_features())),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=memory.available_bytes() or 0,
    )


def parse_cuda_version(output: str) -> str:
    """Return the version, such as "13.0", in the output of ``nvcc --version``; "" if absent."""
    match = re.search(r"release (\d+\.\d+)", output)
    return match[1] if match else ""


def parse_architectures(output: str) -> tuple[str, ...]:
    """Return the output of ``nvcc --list-gpu-arch`` as "75", "80" ..., in ascending order."""
    architectures = set(re.findall(r"^compute_(\d+)$", output, re.MULTILINE))
    return tuple(sorted(architectures, key=int))


def parse_cudnn_version(header: str) -> str:
    """Return the version in ``cudnn_version.h`` (``cudnn.h`` before cuDNN 8); "" if absent."""
    parts = [
        re.search(rf"^#define\s+CUDNN_{name}\s+(\d+)", header, re.MULTILINE)
        for name in ("MAJOR", "MINOR", "PATCHLEVEL")
    ]
    return ".".join(part[1] for part in parts if part) if all(parts) else ""


def parse_version(output: str) -> str:
    """Return the version, such as "12.2.0", in the first line of a program's output."""
    # The packager in parentheses may have a version of its own: "gcc (NG 1.25.0) 12.2.0".
    match = re.search(r"\d+\.\d+(?:\.\d+)?", re.sub(r"\([^)]*\)", "", output.partition("\n")[0]))
    return match[0] if match else ""


def _output_of(argv: Sequence[str]) -> str:
    finished = process.run(argv, timeout_s=_TIMEOUT_S)
    return finished.output if finished.exit_code == 0 else ""


def _nvcc_output(nvcc: Path | None, *options: str) -> str:
    return "" if nvcc is None else _output_of([str(nvcc), *options])


def _program_version(program: str, search_path: str) -> str:
    path = shutil.which(program, path=search_path)
    return parse_version(_output_of([path, "--version"])) if path else ""


def _find_nvcc(variables: Mapping[str, str], system: Sequence[Path]) -> Path | None:
    """Find nvcc by CUDA's variables, on PATH, in conda, in default folders, in PyPI's packages."""
    versioned = [path for root in system for path in root.glob("cuda-*/bin")]
    versioned.sort(key=lambda path: version_tuple(path.parent.name), reverse=True)
    folders = [
        *(Path(variables[name], "bin") for name in _CUDA_VARIABLES if variables.get(name)),
        *filter(None, [variables.get("PATH")]),
        *(Path(conda, "bin") for conda in [variables.get("CONDA_PREFIX")] if conda),
        *(root / "cuda" / "bin" for root in system),
        *versioned,
        *(folder / "cu13" / "bin" for folder in _wheel_folders()),
    ]
    nvcc = shutil.which("nvcc", path=os.pathsep.join(map(str, folders)))
    return Path(nvcc).absolute() if nvcc else None


def _toolkit_of(nvcc: Path) -> Path:
    """Return the toolkit's folder as nvcc reports it, since ``nvcc`` may be a wrapper script."""
    output = _nvcc_output(nvcc, "--dryrun", "-x", "cu", "-c", "/dev/null", "-o", "/dev/null")
    top = re.search(r"^#\$ TOP=(.+)$", output, re.MULTILINE)
    return Path(top[1].strip()).resolve() if top else nvcc.resolve().parents[1]


def _prefixes(
    nvcc: Path | None, cuda: str, variables: Mapping[str, str], system: Sequence[Path]
) -> list[Path]:
    """Return the folders in which CUDA's libraries may be installed, in order of preference."""
    names = (*_CUDA_VARIABLES, "CUDNN_HOME", "CUDNN_PATH", "CONDA_PREFIX")
    # PyPI's packages; since CUDA 13 they mostly share one folder.
    wheels = (f"cu{cuda.partition('.')[0]}", "cuda_runtime", "cublas", "curand", "cudnn")
    return [
        *([] if nvcc is None else [_toolkit_of(nvcc)]),
        *(Path(variables[name]) for name in names if variables.get(name)),
        *(folder / name for folder in _wheel_folders() for name in wheels),
        *(path for root in system for path in (root / "cuda", root / "cudnn", root)),
    ]


def _wheel_folders() -> Iterator[Path]:
    """Yield the ``nvidia`` folders that PyPI's packages of NVIDIA's libraries share."""
    for entry in sys.path:
        if entry and Path(entry, "nvidia").is_dir():
            yield Path(entry, "nvidia")


def _component(
    name: str, prefixes: Iterable[Path], variables: Mapping[str, str], cuda: str
) -> Component | None:
    """Find a library of CUDA's major version and its header in the same installation."""
    pairs = [
        ([prefix / part for part in _INCLUDES], [prefix / part for part in _LIBRARIES])
        for prefix in prefixes
    ]
    own = (_folders(variables, "CPATH"), _folders(variables, "LIBRARY_PATH", "LD_LIBRARY_PATH"))
    for includes, libraries in [own, *pairs]:
        header = _first_file(folder / _HEADERS[name] for folder in includes)
        library = _first_file(
            path
            for folder in libraries
            for path in _library_candidates(name, folder)
            if name not in _VERSIONED_LIKE_CUDA
            or _major_version(path) in {"", cuda.partition(".")[0]}
        )
        if header is not None and library is not None:
            return Component(header.parent, library)
    return None


def _library_candidates(name: str, folder: Path) -> list[Path]:
    # PyPI's packages contain the library under its versioned name only, not the linker's name.
    return [folder / f"lib{name}.so", *sorted(folder.glob(f"lib{name}.so.[0-9]*"))]


def _major_version(library: Path) -> str:
    """Return the major version in a library's file name; "" if it has none."""
    match = re.search(r"\.so\.(\d+)", library.resolve().name)
    return match[1] if match else ""


def _folders(variables: Mapping[str, str], *names: str) -> list[Path]:
    texts = [text for name in names for text in variables.get(name, "").split(os.pathsep)]
    return [Path(text).absolute() for text in texts if text]


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _cudnn_version(cudnn: Component | None) -> str:
    if cudnn is None:
        return ""
    for name in ("cudnn_version.h", "cudnn.h"):
        path = cudnn.header_folder / name
        version = parse_cudnn_version(path.read_text(errors="replace")) if path.is_file() else ""
        if version:
            return version
    return ""


def _driver_library(variables: Mapping[str, str], system: Sequence[Path]) -> Path | None:
    folders = [root / part for root in system for part in _DRIVER_FOLDERS]
    folders += _folders(variables, "LD_LIBRARY_PATH")
    return _first_file(folder / "libcuda.so.1" for folder in folders if folder.name != "stubs")


def _opencv_version(search_path: str) -> str:
    tool = shutil.which("pkg-config", path=search_path)
    if tool is None:
        return ""
    for package in _OPENCV_PACKAGES:
        version = parse_version(_output_of([tool, "--modversion", package]))
        if version:
            return version
    return ""


def _processor_features() -> set[str]:
    flags = re.search(r"^flags\s*:(.*)$", text_or_empty(Path("/proc/cpuinfo")), re.MULTILINE)
    return set(flags[1].split()) if flags else set()
