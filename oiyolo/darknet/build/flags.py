"""The switches of a build, chosen for a machine; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from oiyolo.darknet.build.toolchain import numbers
from oiyolo.core.errors import DarknetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.networks.lint import DarknetLine

NEVER: Final = ""
SERVED: Final[Mapping[str, tuple[str, str]]] = {
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
    "75": ("10.0", NEVER),
    "80": ("11.0", NEVER),
    "86": ("11.1", NEVER),
    "87": ("11.4", NEVER),
    "88": ("13.0", NEVER),
    "89": ("11.8", NEVER),
    "90": ("11.8", NEVER),
    "100": ("12.8", NEVER),
    "103": ("12.9", NEVER),
    "110": ("13.0", NEVER),
    "120": ("12.8", NEVER),
    "121": ("12.9", NEVER),
}
"""The first and the last CUDA toolkit that compile for a compute capability; ``NEVER``: all since.
From NVIDIA's release notes: CUDA 9 dropped Fermi, 11 and 12 Kepler, 13 Maxwell, Pascal and Volta.
"""

_HALF_FROM: Final = 70
"""Tensor cores came with Volta (compute capability 7.0)."""
_FIRST_CUDNN_PJREDDIE_CANNOT: Final = 8
"""It calls ``cudnnGetConvolutionForwardAlgorithm`` and its constants, which cuDNN 8 dropped."""
_CUDA_WITHOUT_THREAD_SYNCHRONIZE: Final = 13
_OPENCV_MAJORS: Final = ("2", "3", "4")
"""AlexeyAB's Makefile compiles in C++11, which OpenCV 5's headers do not take."""


@dataclass(frozen=True)
class Flags:
    """The switches of one build, whichever tool carries it out.

    Attributes:
        gpu: Compute on NVIDIA's GPUs.
        cudnn: Use cuDNN for it.
        cudnn_half: Use tensor cores for it.
        opencv: Read and augment images with OpenCV.
        openmp: Use all processors.
        avx: Use the processor's AVX2.
        architectures: Compute capabilities to compile for, as "86"; ascending.
        synchronize_by_device: Give the sources today's name of a function that CUDA 13 dropped.
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
        """Give them as JSON knows them."""
        return {**asdict(self), "architectures": list(self.architectures)}

    def __str__(self) -> str:
        served = ", ".join(map(dotted, self.architectures))
        words = [f"CUDA for compute capability {served}" if self.gpu else "CPU only"]
        words += ["cuDNN"] * self.cudnn + ["tensor cores"] * self.cudnn_half
        words += ["OpenCV"] * self.opencv + ["OpenMP"] * self.openmp + ["AVX2"] * self.avx
        return ", ".join(words)


@dataclass(frozen=True)
class Choice:
    """Switches, and what a person should know about them.

    Attributes:
        flags: The switches.
        notes: Sentences without their full stop.
    """

    flags: Flags
    notes: tuple[str, ...] = ()


def dotted(architecture: str) -> str:
    """Give "86" as NVIDIA writes it: "8.6"."""
    return f"{architecture[:-1]}.{architecture[-1]}"


def known_architectures(toolchain: Toolchain) -> tuple[str, ...]:
    """Give what nvcc compiles for: as it says itself, or by its version where it does not."""
    if toolchain.architectures:
        return toolchain.architectures
    cuda = numbers(toolchain.cuda)
    return tuple(
        architecture
        for architecture, (first, last) in SERVED.items()
        if numbers(first) <= cuda and (last == NEVER or cuda <= numbers(last))
    )


def choose(
    toolchain: Toolchain,
    line: DarknetLine,
    *,
    build_gpu: str = "auto",
    arch: Sequence[str] = (),
) -> Choice:
    """Choose the switches.

    Args:
        toolchain: What the machine has.
        line: The line of darknet that the sources are.
        build_gpu: "yes", "no", or "auto": for CUDA where its compiler and a GPU are found.
        arch: Compute capabilities to compile for, as "86"; those of the machine's GPUs if empty.

    Raises:
        DarknetError: CUDA is to be used, and something that this takes is missing, or CUDA's
            version does not serve the GPU.
    """
    host = _host_flags(toolchain, line)
    why_not = {"no": (), "auto": _why_not_gpu(toolchain)}.get(build_gpu)
    if why_not is not None:
        return Choice(host, why_not)
    if toolchain.nvcc is None or not toolchain.cuda:
        raise DarknetError(
            "CUDA's compiler nvcc was not found, so darknet cannot be built for a GPU",
            expected="nvcc in CUDA_HOME, on PATH, or in /usr/local/cuda/bin",
            remedy="Install the CUDA toolkit, or set [darknet] build_gpu to auto or no",
        )
    architectures, notes = _architectures(toolchain, arch)
    if toolchain.missing:
        raise DarknetError(
            f"CUDA {toolchain.cuda} lacks libraries or headers that darknet needs",
            where=str(toolchain.nvcc),
            expected="cudart, cublas and curand of this CUDA",
            found=f"no {', '.join(toolchain.missing)}",
            remedy=_packages(toolchain) + "; or set [darknet] build_gpu to no",
        )
    major = numbers(toolchain.cudnn)[:1]
    too_new = line == "pjreddie" and major >= (_FIRST_CUDNN_PJREDDIE_CANNOT,)
    if too_new:
        notes += (
            f"cuDNN {toolchain.cudnn} is not used: pjreddie's darknet knows it up to version 7",
        )
    cudnn = bool(toolchain.cudnn) and not too_new
    oldest = min(map(int, architectures))
    return Choice(
        replace(
            host,
            gpu=True,
            cudnn=cudnn,
            cudnn_half=cudnn and line != "pjreddie" and oldest >= _HALF_FROM,
            architectures=architectures,
            synchronize_by_device=line == "pjreddie"
            and numbers(toolchain.cuda) >= (_CUDA_WITHOUT_THREAD_SYNCHRONIZE,),
        ),
        notes,
    )


