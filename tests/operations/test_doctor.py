"""The doctor's checks of facts: drivers, toolkits, GPUs, packages, disks, endpoints."""

from __future__ import annotations

import importlib.metadata
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.darknet.build.toolchain import Component, Toolchain
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.program import Darknet
from oiyolo.operations.doctor import checks, collect
from oiyolo.operations.doctor.collect import parse_requirement
from oiyolo.operations.doctor.cuda import (
    check_gpus,
    check_loading,
    max_cuda,
    min_driver,
    parse_driver,
)
from oiyolo.operations.doctor.facts import (
    DARKNET_SOURCES,
    CheckResult,
    DarknetStatus,
    Disk,
    Driver,
    Endpoint,
    EngineStatus,
    MachineFacts,
    OnnxRuntime,
    Package,
)
from oiyolo.operations.doctor.parallel import NoAnswer, gather

if TYPE_CHECKING:
    from collections.abc import Sequence

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 80 << 30, 79 << 30, "9.0", "580.65.06")
T4 = Gpu(0, "Tesla T4", 15 << 30, 14 << 30, "7.5", "550.54.15")
A10 = Gpu(0, "NVIDIA A10", 22 << 30, 22 << 30, "8.6", "580.65.06")
K80 = Gpu(0, "Tesla K80", 11 << 30, 11 << 30, "3.7", "470.256.02")
NEW = ("75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121")
PART = Component(Path("/cuda/include"), Path("/cuda/lib64/libcudart.so"))
COMPONENTS = dict.fromkeys(("cudart", "cublas", "curand", "cudnn"), PART)

