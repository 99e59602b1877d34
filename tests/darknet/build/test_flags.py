"""Build flags for various machines, and the command lines of make and CMake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import cmake, make
from oiyolo.darknet.build.builder import job_count
from oiyolo.darknet.build.flags import (
    CUDA_SUPPORT,
    Flags,
    choose,
    format_capability,
    supported_architectures,
)
from oiyolo.darknet.build.toolchain import Component, Toolchain, version_tuple
from oiyolo.darknet.gpus import Gpu

if TYPE_CHECKING:
    from oiyolo.networks.lint import ForkName

LINKS = Path("/build/links")
CUDA = Path("/usr/local/cuda")
PARTS = {
    name: Component(CUDA / "include", CUDA / f"lib64/lib{name}.so")
    for name in ("cudart", "cublas", "curand")
}
PLAIN = Toolchain(gcc="12.2.0", gxx="12.2.0", make="4.3", cmake="3.25.1", processor=("avx",))
CUDA_13 = replace(
    PLAIN,
    nvcc=CUDA / "bin/nvcc",
    cuda="13.0",
    architectures=("75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121"),
    components=PARTS,
)
CUDA_12 = replace(CUDA_13, cuda="12.9", architectures=())
CUDA_11 = replace(CUDA_13, cuda="11.8", architectures=())


def gpu(capability: str, name: str = "a GPU") -> Gpu:
    return Gpu(0, name, 1 << 34, 1 << 34, capability, "580.65.06")


def with_gpus(
    toolchain: Toolchain, *capabilities: str, cudnn: str = "", **changes: Any
) -> Toolchain:
    parts = dict(toolchain.components)
    if cudnn:
        parts["cudnn"] = Component(Path("/opt/cudnn/include"), Path("/opt/cudnn/lib/libcudnn.so.9"))
    found = tuple(gpu(capability) for capability in capabilities)
    return replace(toolchain, gpus=found, components=parts, cudnn=cudnn, **changes)


@pytest.mark.parametrize(
    ("toolchain", "fork", "build_gpu", "arch", "expected"),
    [
        # A CPU build without CUDA or without a GPU.
        (PLAIN, "alexeyab", "auto", (), Flags(openmp=True)),
        (CUDA_13, "alexeyab", "auto", (), Flags(openmp=True)),
        (with_gpus(PLAIN, "8.6"), "alexeyab", "auto", (), Flags(openmp=True)),
        (with_gpus(CUDA_13, "8.6"), "alexeyab", "no", (), Flags(openmp=True)),
        (replace(CUDA_13, components={}), "alexeyab", "auto", (), Flags(openmp=True)),
        # Features of the processor, and OpenCV.
        (replace(PLAIN, processor=("avx", "avx2", "fma")), "alexeyab", "no", (),
         Flags(openmp=True, avx=True)),
        (replace(PLAIN, processor=("avx", "avx2", "fma")), "pjreddie", "no", (),
         Flags(openmp=True)),
        (replace(PLAIN, opencv="4.6.0"), "alexeyab", "no", (), Flags(openmp=True, opencv=True)),
        (replace(PLAIN, opencv="5.0.0"), "alexeyab", "no", (), Flags(openmp=True)),
        (replace(PLAIN, opencv="4.6.0"), "pjreddie", "no", (), Flags(openmp=True)),
        (replace(PLAIN, opencv="5.0.0"), "hank", "no", (), Flags(openmp=True, opencv=True)),
        # The GPUs of the machine.
        (with_gpus(CUDA_13, "8.6"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("86",))),
        (with_gpus(CUDA_13, "8.6", "7.5", "8.6"), "alexeyab", "yes", (),
         Flags(openmp=True, gpu=True, architectures=("75", "86"))),
        (with_gpus(CUDA_12, "7.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("70",))),
        (with_gpus(CUDA_11, "3.7"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("37",))),
        # A GPU newer than CUDA gets the nearest architecture; an unsupported one is left out.
        (with_gpus(CUDA_11, "12.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("90",))),
        (with_gpus(CUDA_13, "3.7", "9.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("90",))),
        # Explicit compute capabilities.
        (CUDA_13, "alexeyab", "yes", ("90", "75"),
         Flags(openmp=True, gpu=True, architectures=("75", "90"))),
        (with_gpus(CUDA_13, "8.6"), "alexeyab", "yes", ("100",),
         Flags(openmp=True, gpu=True, architectures=("100",))),
        # cuDNN and tensor cores.
        (with_gpus(CUDA_13, "7.5", cudnn="9.28.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, cudnn=True, cudnn_half=True, architectures=("75",))),
        (with_gpus(CUDA_12, "6.1", cudnn="9.28.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, cudnn=True, architectures=("61",))),
        (with_gpus(CUDA_12, "6.1", "8.6", cudnn="8.9.7"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, cudnn=True, architectures=("61", "86"))),
        (with_gpus(CUDA_12, "7.5", cudnn="8.9.7"), "pjreddie", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("75",))),
        (with_gpus(CUDA_12, "7.5", cudnn="7.6.5"), "pjreddie", "auto", (),
         Flags(openmp=True, gpu=True, cudnn=True, architectures=("75",))),
        # A function that CUDA 13 dropped.
        (with_gpus(CUDA_13, "8.0"), "pjreddie", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("80",), synchronize_by_device=True)),
    ],
)  # fmt: skip
def test_the_flags_fit_the_machine(
    toolchain: Toolchain, fork: ForkName, build_gpu: str, arch: tuple[str, ...], expected: Flags
) -> None:
    assert choose(toolchain, fork, build_gpu=build_gpu, arch=arch).flags == expected


@pytest.mark.parametrize(
    ("toolchain", "build_gpu", "arch", "message"),
    [
        (PLAIN, "yes", (), ("nvcc was not found", "/usr/local/cuda/bin")),
        (CUDA_13, "yes", (), ("nvidia-smi reports no GPU", "--arch 8.6")),
        (with_gpus(CUDA_13, "[N/A]"), "yes", (), ("nvidia-smi reports no GPU", "--arch 8.6")),
        (with_gpus(CUDA_13, "3.7"), "auto", (), ("3.7", "CUDA 11.8 is the last")),
        (with_gpus(CUDA_12, "3.7"), "auto", (), ("3.7", "CUDA 11.8 is the last")),
        (with_gpus(CUDA_13, "6.0"), "auto", (), ("6.0", "CUDA 12.9 is the last")),
        (with_gpus(CUDA_13, "7.0"), "yes", (), ("7.0", "CUDA 12.9 is the last")),
        (CUDA_13, "yes", ("86", "70"), ("7.0", "CUDA 12.9 is the last")),
        (CUDA_11, "yes", ("120",), ("12.0", "CUDA 12.8 is the first")),
        (CUDA_13, "yes", ("99",), ("9.9", "nvidia-smi")),
        (
            replace(with_gpus(CUDA_13, "8.6"), components={"cudart": PARTS["cudart"]}),
            "auto",
            (),
            ("no cublas, curand", "libcublas-dev-13-0", "pip install nvidia-cublas nvidia-curand"),
        ),
        (
            replace(with_gpus(CUDA_12, "8.6"), components={}),
            "yes",
            (),
            ("no cudart, cublas, curand", "libcurand-dev-12-9", "nvidia-cublas-cu12"),
        ),
    ],
)
def test_an_impossible_cuda_build_is_an_error_with_a_remedy(
    toolchain: Toolchain, build_gpu: str, arch: tuple[str, ...], message: tuple[str, ...]
) -> None:
    with pytest.raises(DarknetError) as caught:
        choose(toolchain, "alexeyab", build_gpu=build_gpu, arch=arch)
    for words in message:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("toolchain", "fork", "note"),
    [
        (CUDA_13, "alexeyab", "no GPU detected"),
        (with_gpus(PLAIN, "8.6"), "alexeyab", "no nvcc was found"),
        (
            with_gpus(CUDA_11, "12.0"),
            "alexeyab",
            "does not support a GPU (12.0) yet; building for 9.0",
        ),
        (with_gpus(CUDA_13, "3.7", "9.0"), "alexeyab", "this GPU cannot be used"),
        (with_gpus(CUDA_13, "9.0", cudnn="9.1.0"), "pjreddie", "cuDNN 9.1.0 is not used"),
        (with_gpus(CUDA_13, "9.0", cudnn="9.1.0", opencv="4.6.0", cpus=6), "alexeyab", None),
        (with_gpus(CUDA_13, "9.0", cpus=6), "alexeyab", "libopencv-dev"),
        (with_gpus(CUDA_13, "9.0", opencv="5.0.0", cpus=6), "alexeyab", "5.0.0 is too new"),
        (with_gpus(CUDA_13, "9.0", cpus=5), "pjreddie", "5 CPU cores for 1 GPU"),
        (with_gpus(CUDA_13, "9.0", "9.0", opencv="4.6.0", cpus=6), "alexeyab", "for 2 GPUs"),
        (PLAIN, "alexeyab", None),
    ],
)
def test_notes_explain_the_choice_of_flags(
    toolchain: Toolchain, fork: ForkName, note: str | None
) -> None:
    notes = choose(toolchain, fork).notes
    assert (note is None and notes == ()) or (note is not None and note in notes[0])


def test_the_table_of_cuda_versions_is_consistent() -> None:
    for architecture, (first, last) in CUDA_SUPPORT.items():
        assert not last or version_tuple(first) <= version_tuple(last)
        at_first = replace(CUDA_13, cuda=first, architectures=())
        assert architecture in supported_architectures(at_first)
        if last:
            past = replace(at_first, cuda=f"{version_tuple(last)[0] + 1}.0")
            assert architecture not in supported_architectures(past)
    assert list(CUDA_SUPPORT) == sorted(CUDA_SUPPORT, key=int)
    assert [format_capability(architecture) for architecture in ("37", "86", "100")] == [
        "3.7",
        "8.6",
        "10.0",
    ]


def test_the_table_agrees_with_nvcc_of_cuda_13() -> None:
    """``CUDA_13.architectures`` is the output of CUDA 13.0's ``nvcc --list-gpu-arch``."""
    assert supported_architectures(replace(CUDA_13, architectures=())) == CUDA_13.architectures


