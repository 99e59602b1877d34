"""What this machine has to build darknet with: compilers, CUDA and its libraries, OpenCV, GPUs.

Nothing is decided here, and nothing is changed; ``flags`` decides, ``doctor`` shows.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process
from oiyolo.darknet import gpus as gpus_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from oiyolo.darknet.gpus import Gpu

_TIMEOUT_S: Final = 30.0
_TRIPLET: Final = f"{platform.machine()}-linux-gnu"
_TARGET: Final = f"targets/{platform.machine()}-linux"
_INCLUDES: Final = ("include", f"{_TARGET}/include", f"include/{_TRIPLET}")
_LIBRARIES: Final = ("lib64", "lib", f"{_TARGET}/lib", f"lib/{_TRIPLET}")
_SYSTEM: Final = (Path("/usr/local"), Path("/usr"))
_DRIVER_FOLDERS: Final = (
    f"lib/{_TRIPLET}",
    "lib64",
    "lib",
    "lib/wsl/lib",  # Windows' subsystem for Linux
    f"lib/{_TRIPLET}/nvidia/current",  # Debian
    "nvidia/lib64",  # containers on Google's Kubernetes
)
_HEADERS: Final = {
    "cudart": "cuda_runtime.h",
    "cublas": "cublas_v2.h",
    "curand": "curand.h",
    "cudnn": "cudnn.h",
}
_NAMED_AFTER_CUDA: Final = ("cudart", "cublas")
"""Libraries whose major version is CUDA's own; cuRAND and cuDNN count on their own."""
_PROCESSOR_WORDS: Final = frozenset({"avx", "avx2", "fma"})
_OPENCV_PACKAGES: Final = ("opencv4", "opencv5", "opencv")


@dataclass(frozen=True)
class Component:
    """A library of CUDA's with its header, both from one place.

    Attributes:
        header_folder: Where its header lies.
        library: The shared library itself.
    """

    header_folder: Path
    library: Path


@dataclass(frozen=True)
class Toolchain:
    """What there is; a version is an empty text where the thing is absent.

    Attributes:
        gcc: Its version, such as "12.2.0".
        gxx: g++'s.
        make: Make's.
        cmake: CMake's.
        git: Git's.
        nvcc: CUDA's compiler.
        cuda: Its version, such as "13.0".
        architectures: The compute capabilities that it compiles for, as "75"; ascending. Empty
            where it does not tell them (before CUDA 11).
        components: CUDA's libraries that have their header and are of its version, by name:
            cudart, cublas, curand, cudnn.
        cudnn: cuDNN's version, such as "9.28.0".
        driver_library: The driver's ``libcuda.so.1``; programs for CUDA do not start without.
        stub_library: The toolkit's stand-in for it, to link where there is no driver.
        opencv: OpenCV's version, where it can be compiled against.
        gpus: The GPUs that the driver knows.
        processor: Which of avx, avx2 and fma the processor has, sorted.
        cpus: How many processors we may use.
        memory_bytes: How much memory is free for compilers; 0 where it is not known.
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
        """What darknet needs of CUDA and is not here, by name: cudart, cublas, curand."""
        needed = (name for name in _HEADERS if name != "cudnn")
        return tuple(name for name in needed if name not in self.components)

    @property
    def has_driver(self) -> bool:
        """Whether a program for CUDA can start here."""
        return self.driver_library is not None

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The GPUs' compute capabilities, each once, ascending, such as "8.6"."""
        found = {gpu.compute_capability for gpu in self.gpus}
        return tuple(sorted(found, key=lambda text: numbers(text) or (0,)))

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def numbers(version: str) -> tuple[int, ...]:
    """Give a version as numbers that compare: "12.10" is above "12.9"; () for none."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def find(
    environment: Mapping[str, str] | None = None, *, system: Sequence[Path] = _SYSTEM
) -> Toolchain:
    """Look at this machine.

    Args:
        environment: Its variables; those of this process when left out.
        system: The folders that hold the system's ``include`` and ``lib``.
    """
    variables = os.environ if environment is None else environment
    search = variables.get("PATH", "")
    nvcc = _find_nvcc(variables, system)
    cuda = "" if nvcc is None else parse_cuda_version(_said([str(nvcc), "--version"]))
    prefixes = [] if nvcc is None else [_toolkit_of(nvcc)]
    prefixes += [*_named_prefixes(variables), *_wheels(cuda), *_system_prefixes(system)]
    components = {
        name: found
        for name in _HEADERS
        if cuda and (found := _component(name, prefixes, variables, cuda)) is not None
    }
    return Toolchain(
        gcc=_version_of("gcc", search),
        gxx=_version_of("g++", search),
        make=_version_of("make", search),
        cmake=_version_of("cmake", search),
        git=_version_of("git", search),
        nvcc=nvcc,
        cuda=cuda,
        architectures=()
        if nvcc is None
        else parse_architectures(_said([str(nvcc), "--list-gpu-arch"])),
        components=components,
        cudnn=_cudnn_version(components.get("cudnn")),
        driver_library=_driver_library(variables, system),
        stub_library=_first(
            prefix / folder / "stubs" / "libcuda.so" for prefix in prefixes for folder in _LIBRARIES
        ),
        opencv=_opencv_version(search),
        gpus=tuple(gpus_of.gpus()),
        processor=tuple(sorted(_PROCESSOR_WORDS & _processor_words())),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_free_memory_bytes(),
    )


def parse_cuda_version(said: str) -> str:
    """Give "13.0" out of what ``nvcc --version`` says; "" if it does not."""
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else ""


def parse_architectures(said: str) -> tuple[str, ...]:
    """Give "75", "80" ... out of what ``nvcc --list-gpu-arch`` says, ascending."""
    found = set(re.findall(r"^compute_(\d+)$", said, re.MULTILINE))
    return tuple(sorted(found, key=int))


def parse_cudnn_version(header: str) -> str:
    """Give "9.28.0" out of ``cudnn_version.h`` (``cudnn.h`` before cuDNN 8); "" if absent."""
    parts = [
        re.search(rf"^#define\s+CUDNN_{name}\s+(\d+)", header, re.MULTILINE)
        for name in ("MAJOR", "MINOR", "PATCHLEVEL")
    ]
    return ".".join(part[1] for part in parts if part) if all(parts) else ""


def parse_version(said: str) -> str:
    """Give the first version, such as "12.2.0", in the first line of what a program says."""
    # Who made it stands in brackets, and may have a version of its own: "gcc (NG 1.25.0) 12.2.0".
    found = re.search(r"\d+\.\d+(?:\.\d+)?", re.sub(r"\([^)]*\)", "", said.partition("\n")[0]))
    return found[0] if found else ""


def _said(argv: Sequence[str]) -> str:
    done = process.run(argv, timeout_s=_TIMEOUT_S)
    return done.output if done.exit_code == 0 else ""


def _version_of(program: str, search: str) -> str:
    path = shutil.which(program, path=search)
    return parse_version(_said([path, "--version"])) if path else ""


def _find_nvcc(variables: Mapping[str, str], system: Sequence[Path]) -> Path | None:
    """Find CUDA's compiler: by its own variables, on PATH, in an environment, where it installs."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if variables.get(name):
            found = shutil.which("nvcc", path=str(Path(variables[name], "bin")))
            if found:
                return Path(found)
    usual = [root / "cuda" / "bin" for root in system]
    numbered = [path for root in system for path in root.glob("cuda-*/bin")]
    numbered.sort(key=lambda path: numbers(path.parent.name), reverse=True)
    conda = variables.get("CONDA_PREFIX")
    wheels = [folder / "cu13" / "bin" for folder in _wheel_folders()]
    places = [*([Path(conda, "bin")] if conda else []), *usual, *numbered, *wheels]
    found = shutil.which("nvcc", path=variables.get("PATH", "")) or shutil.which(
        "nvcc", path=os.pathsep.join(map(str, places))
    )
    return Path(found) if found else None