HEADER = """\
Fri Nov 20 10:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.65.06              Driver Version: 580.65.06      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""


def toolchain(
    cuda: str = "13.0", gpus: Sequence[Gpu] = (), architectures: tuple[str, ...] = NEW, **more: Any
) -> Toolchain:
    usual: dict[str, Any] = {
        "gcc": "12.2.0", "gxx": "12.2.0", "make": "4.3", "cmake": "3.25.1", "git": "2.39.5",
        "nvcc": Path("/cuda/bin/nvcc") if cuda else None, "cuda": cuda, "gpus": tuple(gpus),
        "architectures": architectures if cuda else (), "components": COMPONENTS,
        "cudnn": "9.28.0", "driver_library": Path("/usr/lib/libcuda.so.1"),
    }  # fmt: skip
    return Toolchain(**{**usual, **more})


def driver_of(gpu: Gpu, cuda: str = "") -> Driver:
    return Driver(present=True, version=gpu.driver_version, cuda=cuda)


@pytest.mark.parametrize(
    ("output", "exit_code", "expected"),
    [
        (HEADER, 0, Driver(True, "580.65.06", "13.0")),
        (HEADER.replace("CUDA Version: 13.0", ""), 0, Driver(True, "580.65.06", "")),
        ("NVIDIA-SMI has failed because it couldn't\ncommunicate with the NVIDIA driver.\n", 9,
         Driver(True, failure="NVIDIA-SMI has failed because it couldn't communicate with the "
                "NVIDIA driver.")),
        ("", 0, Driver(True, failure="(no output)")),
        ("Driver Version: N/A  CUDA Version: N/A", 0,
         Driver(True, failure="Driver Version: N/A CUDA Version: N/A")),
        (HEADER, 15, Driver(True, failure=" ".join(HEADER.split())[:160])),
    ],
)  # fmt: skip
def test_the_output_of_nvidia_smi_is_parsed(output: str, exit_code: int, expected: Driver) -> None:
    assert parse_driver(output, exit_code) == expected


@given(st.text(), st.integers(-9, 255))
def test_any_output_of_nvidia_smi_is_accepted(output: str, exit_code: int) -> None:
    assert parse_driver(output, exit_code).present


def test_what_slows_down_loading_images_for_a_gpu_is_named() -> None:
    found = check_loading(toolchain(gpus=[H100], cpus=4))
    assert {result.topic: result.exit_code for result in found} == {"OpenCV": 0, "CPU cores": 0}
    assert not list(check_loading(toolchain(gpus=[H100], cpus=16, opencv="4.6.0")))
    assert not list(check_loading(toolchain(cpus=1)))


@pytest.mark.parametrize(
    ("version", "cuda"),
    [
        ("580.65.06", "13.x"),
        ("575.57.08", "12.x"),
        ("525.60.13", "12.x"),
        ("525.60.12", "11.x"),
        ("470.256.02", "11.x"),
        ("440.33", "10.2"),
        ("300.1", ""),
        ("", ""),
    ],
)
def test_the_newest_cuda_version_of_a_driver(version: str, cuda: str) -> None:
    assert max_cuda(Driver(present=True, version=version)) == cuda


@pytest.mark.parametrize(
    ("cuda", "needed"),
    [("13.1", (580,)), ("12.9", (525, 60, 13)), ("11.8", (450, 80, 2)), ("10.1", (418, 39)),
     ("7.5", ()), ("", ()), ("20.0", (580,))],
)  # fmt: skip
def test_the_oldest_driver_of_a_cuda_version(cuda: str, needed: tuple[int, ...]) -> None:
    assert min_driver(cuda) == needed


def table(results: Sequence[CheckResult]) -> dict[str, str]:
    return {result.topic: result.state for result in results}


ALL_WELL = {"driver": "ok", "GPU 0": "ok", "CUDA": "ok", "CUDA libraries": "ok", "cuDNN": "ok"}


@pytest.mark.parametrize(
    ("tools", "driver", "expected", "words"),
    [
        (toolchain("13.0", [H100]), driver_of(H100, "13.0"), {}, "supports CUDA up to 13.0"),
        (toolchain("12.8", [T4]), driver_of(T4), {}, "supports CUDA up to 12.x"),
        (toolchain("13.0", [T4]), driver_of(T4, "12.4"), {"CUDA": "warning"},
         "needs driver 580 or newer, but 550.54.15 is installed"),
        (toolchain("13.0", [K80]), driver_of(K80, "11.4"),
         {"CUDA": "warning", "GPU 0": "warning"}, "CUDA 11.8 is the last version that supports it"),
        (toolchain("11.8", [K80], ("35", "37", "50", "86", "90")), driver_of(K80), {}, "3.7"),
        (toolchain("11.0", [H100], ("35", "70", "80")), driver_of(H100), {}, "9.0"),
        # A GPU runs the code for an older one, which `build` then compiles.
        (toolchain("13.0", [A10], ("75", "80", "90")), driver_of(A10), {}, "8.6"),
        (toolchain("", [H100]), driver_of(H100, "13.0"), {"CUDA": "missing"},
         "install the CUDA toolkit 13.0 or older"),
        (toolchain("13.0", [H100], components={"cudart": PART}, cudnn=""), driver_of(H100),
         {"CUDA libraries": "missing", "cuDNN": "missing"}, "no cublas, curand of CUDA 13.0"),
        (toolchain("", [H100], nvcc=Path("/x/nvcc")), driver_of(H100), {"CUDA": "warning"},
         "does not report its version"),
        (toolchain("13.0"), Driver(), {"driver": "missing", "GPU 0": ""}, "only be compiled"),
        (toolchain("13.0"), Driver(present=True, failure="no device"),
         {"driver": "warning", "GPU 0": ""}, "nvidia-smi fails: no device"),
        (toolchain("13.0"), driver_of(H100), {"GPU 0": "", "GPU": "missing"}, "reports no GPU"),
    ],
)  # fmt: skip
def test_driver_toolkit_and_gpus_are_checked_for_compatibility(
    tools: Toolchain, driver: Driver, expected: dict[str, str], words: str
) -> None:
    results = list(check_gpus(tools, driver))
    expected_states = {topic: state for topic, state in {**ALL_WELL, **expected}.items() if state}
    if not tools.cuda:
        expected_states = {
            topic: s
            for topic, s in expected_states.items()
            if topic not in {"CUDA libraries", "cuDNN"}
        }
    assert table(results) == expected_states
    assert words in " ".join(f"{result.found} {result.remedy}" for result in results)
    assert all(bool(result.remedy) == (result.state != "ok") for result in results)
    assert not any(result.exit_code for result in results)  # a CPU is enough to train


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (Gpu(0, "Quadro", 2 << 30, 2 << 30, "7.5", "580.1"), "subdivisions"),
        (Gpu(0, "A100", 40 << 30, 1 << 30, "8.0", "580.1"), "which programs use it"),
        (Gpu(0, "GPU", 40 << 30, 40 << 30, "[N/A]", "580.1"), "--arch"),
        (Gpu(0, "P100", 16 << 30, 16 << 30, "6.0", "580.1"), "CUDA 12.9 is the last"),
    ],
)
def test_a_gpu_with_a_problem_has_a_remedy(gpu: Gpu, words: str) -> None:
    (result,) = [f for f in check_gpus(toolchain(gpus=[gpu]), driver_of(gpu)) if f.topic == "GPU 0"]
    assert result.state == "warning"
    assert words in result.remedy


def test_without_driver_and_cuda_there_is_a_single_row() -> None:
    results = list(check_gpus(toolchain(""), Driver()))
    assert table(results) == {"GPU": "missing"}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("pytest>=1.0", ("pytest", "1.0", True, "")),
        ("pytest", ("pytest", "", True, "")),
        ("dask[distributed]>=2024.8; extra == 'cluster'", ("dask", "2024.8", True, "cluster")),
        ('no-such-thing>=2; extra == "more"', ("no-such-thing", "2", False, "more")),
        ("pytest (>=1.0)", ("pytest", "1.0", True, "")),
        ('tomli>=2.0.1; python_version < "3.0"', None),
        ('pytest>=2; python_version < "99.0"', ("pytest", "2", True, "")),
        ("", None),
    ],
)
def test_a_requirement_is_parsed(
    requirement: str, expected: tuple[str, str, bool, str] | None
) -> None:
    package = parse_requirement(requirement)
    parsed = (
        None
        if package is None
        else (package.name, package.needed, bool(package.found), package.extra)
    )
    assert parsed == expected


@pytest.mark.parametrize(
    ("packages", "states", "exit_code"),
    [
        ([Package("a", "1.2", "1.10"), Package("b", "", "0")], {"packages": "ok"}, 0),
        ([Package("a", "2.0", "2")], {"packages": "ok"}, 0),
        ([Package("a", "2.1", "2.1rc1")], {"packages": "ok"}, 0),
        ([Package("a", "2.1", "2.0.9")], {"a": "warning"}, 2),
        ([Package("a", "2.1", ""), Package("b", "1", "0.9")],
         {"a": "missing", "b": "warning"}, 2),
        ([Package("a", "1", "1"), Package("x", "2", "1", "gcp")],
         {"x": "warning", "packages": "ok"}, 0),
        ([Package("a", "1", "1"), Package("x", "2", "", "gcp")], {"packages": "ok"}, 0),
        (None, {"packages": "warning"}, 0),
    ],
)  # fmt: skip
def test_packages_are_checked_against_their_minimum_versions(
    packages: list[Package] | None, states: dict[str, str], exit_code: int
) -> None:
    results = list(checks.check_packages(packages))
    assert table(results) == states
    assert checks.exit_code(results) == exit_code


@pytest.mark.parametrize(
    ("runtime", "state", "words"),
    [
        (OnnxRuntime({"onnxruntime": "1.32.0"}, ["CPU"]), "ok", "CPU"),
        (OnnxRuntime({"onnxruntime-gpu": "1.32.0"}, ["CUDA", "CPU"]), "ok", "CUDA"),
        (OnnxRuntime({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, ["CPU"]), "warning",
         "pip uninstall onnxruntime onnxruntime-gpu"),
        (OnnxRuntime({"onnxruntime-gpu": "1.32.0"}, problem="no InferenceSession"), "warning",
         "pip install --force-reinstall onnxruntime-gpu"),
    ],
)  # fmt: skip
def test_the_onnxruntime_is_checked(runtime: OnnxRuntime, state: str, words: str) -> None:
    result = checks.check_onnxruntime(runtime)
    assert (result.state, result.exit_code) == (state, 0)
    assert words in f"{result.found} {result.remedy}"


def test_every_package_that_provides_onnxruntime_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = collect.onnxruntime()
    assert "CPU" in before.providers
    folder = tmp_path / "onnxruntime_gpu-9.8.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: onnxruntime-gpu\nVersion: 9.8\n")
    (folder / "top_level.txt").write_text("onnxruntime\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert collect.onnxruntime().packages == {**before.packages, "onnxruntime-gpu": "9.8"}


def test_another_build_of_onnxruntime_satisfies_the_requirement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"onnxruntime-gpu": "1.32.0"}
    names = {"onnxruntime": list(versions)}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: names)
    monkeypatch.setattr(collect, "_version", lambda name: versions.get(name, ""))
    package = parse_requirement("onnxruntime>=1.20")
    assert package == Package("onnxruntime", "1.20", "1.32.0")


def program(*, gpu: bool = False) -> Darknet:
    return Darknet(Path("/opt/darknet"), FORKS["alexeyab"], gpu, "on PATH")


NO_COMPILER = toolchain("", gxx="")
UNREACHED = [Endpoint(DARKNET_SOURCES, "https://example.org/d.git", problem="no network")]


@pytest.mark.parametrize(
    ("status", "tools", "reached", "state", "exit_code", "words"),
    [
        (DarknetStatus(program(), "abc", verified=True), toolchain(""), [], "ok", 0, "abc, CPU"),
        (DarknetStatus(program()), toolchain(""), [], "warning", 0, "not verified yet"),
        (DarknetStatus(program(), verified=True), toolchain("13.0", [H100]), [], "warning", 0,
         "`oiyolo build --build-gpu yes`"),
        (DarknetStatus(program(gpu=True), verified=True), toolchain("13.0", [H100]), [], "ok", 0,
         "GPU"),
        (DarknetStatus(program(gpu=True), verified=True), toolchain("", driver_library=None), [],
         "warning", 5, "no NVIDIA driver"),
        (DarknetStatus(program(), verified=True, rebuild_reason="flags changed"), toolchain(""),
         [], "warning", 0, "flags changed"),
        (DarknetStatus(problem="it is a folder"), toolchain(""), [], "warning", 5,
         "it is a folder"),
        (DarknetStatus(source="/d", is_local=True), toolchain("", git=""), [], "warning", 0,
         "from /d"),
        (DarknetStatus(source="/d", is_local=True), NO_COMPILER, [], "missing", 5, "requires g++"),
        (DarknetStatus(source="/d", is_local=True), None, [], "missing", 5,
         "make and gcc and g++"),
        (DarknetStatus(source="https://d"), toolchain(""), [], "warning", 0, "from https://d"),
        (DarknetStatus(source="https://d"), toolchain("", git=""), [], "missing", 5,
         "requires git"),
        (DarknetStatus(source="https://d"), toolchain(""), UNREACHED, "missing", 5, "example.org"),
        (DarknetStatus(), toolchain(""), [], "missing", 5, "apt-get install darknet"),
    ],
)  # fmt: skip
def test_the_darknet_that_would_be_used_is_checked(
    status: DarknetStatus,
    tools: Toolchain | None,
    reached: list[Endpoint],
    *,
    state: str,
    exit_code: int,
    words: str,
) -> None:
    result = checks.check_darknet(status, tools, reached)
    assert (result.state, result.exit_code) == (state, exit_code)
    assert words in f"{result.found} {result.remedy}"


@pytest.mark.parametrize(
    ("free_bytes", "state", "exit_code"),
    [(1, "warning", 4), (10**10, "warning", 0), (10**12, "ok", 0)],
)
def test_the_free_space_of_disks_is_checked(free_bytes: int, state: str, exit_code: int) -> None:
    result = checks.check_disk(Disk("cache", Path("/c"), free_bytes, 3.5e9, "Make room"))
    assert (result.state, result.exit_code) == (state, exit_code)


def test_a_missing_darknet_only_matters_if_it_trains() -> None:
    facts = MachineFacts(
        python="3", machine="m", project="p", darknet_status=DarknetStatus(), toolchain=NO_COMPILER
    )
    codes = []
    for status in (None, EngineStatus("darknet", "no torch"), EngineStatus("torch", "no GPU")):
        results = checks.run_checks(replace(facts, engine=status))
        codes.append(checks.exit_code(results))
    assert codes == [5, 5, 0]
    assert "CPU" in checks.summary(replace(facts, engine=EngineStatus("torch", "no GPU")), [])


def test_an_engine_that_is_missing_prevents_training() -> None:
    status = EngineStatus("", "PyTorch is not installed", remedy="Install it", exit_code=2)
    result = checks.check_engine(status)
    assert (result.state, result.exit_code) == ("missing", 2)


def test_the_first_blocking_result_gives_the_exit_code_and_all_are_named() -> None:
    results = [
        CheckResult("machine", "ok", ""),
        CheckResult("darknet", "missing", "none", "Get one", 5),
        CheckResult("disk: cache", "warning", "full", "Make room", 4),
    ]
    facts = MachineFacts(python="3", machine="m", project="p")
    assert checks.exit_code(results) == 5
    assert checks.summary(facts, results) == (
        "This machine cannot train yet: see darknet, disk: cache."
    )


def test_a_check_that_fails_is_a_result_and_blocks_training_if_it_is_essential() -> None:
    failed_checks = [("tools", "no answer"), ("darknet", "no answer")]
    results = checks.run_checks(
        MachineFacts(python="3", machine="m", project="p", failed_checks=failed_checks)
    )
    states = {result.topic: result.exit_code for result in results}
    assert (states["tools"], states["darknet"]) == (0, 5)


def test_tasks_run_in_parallel_and_a_task_that_hangs_is_abandoned() -> None:
    resume, ended = threading.Event(), threading.Event()

    def fail(error: Exception) -> None:
        raise error

    def hang() -> None:
        resume.wait(60)
        ended.set()

    answers = gather(
        {
            "quick": lambda: 1,
            "hangs": hang,
            "refused": lambda: fail(UsageError("no such place", found="x")),
            "odd": lambda: fail(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")),
        },
        deadline_s=0.2,
    )
    assert not ended.is_set()
    resume.set()
    assert list(answers) == ["quick", "hangs", "refused", "odd"]
    assert answers["quick"] == 1
    assert {name for name, output in answers.items() if isinstance(output, NoAnswer)} == {
        *("hangs", "refused", "odd"),
    }
    assert "0.2 s" in str(answers["hangs"])
    assert "found x" in str(answers["refused"])