def test_makes_command_line_for_a_cpu_mentions_no_cuda() -> None:
    flags = Flags(openmp=True, avx=True, opencv=True)
    assert make.command(flags, PLAIN, "alexeyab", links=LINKS, jobs=3) == (
        *("make", "-j3", "GPU=0", "CUDNN=0", "OPENCV=1", "OPENMP=1", "CUDNN_HALF=0", "AVX=1"),
    )
    assert make.command(flags, PLAIN, "pjreddie", links=LINKS, jobs=1) == (
        *("make", "-j1", "GPU=0", "CUDNN=0", "OPENCV=1", "OPENMP=1"),
    )


def test_makes_command_line_for_cuda_has_its_paths_and_architectures() -> None:
    toolchain = with_gpus(CUDA_13, "7.5", "9.0", cudnn="9.1.0")
    flags = choose(toolchain, "alexeyab").flags
    variables = dict(
        word.partition("=")[::2]
        for word in make.command(flags, toolchain, "alexeyab", links=LINKS, jobs=2)[2:]
    )
    where = "-I/opt/cudnn/include -I/usr/local/cuda/include"
    assert variables == {
        "GPU": "1", "CUDNN": "1", "CUDNN_HALF": "1", "OPENCV": "0", "OPENMP": "1", "AVX": "0",
        "ARCH": "-gencode arch=compute_75,code=[sm_75,compute_75] "
        "-gencode arch=compute_90,code=[sm_90,compute_90]",
        "CC": f"gcc {where} -L/build/links",
        "CPP": f"g++ -std=c++11 {where} -L/build/links",
        "NVCC": f"/usr/local/cuda/bin/nvcc {where}",
    }  # fmt: skip