def _toolkit_of(nvcc: Path) -> Path:
    """Give the toolkit's folder: what nvcc itself says, for it may be a script that calls it."""
    said = _said([str(nvcc), "--dryrun", "-x", "cu", "-c", "/dev/null", "-o", "/dev/null"])
    top = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return Path(top[1].strip()).resolve() if top else nvcc.resolve().parents[1]


def _named_prefixes(variables: Mapping[str, str]) -> list[Path]:
    names = ("CUDA_HOME", "CUDA_PATH", "CUDNN_HOME", "CUDNN_PATH", "CONDA_PREFIX")
    return [Path(variables[name]) for name in names if variables.get(name)]


def _system_prefixes(system: Sequence[Path]) -> list[Path]:
    return [path for root in system for path in (root / "cuda", root / "cudnn", root)]


def _wheel_folders() -> Iterator[Path]:
    """Give the folders that PyPI's packages of NVIDIA's libraries share."""
    for entry in sys.path:
        if entry and Path(entry, "nvidia").is_dir():
            yield Path(entry, "nvidia")


def _wheels(cuda: str) -> list[Path]:
    """Give what PyPI's packages hold for a version of CUDA: one folder for all since CUDA 13."""
    major = cuda.partition(".")[0]
    names = (f"cu{major}", "cuda_runtime", "cublas", "curand", "cudnn")
    return [folder / name for folder in _wheel_folders() for name in names]


def _component(
    name: str, prefixes: Iterable[Path], variables: Mapping[str, str], cuda: str
) -> Component | None:
    """Find a library and its header in one place; never one of another major version."""
    pairs = [
        ([prefix / part for part in _INCLUDES], [prefix / part for part in _LIBRARIES])
        for prefix in prefixes
    ]
    own = (_folders(variables, "CPATH"), _folders(variables, "LIBRARY_PATH", "LD_LIBRARY_PATH"))
    for includes, libraries in [own, *pairs]:
        header = _first(folder / _HEADERS[name] for folder in includes)
        library = _first(
            path
            for folder in libraries
            for path in _libraries_named(name, folder)
            if name not in _NAMED_AFTER_CUDA or _major(path) in {"", cuda.partition(".")[0]}
        )
        if header is not None and library is not None:
            return Component(header.parent, library)
    return None


def _libraries_named(name: str, folder: Path) -> list[Path]:
    # PyPI's packages have the library under its full name only, without the link for linkers.
    return [folder / f"lib{name}.so", *sorted(folder.glob(f"lib{name}.so.[0-9]*"))]


def _major(library: Path) -> str:
    """Give the major version in a library's own name; "" if it has none."""
    found = re.search(r"\.so\.(\d+)", library.resolve().name)
    return found[1] if found else ""


def _folders(variables: Mapping[str, str], *names: str) -> list[Path]:
    texts = [text for name in names for text in variables.get(name, "").split(os.pathsep)]
    return [Path(text) for text in texts if text]


def _first(paths: Iterable[Path]) -> Path | None:
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
    return _first(folder / "libcuda.so.1" for folder in folders if folder.name != "stubs")


def _opencv_version(search: str) -> str:
    tool = shutil.which("pkg-config", path=search)
    if tool is None:
        return ""
    for package in _OPENCV_PACKAGES:
        version = parse_version(_said([tool, "--modversion", package]))
        if version:
            return version
    return ""


def _processor_words() -> set[str]:
    flags = re.search(r"^flags\s*:(.*)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def _free_memory_bytes() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
