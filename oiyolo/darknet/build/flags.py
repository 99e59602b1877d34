"""Choose the build flags for a machine. No side effects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.errors import DarknetError
from oiyolo.core.results import pluralize
from oiyolo.darknet.build.toolchain import version_tuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.networks.lint import ForkName

STILL_SUPPORTED: Final = ""
CUDA_SUPPORT: Final[Mapping[str, tuple[str, str]]] = {
    "20": ("3.0", "8.0"),
    "21": ("3.1", "8.0"),
    "30": ("4.2", "10.2"),
    "32": ("6.0", "10.2"),
    "35": ("5.0", "11.8"),
    "37": ("6.5", "11.8"),
    "50": ("6.0", "12.9"),
    "52": ("6.5", "12.9"),
    "53": ("7.0", "12.9"),
    "60": ("8.0", "12.9"),
    "61": ("8.0", "12.9"),
    "62": ("8.0", "12.9"),
    "70": ("9.0", "12.9"),
    "72": ("9.2", "12.9"),
    "75": ("10.0", STILL_SUPPORTED),
    "80": ("11.0", STILL_SUPPORTED),
    "86": ("11.1", STILL_SUPPORTED),
    "87": ("11.4", STILL_SUPPORTED),
    "88": ("13.0", STILL_SUPPORTED),
    "89": ("11.8", STILL_SUPPORTED),
    "90": ("11.8", STILL_SUPPORTED),
    "100": ("12.8", STILL_SUPPORTED),
    "103": ("12.9", STILL_SUPPORTED),
    "110": ("13.0", STILL_SUPPORTED),
    "120": ("12.8", STILL_SUPPORTED),
    "121": ("12.9", STILL_SUPPORTED),
}
"""First and last CUDA version that compiles for each compute capability; ``STILL_SUPPORTED`` where
none has dropped it. Source: NVIDIA's release notes (CUDA 9 dropped Fermi, 11 and 12 Kepler, 13
Maxwell, Pascal and Volta).
"""

_MIN_TENSOR_CORE_CAPABILITY: Final = 70
"""Tensor cores came with Volta (compute capability 7.0)."""
_FIRST_INCOMPATIBLE_CUDNN: Final = 8
"""pjreddie's darknet calls ``cudnnGetConvolutionForwardAlgorithm`` and uses its constants, which
cuDNN 8 dropped."""
_CUDA_WITHOUT_THREAD_SYNCHRONIZE: Final = 13
_OPENCV_MAJORS: Final = ("2", "3", "4")
"""AlexeyAB's Makefile compiles as C++11, which OpenCV 5's headers do not support."""

LOADERS_PER_GPU: Final = 6
"""Threads that load and augment images for a GPU (src/detector.c in AlexeyAB's darknet with OpenCV,
src-lib/detector.cpp in hank-ai's)."""


@dataclass(frozen=True)
class Flags:
    """The flags of a build, for make and CMake alike.

    Attributes:
        gpu: Whether to compute on NVIDIA GPUs.
        cudnn: Whether to use cuDNN on the GPU.
        cudnn_half: Whether to use tensor cores on the GPU.
        opencv: Whether to read and augment images with OpenCV.
        openmp: Whether to use all processors.
        avx: Whether to use the processor's AVX2 instructions.
        architectures: Compute capabilities to compile for, such as "86", in ascending order.
        synchronize_by_device: Whether to replace ``cudaThreadSynchronize``, which CUDA 13 dropped,
            by ``cudaDeviceSynchronize``.
    """

    gpu: bool = False
    cudnn: bool = False
    cudnn_half: bool = False
    opencv: bool = False
    openmp: bool = False
    avx: bool = False
    architectures: tuple[str, ...] = ()
    synchronize_by_device: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return the flags as JSON-compatible values."""
        return {**asdict(self), "architectures": list(self.architectures)}

    def __str__(self) -> str:
        capabilities = ", ".join(map(format_capability, self.architectures))
        words = [f"CUDA for compute capability {capabilities}" if self.gpu else "CPU only"]
        words += ["cuDNN"] * self.cudnn + ["tensor cores"] * self.cudnn_half
        words += ["OpenCV"] * self.opencv + ["OpenMP"] * self.openmp + ["AVX2"] * self.avx
        return ", ".join(words)


@dataclass(frozen=True)
class FlagChoice:
    """Build flags, with notes for the user.

    Attributes:
        flags: The build flags.
        notes: Sentences about the choice, without a full stop.
    """

    flags: Flags
    notes: tuple[str, ...] = ()


def format_capability(architecture: str) -> str:
    """Return "86" as NVIDIA writes it: "8.6"."""
    return f"{architecture[:-1]}.{architecture[-1]}"


def supported_architectures(toolchain: Toolchain) -> tuple[str, ...]:
    """Return the compute capabilities nvcc compiles for: its own list, or else by its version."""
    if toolchain.architectures:
        return toolchain.architectures
    cuda = version_tuple(toolchain.cuda)
    return tuple(
        architecture
        for architecture, (first, last) in CUDA_SUPPORT.items()
        if version_tuple(first) <= cuda and (last == STILL_SUPPORTED or cuda <= version_tuple(last))
    )


def architecture_for(toolchain: Toolchain, capability: str) -> str | None:
    """Return the newest architecture to compile for that a GPU can run, or ``None``.

    A GPU that is newer than this CUDA runs the code for an older one. NVIDIA's driver recompiles it
    at the first start.

    Args:
        toolchain: The toolchain.
        capability: Compute capability of the GPU, such as "86".
    """
    _, last = CUDA_SUPPORT.get(capability, ("", STILL_SUPPORTED))
    if last != STILL_SUPPORTED and version_tuple(last) < version_tuple(toolchain.cuda):
        return None
    older = (a for a in supported_architectures(toolchain) if int(a) <= int(capability))
    return max(older, key=int, default=None)


def choose(
    toolchain: Toolchain,
    fork: ForkName,
    *,
    build_gpu: str = "auto",
    arch: Sequence[str] = (),
) -> FlagChoice:
    """Choose the build flags for a toolchain and a fork.

    Args:
        toolchain: The toolchain of the machine.
        fork: The fork of darknet to build.
        build_gpu: "yes", "no", or "auto": for CUDA if both nvcc and a GPU are found.
        arch: Compute capabilities to compile for, such as "86"; those of the machine's GPUs if
            empty.

    Raises:
        DarknetError: A CUDA build is required, and part of CUDA is missing or this CUDA version
            does not support the GPU.
    """
    host = _host_flags(toolchain, fork)
    cpu_notes = {"no": (), "auto": _cpu_only_notes(toolchain, arch)}.get(build_gpu)
    if cpu_notes is not None:
        return FlagChoice(host, cpu_notes)
    if toolchain.nvcc is None or not toolchain.cuda:
        raise DarknetError(
            "CUDA's compiler nvcc was not found, so darknet cannot be built for a GPU",
            expected="nvcc in CUDA_HOME, on PATH, or in /usr/local/cuda/bin",
            remedy="Install the CUDA toolkit, or set [darknet] build_gpu to auto or no",
        )
    architectures, notes = _architectures(toolchain, arch)
    if toolchain.missing:
        raise DarknetError(
            f"CUDA {toolchain.cuda}: libraries or headers that darknet needs are missing",
            where=str(toolchain.nvcc),
            expected="cudart, cublas and curand of this CUDA",
            found=f"no {', '.join(toolchain.missing)}",
            remedy=_install_command(toolchain) + "; or set [darknet] build_gpu to no",
        )
    major = version_tuple(toolchain.cudnn)[:1]
    too_new = fork == "pjreddie" and major >= (_FIRST_INCOMPATIBLE_CUDNN,)
    if too_new:
        notes += (
            f"cuDNN {toolchain.cudnn} is not used: pjreddie's darknet supports it up to version 7",
        )
    advice = filter(None, [slow_augmentation(toolchain, fork), few_cores(toolchain)])
    notes += tuple(f"{a.problem}. {a.remedy}" for a in advice)
    cudnn = bool(toolchain.cudnn) and not too_new
    oldest = min(map(int, architectures))
    return FlagChoice(
        replace(
            host,
            gpu=True,
            cudnn=cudnn,
            cudnn_half=cudnn and fork != "pjreddie" and oldest >= _MIN_TENSOR_CORE_CAPABILITY,
            architectures=architectures,
            synchronize_by_device=fork == "pjreddie"
            and version_tuple(toolchain.cuda) >= (_CUDA_WITHOUT_THREAD_SYNCHRONIZE,),
        ),
        notes,
    )


class Advice(NamedTuple):
    """What slows darknet down on a machine, and what to do; without full stops."""

    problem: str
    remedy: str


def slow_augmentation(toolchain: Toolchain, fork: ForkName) -> Advice | None:
    """Return advice if a build cannot augment images with OpenCV, else ``None``.

    AlexeyAB's README says that OpenCV makes augmentation 3.5 times faster.
    """
    if fork != "alexeyab" or _host_flags(toolchain, fork).opencv:
        return None
    found = f"OpenCV {toolchain.opencv} is too new" if toolchain.opencv else "none was found"
    return Advice(
        "AlexeyAB's darknet augments images about three times faster with OpenCV 2 to 4 and its "
        f"headers, but {found}",
        "On Debian or Ubuntu: apt-get install libopencv-dev, then `oiyolo build`",
    )


def few_cores(toolchain: Toolchain) -> Advice | None:
    """Return advice if the machine has few CPU cores for its GPUs, else ``None``."""
    wanted = LOADERS_PER_GPU * len(toolchain.gpus)
    if toolchain.cpus >= wanted:
        return None
    return Advice(
        f"{pluralize(toolchain.cpus, 'CPU core')} for {pluralize(len(toolchain.gpus), 'GPU')}, "
        f"where darknet loads images with {wanted} threads: the GPU may wait for images",
        "Use a machine with more cores, or prepare smaller images ([images] size)",
    )


def _host_flags(toolchain: Toolchain, fork: ForkName) -> Flags:
    # pjreddie's fork reads images with OpenCV's old C interface, which OpenCV 3 removed, and has
    # no flag for AVX. hank-ai's requires OpenCV.
    opencv = toolchain.opencv.partition(".")[0] in _OPENCV_MAJORS
    return Flags(
        opencv=fork == "hank" or (fork == "alexeyab" and opencv),
        openmp=True,
        avx=fork != "pjreddie" and set(toolchain.processor) >= {"avx", "avx2", "fma"},
    )


def _cpu_only_notes(toolchain: Toolchain, arch: Sequence[str]) -> tuple[str, ...] | None:
    """Return, for "auto", the notes of a CPU build; ``None`` if the build is for a GPU."""
    if toolchain.gpus and toolchain.nvcc is None:
        gpu = toolchain.gpus[0].name
        return (f"no nvcc was found; install the CUDA toolkit to build for {gpu}",)
    if toolchain.nvcc is not None and not toolchain.gpus:
        cuda = toolchain.cuda
        options = "--build-gpu yes" if arch else "--build-gpu yes and --arch"
        return (f"no GPU detected; to use CUDA {cuda} anyway, pass {options}",)
    return None if toolchain.gpus else ()


def _architectures(
    toolchain: Toolchain, arch: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the compute capabilities to compile for, in ascending order, and the notes."""
    if not arch:
        return _architectures_of_gpus(toolchain)
    supported = supported_architectures(toolchain)
    for architecture in arch:
        if architecture not in supported:
            raise _unsupported_error(toolchain, architecture)
    return tuple(sorted(set(arch), key=int)), ()


def _architectures_of_gpus(toolchain: Toolchain) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the same as ``_architectures`` for the machine's GPUs."""
    chosen: set[str] = set()
    notes: list[str] = []
    errors: list[DarknetError] = []
    for gpu in toolchain.gpus:
        capability = gpu.compute_capability.replace(".", "")
        if not capability.isdigit():  # "[N/A]" from a driver that is too old
            continue
        best = architecture_for(toolchain, capability)
        if best is None:
            errors.append(_unsupported_error(toolchain, capability, gpu.name))
            continue
        chosen.add(best)
        if best != capability:
            notes.append(
                f"CUDA {toolchain.cuda} does not support {gpu.name} ({gpu.compute_capability}) "
                f"yet; building for {format_capability(best)}, which the driver recompiles at the "
                "first start"
            )
    if errors and not chosen:
        raise errors[0]
    if not chosen:
        raise DarknetError(
            "nvidia-smi reports no GPU, so the compute capability to build for is unknown",
            remedy="Pass the compute capability, such as --arch 8.6; or install the NVIDIA driver; "
            "or set [darknet] build_gpu to auto or no",
        )
    notes += [f"{error.what}; this GPU cannot be used" for error in errors]
    return tuple(sorted(chosen, key=int)), tuple(dict.fromkeys(notes))


def _unsupported_error(toolchain: Toolchain, architecture: str, gpu: str = "a GPU") -> DarknetError:
    supported = map(format_capability, supported_architectures(toolchain))
    return DarknetError(
        f"CUDA {toolchain.cuda} does not compile for {gpu} of compute capability "
        f"{format_capability(architecture)}",
        where=str(toolchain.nvcc),
        expected=f"one of {', '.join(supported)}",
        remedy=architecture_remedy(architecture),
    )


def architecture_remedy(architecture: str) -> str:
    """Return advice on which CUDA version compiles for an architecture, such as "37"."""
    first, last = CUDA_SUPPORT.get(architecture, ("", STILL_SUPPORTED))
    if last != STILL_SUPPORTED:
        which = f"CUDA {last} is the last version that supports it"
    elif first:
        which = f"CUDA {first} is the first version that supports it"
    else:
        return (
            "Pass your GPU's compute capability with --arch (`nvidia-smi --query-gpu=compute_cap "
            "--format=csv` prints it)"
        )
    return f"{which}: install it and point CUDA_HOME at it, or set [darknet] build_gpu to no"


def _install_command(toolchain: Toolchain) -> str:
    """Return advice on which packages to install."""
    major, minor, *_ = (*version_tuple(toolchain.cuda), 0, 0)
    debian = " ".join(f"{name}-dev-{major}-{minor}" for name in ("libcublas", "libcurand"))
    python = (
        "nvidia-cublas nvidia-curand"
        if major >= _CUDA_WITHOUT_THREAD_SYNCHRONIZE
        else f"nvidia-cublas-cu{major} nvidia-curand-cu{major}"
    )
    return (
        f"Install them from NVIDIA's repository (apt-get install {debian}) or with "
        f"`pip install {python}`"
    )