def test_a_path_with_spaces_and_special_characters_is_quoted() -> None:
    toolchain = replace(CUDA_13, nvcc=Path("/opt/my $CUDA/bin/nvcc"))
    flags = choose(toolchain, "alexeyab", build_gpu="yes", arch=("86",)).flags
    words = make.command(flags, toolchain, "alexeyab", links=Path("/my links"), jobs=1)
    assert "NVCC='/opt/my $$CUDA/bin/nvcc' -I/usr/local/cuda/include" in words
    assert "CC=gcc -I/usr/local/cuda/include -L'/my links'" in words


@pytest.mark.parametrize(
    ("toolchain", "fork", "expected"),
    [(CUDA_13, "pjreddie", True), (CUDA_12, "pjreddie", False), (CUDA_13, "alexeyab", False)],
)
def test_cuda_thread_synchronize_is_replaced_only_where_cuda_lacks_it(
    *, toolchain: Toolchain, fork: ForkName, expected: bool
) -> None:
    flags = choose(toolchain, fork, build_gpu="yes", arch=("86",)).flags
    words = make.command(flags, toolchain, fork, links=LINKS, jobs=1)
    is_replaced = any("-DcudaThreadSynchronize=cudaDeviceSynchronize" in word for word in words)
    assert is_replaced == expected