def _host_flags(toolchain: Toolchain, line: DarknetLine) -> Flags:
    # pjreddie's reads images with OpenCV's old C interface, which is gone since OpenCV 3, and has
    # no switch for AVX. hank-ai's cannot do without OpenCV.
    opencv = toolchain.opencv.partition(".")[0] in _OPENCV_MAJORS
    return Flags(
        opencv=line == "hank" or (line == "alexeyab" and opencv),
        openmp=True,
        avx=line != "pjreddie" and set(toolchain.processor) >= {"avx", "avx2", "fma"},
    )


def _why_not_gpu(toolchain: Toolchain) -> tuple[str, ...] | None:
    """Tell, for "auto", why it is not built for a GPU; ``None``: it is."""
    if toolchain.gpus and toolchain.nvcc is None:
        gpu = toolchain.gpus[0].name
        return (f"no nvcc was found; install the CUDA toolkit to build for {gpu}",)
    if toolchain.nvcc is not None and not toolchain.gpus:
        cuda = toolchain.cuda
        return (f"no GPU answered; --build-gpu yes and --arch use CUDA {cuda} nevertheless",)
    return None if toolchain.gpus else ()


def _architectures(
    toolchain: Toolchain, arch: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give what to compile for, ascending, and what to say about it."""
    known = known_architectures(toolchain)
    if arch:
        wrong = [wish for wish in arch if wish not in known]
        if wrong:
            raise _not_served(toolchain, wrong[0], known, "")
        return tuple(sorted(set(arch), key=int)), ()
    chosen: set[str] = set()
    notes: list[str] = []
    refused: list[DarknetError] = []
    for gpu in toolchain.gpus:
        wish = gpu.compute_capability.replace(".", "")
        if not wish.isdigit():  # "[N/A]" from a driver that is too old to be asked
            continue
        best = max((a for a in known if int(a) <= int(wish)), key=int, default=None)
        if best is None or (wish in SERVED and _last_is_past(toolchain, wish)):
            refused.append(_not_served(toolchain, wish, known, gpu.name))
            continue
        chosen.add(best)
        if best != wish:
            notes.append(
                f"CUDA {toolchain.cuda} does not know {gpu.name} ({gpu.compute_capability}) yet; "
                f"built for {dotted(best)}, which its driver compiles anew at the first start"
            )
    if refused and not chosen:
        raise refused[0]
    if not chosen:
        raise _no_gpu_answered()
    notes += [f"{error.what}; it cannot be trained on" for error in refused]
    return tuple(sorted(chosen, key=int)), tuple(dict.fromkeys(notes))


def _no_gpu_answered() -> DarknetError:
    return DarknetError(
        "no GPU answered nvidia-smi, so it is not known what to build for",
        remedy="Give the compute capability, such as --arch 8.6; or install the driver; or set "
        "[darknet] build_gpu to auto or no",
    )


def _last_is_past(toolchain: Toolchain, architecture: str) -> bool:
    last = SERVED[architecture][1]
    return last != NEVER and numbers(last) < numbers(toolchain.cuda)


def _not_served(
    toolchain: Toolchain, architecture: str, known: Sequence[str], gpu: str
) -> DarknetError:
    return DarknetError(
        f"CUDA {toolchain.cuda} does not compile for {gpu or 'a GPU'} of compute capability "
        f"{dotted(architecture)}",
        where=str(toolchain.nvcc),
        expected=f"one of {', '.join(map(dotted, known))}",
        remedy=remedy_for(architecture),
    )


def remedy_for(architecture: str) -> str:
    """Say which CUDA compiles for an architecture, such as "37"."""
    first, last = SERVED.get(architecture, ("", NEVER))
    if last != NEVER:
        which = f"CUDA {last} is the last that serves it"
    elif first:
        which = f"CUDA {first} is the first that serves it"
    else:
        return "Give --arch what your GPU has: `nvidia-smi --query-gpu=compute_cap --format=csv`"
    return f"{which}: install that and point CUDA_HOME at it, or set [darknet] build_gpu to no"


def _packages(toolchain: Toolchain) -> str:
    """Say what to install."""
    major, minor, *_ = (*numbers(toolchain.cuda), 0, 0)
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
