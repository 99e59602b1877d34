"""Building darknet from its sources, in a folder of its own, with the log kept."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from oiyolo import files, process, stamps
from oiyolo.errors import DarknetError

_log = logging.getLogger("oiyolo")

BUILD_LOG: Final = "build.log"
_STAMP: Final = ".built-from.json"
_SOURCE_SUFFIXES: Final = (".c", ".cu", ".h", ".cpp", ".hpp", ".cuh")
_BUILD_TIMEOUT_S: Final = 3600.0
_LAST_LINES: Final = 8
_CUDA_INCLUDES: Final = ("/usr/local/cuda/include", "/usr/local/cudnn/include")


@dataclass(frozen=True)
class Flags:
    """The switches of darknet's Makefile."""

    GPU: int = 0
    CUDNN: int = 0
    OPENCV: int = 0
    OPENMP: int = 0
    AVX: int = 0
    ARCH: str = ""
    NVCC: str = ""

    def arguments(self) -> list[str]:
        """Give them as ``make`` takes them."""
        return [f"{name}={value}" for name, value in asdict(self).items() if value != ""]


def has_sources(folder: Path) -> bool:
    """Tell whether a folder holds darknet's sources (an empty submodule does not)."""
    return (folder / "Makefile").is_file() and (folder / "src" / "gemm.c").is_file()


def choose_flags(build_gpu: str) -> Flags:
    """Choose the switches for this machine.

    Args:
        build_gpu: "yes", "no", or "auto": for CUDA where its compiler and a GPU are found.

    Raises:
        DarknetError: CUDA was asked for and its compiler is not here.
    """
    processor = _processor_flags()
    avx = int({"avx", "avx2", "fma"} <= processor)
    cpu_only = Flags(OPENMP=1, AVX=avx)
    if build_gpu == "no":
        return cpu_only
    compiler = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    capabilities = _compute_capabilities()
    if build_gpu == "auto" and not (compiler and capabilities):
        return cpu_only
    if not compiler:
        raise DarknetError(
            "CUDA's compiler nvcc was not found, so darknet cannot be built for a GPU",
            remedy="Install the CUDA toolkit, or set [darknet] build_gpu to auto or no",
        )
    if not capabilities:
        raise DarknetError(
            "no GPU answered nvidia-smi, so it is not known what to build for",
            remedy="Install the driver, or set [darknet] build_gpu to auto or no",
        )
    numbers = [capability.replace(".", "") for capability in capabilities]
    arch = " ".join(f"-gencode arch=compute_{n},code=[sm_{n},compute_{n}]" for n in numbers)
    return Flags(GPU=1, CUDNN=_has_cudnn(), OPENMP=1, AVX=avx, ARCH=arch, NVCC=compiler)


def build(source: Path, folder: Path, flags: Flags) -> Path:
    """Build darknet from a copy of its sources; nothing is done when nothing changed.

    Args:
        source: The sources; they stay as they are.
        folder: Where the copy is built.
        flags: The Makefile's switches.

    Returns:
        The executable.

    Raises:
        DarknetError: A tool is missing, or the build failed; the message has its last lines.
    """
    executable = folder / "darknet"
    made_from = _made_from(source, flags)
    reason = stale_reason(source, folder, flags)
    if reason is None:
        return executable
    for tool in ("make", "gcc", "g++"):
        if shutil.which(tool) is None:
            raise DarknetError(
                f"{tool} is needed to build darknet and was not found",
                remedy="On Debian or Ubuntu: apt-get install build-essential",
            )
    _log.info("build: %s; building darknet from %s", reason, source)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "*.o", "*.so"))
    for made in ("obj", "backup", "results"):  # with -j the Makefile may use them before it has
        (folder / made).mkdir(exist_ok=True)
    done = process.run(
        ["make", f"-j{os.cpu_count() or 1}", *flags.arguments()],
        cwd=folder,
        timeout_s=_BUILD_TIMEOUT_S,
    )
    log_path = folder / BUILD_LOG
    files.write_text(log_path, done.output)
    if done.exit_code != 0 or not executable.is_file():
        last = "\n".join(done.output.strip().splitlines()[-_LAST_LINES:])
        raise DarknetError(
            f"darknet could not be built ({done.ended})",
            where=str(source),
            found=f"at the end of {log_path}:\n{last}\n",
            remedy="Set [darknet] build_gpu to no for a build without a GPU, or [darknet] "
            "executable to a darknet that works",
        )
    stamps.write(folder / _STAMP, made_from)
    return executable


def stale_reason(source: Path, folder: Path, flags: Flags) -> str | None:
    """Tell why darknet would be built; ``None`` if what lies in the folder is up to date."""
    reason = stamps.stale_reason(folder / _STAMP, _made_from(source, flags))
    if reason is None and not (folder / "darknet").is_file():
        return "the executable is gone"
    return reason


def _made_from(source: Path, flags: Flags) -> dict[str, object]:
    compiler = process.run(["gcc", "--version"]).output.partition("\n")[0]
    return {"sources": _fingerprint(source), "flags": asdict(flags), "compiler": compiler}


def _fingerprint(source: Path) -> str:
    """Give a digest of the sources' names, sizes and times."""
    found = {}
    for path in sorted(source.rglob("*")):
        if path.suffix in _SOURCE_SUFFIXES or path.name == "Makefile":
            status = path.stat()
            found[str(path.relative_to(source))] = (status.st_size, status.st_mtime_ns)
    return stamps.fingerprint(found)


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    flags = [line for line in text.splitlines() if line.startswith("flags")]
    return set(flags[0].split()) if flags else set()


def _compute_capabilities() -> list[str]:
    """Give the GPUs' compute capabilities, such as "8.6", each once."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    answer = process.run(asked, timeout_s=30.0)
    if answer.exit_code != 0:
        return []
    return sorted({line.strip() for line in answer.output.splitlines() if line.strip()})


def _has_cudnn() -> int:
    folders = ("/usr/include", "/usr/include/x86_64-linux-gnu", *_CUDA_INCLUDES)
    return int(any((Path(folder) / "cudnn.h").is_file() for folder in folders))