def test_cmakes_command_line_has_the_flags() -> None:
    configure, compile_ = cmake.commands(Flags(), PLAIN, links=LINKS, jobs=4)
    assert "-DDARKNET_TRY_CUDA=OFF" in configure
    assert "-DENABLE_SSE_AND_AVX=OFF" in configure
    assert not any("CUDA_ARCHITECTURES" in word for word in configure)
    assert compile_[-2:] == ("--parallel", "4")
    flags = choose(CUDA_13, "hank", build_gpu="yes", arch=("75", "90")).flags
    configure, _ = cmake.commands(flags, CUDA_13, links=LINKS, jobs=1)
    assert {
        "-DDARKNET_TRY_CUDA=ON",
        "-DDARKNET_CUDA_ARCHITECTURES=75;90",
        "-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc",
        "-DCMAKE_LIBRARY_PATH=/build/links",
    } <= set(configure)


@pytest.mark.parametrize(
    ("toolchain", "git_describe", "message"),
    [
        (replace(PLAIN, cmake="3.22.1", opencv="4.6.0"), "v5.1-0-gabc", "CMake 3.24 or newer"),
        (replace(PLAIN, cmake="", opencv="4.6.0"), "v5.1-0-gabc", "found none"),
        (replace(PLAIN, cmake="3.9.1", opencv="4.6.0"), "v5.1-0-gabc", "found 3.9.1"),
        (PLAIN, "v5.1-0-gabc", "libopencv-dev"),
        (replace(PLAIN, opencv="4.6.0"), None, "git fetch --tags --unshallow"),
        (replace(PLAIN, opencv="4.6.0", cmake="4.1.2"), "v5.1-0-gabc", None),
    ],
)
def test_what_cmake_requires_is_checked_before_the_build(
    toolchain: Toolchain, git_describe: str | None, message: str | None
) -> None:
    if message is None:
        cmake.check(toolchain, source=Path("/src"), git_describe=git_describe)
        return
    with pytest.raises(DarknetError) as caught:
        cmake.check(toolchain, source=Path("/src"), git_describe=git_describe)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("cpus", "memory_bytes", "expected"),
    [(8, 64 << 30, 8), (8, 5 << 30, 2), (8, 1 << 30, 1), (8, 0, 8), (1, 64 << 30, 1)],
)
def test_the_number_of_parallel_compilers_is_limited_by_memory(
    cpus: int, memory_bytes: int, expected: int
) -> None:
    assert job_count(replace(PLAIN, cpus=cpus, memory_bytes=memory_bytes)) == expected


def test_flags_are_described_in_words() -> None:
    flags = Flags(gpu=True, cudnn=True, cudnn_half=True, architectures=("75", "100"), avx=True)
    assert str(flags) == "CUDA for compute capability 7.5, 10.0, cuDNN, tensor cores, AVX2"
    assert str(Flags(openmp=True)) == "CPU only, OpenMP"
