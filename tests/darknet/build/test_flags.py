"""The switches of a build, chosen for machines of all kinds, and what make and CMake are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet.build import cmake, make
from oiyolo.darknet.build.builder import jobs
from oiyolo.darknet.build.flags import SERVED, Flags, choose, dotted, known_architectures
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.build.toolchain import Component, Toolchain, numbers
from oiyolo.core.errors import DarknetError

if TYPE_CHECKING:
    from oiyolo.networks.lint import DarknetLine

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


def with_gpus(toolchain: Toolchain, *capabilities: str, cudnn: str = "") -> Toolchain:
    parts = dict(toolchain.components)
    if cudnn:
        parts["cudnn"] = Component(Path("/opt/cudnn/include"), Path("/opt/cudnn/lib/libcudnn.so.9"))
    found = tuple(gpu(capability) for capability in capabilities)
    return replace(toolchain, gpus=found, components=parts, cudnn=cudnn)


@pytest.mark.parametrize(
    ("toolchain", "line", "wish", "arch", "expected"),
    [
        # Without CUDA, or without a GPU, for the CPU.
        (PLAIN, "alexeyab", "auto", (), Flags(openmp=True)),
        (CUDA_13, "alexeyab", "auto", (), Flags(openmp=True)),
        (with_gpus(PLAIN, "8.6"), "alexeyab", "auto", (), Flags(openmp=True)),
        (with_gpus(CUDA_13, "8.6"), "alexeyab", "no", (), Flags(openmp=True)),
        (replace(CUDA_13, components={}), "alexeyab", "auto", (), Flags(openmp=True)),
        # What the processor and OpenCV give.
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
        # A GPU that is newer than CUDA gets what comes nearest; one that cannot be served is left.
        (with_gpus(CUDA_11, "12.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("90",))),
        (with_gpus(CUDA_13, "3.7", "9.0"), "alexeyab", "auto", (),
         Flags(openmp=True, gpu=True, architectures=("90",))),
        # GPUs that were named.
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
def test_the_switches_fit_the_machine(
    toolchain: Toolchain, line: DarknetLine, wish: str, arch: tuple[str, ...], expected: Flags
) -> None:
    assert choose(toolchain, line, build_gpu=wish, arch=arch).flags == expected


@pytest.mark.parametrize(
    ("toolchain", "wish", "arch", "said"),
    [
        (PLAIN, "yes", (), ("nvcc was not found", "/usr/local/cuda/bin")),
        (CUDA_13, "yes", (), ("no GPU answered", "--arch 8.6")),
        (with_gpus(CUDA_13, "[N/A]"), "yes", (), ("no GPU answered", "--arch 8.6")),
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
def test_what_cuda_cannot_do_is_an_error_that_says_what_could(
    toolchain: Toolchain, wish: str, arch: tuple[str, ...], said: tuple[str, ...]
) -> None:
    with pytest.raises(DarknetError) as caught:
        choose(toolchain, "alexeyab", build_gpu=wish, arch=arch)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("toolchain", "line", "note"),
    [
        (CUDA_13, "alexeyab", "no GPU answered"),
        (with_gpus(PLAIN, "8.6"), "alexeyab", "no nvcc was found"),
        (with_gpus(CUDA_11, "12.0"), "alexeyab", "does not know a GPU (12.0) yet; built for 9.0"),
        (with_gpus(CUDA_13, "3.7", "9.0"), "alexeyab", "it cannot be trained on"),
        (with_gpus(CUDA_13, "9.0", cudnn="9.1.0"), "pjreddie", "cuDNN 9.1.0 is not used"),
        (with_gpus(CUDA_13, "9.0", cudnn="9.1.0"), "alexeyab", None),
        (PLAIN, "alexeyab", None),
    ],
)
def test_what_a_person_should_know_about_the_choice_is_said(
    toolchain: Toolchain, line: DarknetLine, note: str | None
) -> None:
    notes = choose(toolchain, line).notes
    assert (note is None and notes == ()) or (note is not None and note in notes[0])


def test_the_table_of_cuda_is_in_itself_right() -> None:
    for architecture, (first, last) in SERVED.items():
        assert not last or numbers(first) <= numbers(last)
        at_first = replace(CUDA_13, cuda=first, architectures=())
        assert architecture in known_architectures(at_first)
        if last:
            past = replace(at_first, cuda=f"{numbers(last)[0] + 1}.0")
            assert architecture not in known_architectures(past)
    assert list(SERVED) == sorted(SERVED, key=int)
    assert [dotted(architecture) for architecture in ("37", "86", "100")] == ["3.7", "8.6", "10.0"]


def test_the_table_says_of_cuda_13_what_its_compiler_says() -> None:
    """``nvcc --list-gpu-arch`` of CUDA 13.0 is what CUDA_13 has."""
    assert known_architectures(replace(CUDA_13, architectures=())) == CUDA_13.architectures


def test_make_is_told_the_switches_and_nothing_of_cuda_on_a_cpu() -> None:
    flags = Flags(openmp=True, avx=True, opencv=True)
    assert make.command(flags, PLAIN, "alexeyab", links=LINKS, jobs=3) == (
        *("make", "-j3", "GPU=0", "CUDNN=0", "OPENCV=1", "OPENMP=1", "CUDNN_HALF=0", "AVX=1"),
    )
    assert make.command(flags, PLAIN, "pjreddie", links=LINKS, jobs=1) == (
        *("make", "-j1", "GPU=0", "CUDNN=0", "OPENCV=1", "OPENMP=1"),
    )


def test_make_is_told_where_cuda_is_and_what_to_compile_for() -> None:
    toolchain = with_gpus(CUDA_13, "7.5", "9.0", cudnn="9.1.0")
    flags = choose(toolchain, "alexeyab").flags
    told = dict(
        word.partition("=")[::2]
        for word in make.command(flags, toolchain, "alexeyab", links=LINKS, jobs=2)[2:]
    )
    where = "-I/opt/cudnn/include -I/usr/local/cuda/include"
    assert told == {
        "GPU": "1", "CUDNN": "1", "CUDNN_HALF": "1", "OPENCV": "0", "OPENMP": "1", "AVX": "0",
        "ARCH": "-gencode arch=compute_75,code=[sm_75,compute_75] "
        "-gencode arch=compute_90,code=[sm_90,compute_90]",
        "CC": f"gcc {where} -L/build/links",
        "CPP": f"g++ -std=c++11 {where} -L/build/links",
        "NVCC": f"/usr/local/cuda/bin/nvcc {where}",
    }  # fmt: skip


def test_a_path_with_blanks_and_signs_stays_one_word() -> None:
    toolchain = replace(CUDA_13, nvcc=Path("/opt/my $CUDA/bin/nvcc"))
    flags = choose(toolchain, "alexeyab", build_gpu="yes", arch=("86",)).flags
    words = make.command(flags, toolchain, "alexeyab", links=Path("/my links"), jobs=1)
    assert "NVCC='/opt/my $$CUDA/bin/nvcc' -I/usr/local/cuda/include" in words
    assert "CC=gcc -I/usr/local/cuda/include -L'/my links'" in words


@pytest.mark.parametrize(
    ("toolchain", "line", "expected"),
    [(CUDA_13, "pjreddie", True), (CUDA_12, "pjreddie", False), (CUDA_13, "alexeyab", False)],
)
def test_todays_name_of_a_function_is_given_only_where_it_is_needed(
    *, toolchain: Toolchain, line: DarknetLine, expected: bool
) -> None:
    flags = choose(toolchain, line, build_gpu="yes", arch=("86",)).flags
    words = make.command(flags, toolchain, line, links=LINKS, jobs=1)
    told = any("-DcudaThreadSynchronize=cudaDeviceSynchronize" in word for word in words)
    assert told == expected


def test_cmake_is_told_the_switches() -> None:
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
    ("toolchain", "described", "said"),
    [
        (replace(PLAIN, cmake="3.22.1", opencv="4.6.0"), "v5.1-0-gabc", "CMake 3.24 or newer"),
        (replace(PLAIN, cmake="", opencv="4.6.0"), "v5.1-0-gabc", "found none"),
        (replace(PLAIN, cmake="3.9.1", opencv="4.6.0"), "v5.1-0-gabc", "found 3.9.1"),
        (PLAIN, "v5.1-0-gabc", "libopencv-dev"),
        (replace(PLAIN, opencv="4.6.0"), None, "git fetch --tags --unshallow"),
        (replace(PLAIN, opencv="4.6.0", cmake="4.1.2"), "v5.1-0-gabc", None),
    ],
)
def test_what_cmake_would_end_at_is_said_before(
    toolchain: Toolchain, described: str | None, said: str | None
) -> None:
    if said is None:
        cmake.check(toolchain, source=Path("/src"), described=described)
        return
    with pytest.raises(DarknetError, match=said):
        cmake.check(toolchain, source=Path("/src"), described=described)


@pytest.mark.parametrize(
    ("cpus", "memory_bytes", "expected"),
    [(8, 64 << 30, 8), (8, 5 << 30, 2), (8, 1 << 30, 1), (8, 0, 8), (1, 64 << 30, 1)],
)
def test_as_many_compilers_run_as_memory_allows(
    cpus: int, memory_bytes: int, expected: int
) -> None:
    assert jobs(replace(PLAIN, cpus=cpus, memory_bytes=memory_bytes)) == expected


def test_switches_are_told_in_words() -> None:
    flags = Flags(gpu=True, cudnn=True, cudnn_half=True, architectures=("75", "100"), avx=True)
    assert str(flags) == "CUDA for compute capability 7.5, 10.0, cuDNN, tensor cores, AVX2"
    assert str(Flags(openmp=True)) == "CPU only, OpenMP"
