"""Finding the tools to build darknet: compilers, CUDA in all its locations, cuDNN, the driver."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet import gpus
from oiyolo.darknet.build.toolchain import (
    find,
    parse_architectures,
    parse_cuda_version,
    parse_cudnn_version,
    parse_version,
    version_tuple,
)

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.darknet.build.toolchain import Toolchain

NVCC = """#!/bin/sh
case "$1" in
--version) echo "nvcc: NVIDIA (R) Cuda compiler driver"
           echo "Cuda compilation tools, release {version}, V{version}.88" ;;
--list-gpu-arch) {list} ;;
--dryrun) echo '#$ _HERE_={top}/bin' >&2; echo '#$ TOP={top}/bin/..' >&2 ;;
esac
"""
LISTED = "echo compute_90; echo compute_75; echo compute_100"
SMI = """#!/bin/sh
echo "0, NVIDIA H100 80GB HBM3, 81559, 80000, 9.0, 580.65.06"
echo "1, Tesla K80, 11441, 11000, 3.7, 580.65.06"
echo "nonsense"
"""


class Machine:
    """A simulated machine in a folder, with only those files that a test puts into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.usr = root / "usr"
        self.local = root / "usr/local"
        self.environment = {"PATH": str(self.usr / "bin")}

    def program(self, path: str, text: str) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755)
        return place

    def file(self, path: str, text: str = "") -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def cuda(self, folder: str, version: str = "13.0", listed: str = LISTED) -> Path:
        top = self.root / folder
        self.program(f"{folder}/bin/nvcc", NVCC.format(version=version, list=listed, top=top))
        return top

    def library(self, folder: str, name: str, header: str, suffix: str = ".so") -> None:
        self.file(f"{folder}/include/{header}")
        self.file(f"{folder}/lib64/lib{name}{suffix}")

    def complete(self, folder: str, major: str = "13") -> None:
        self.library(folder, "cudart", "cuda_runtime.h")
        self.library(folder, "cublas", "cublas_v2.h", f".so.{major}")
        self.library(folder, "curand", "curand.h", ".so.10")

    def find(self) -> Toolchain:
        return find(self.environment, system=(self.local, self.usr))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "nvidia" not in path])
    monkeypatch.setattr(gpus, "gpus", list)
    return Machine(tmp_path)


def test_an_empty_machine_has_no_tools(machine: Machine) -> None:
    found = machine.find()
    assert (found.gcc, found.make, found.cmake, found.nvcc, found.cuda) == ("", "", "", None, "")
    assert found.components == {}
    assert found.missing == ("cudart", "cublas", "curand")
    assert not found.has_driver
    assert found.opencv == ""


@pytest.mark.parametrize(
    "place", ["CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX", "usual", "numbered", "PATH"]
)
def test_cuda_is_found_wherever_it_is_installed(machine: Machine, place: str) -> None:
    folders = {"usual": "usr/local/cuda", "numbered": "usr/local/cuda-13.0"}
    folder = folders.get(place, "opt/elsewhere")
    top = machine.cuda(folder)
    machine.complete(folder)
    if place == "PATH":
        machine.environment["PATH"] += f":{top}/bin"
    elif place not in folders:
        machine.environment[place] = str(top)
    found = machine.find()
    assert found.nvcc == top / "bin" / "nvcc"
    assert (found.cuda, found.architectures) == ("13.0", ("75", "90", "100"))
    assert found.missing == ()
    assert found.components["cublas"].library == top / "lib64" / "libcublas.so.13"
    assert found.components["cublas"].header_folder == top / "include"


def test_the_newest_of_several_cuda_versions_is_used_by_default(machine: Machine) -> None:
    for version in ("9.2", "12.4", "12.10", "11.8"):
        machine.cuda(f"usr/local/cuda-{version}", version)
    assert machine.find().cuda == "12.10"


def test_environment_variables_take_precedence_over_path(machine: Machine) -> None:
    machine.cuda("usr/local/cuda", "12.4")
    machine.environment["PATH"] += f":{machine.local}/cuda/bin"
    machine.environment["CUDA_HOME"] = str(machine.cuda("opt/cuda", "11.8"))
    assert machine.find().cuda == "11.8"
    machine.environment["CUDA_HOME"] = str(machine.root / "gone")
    assert machine.find().cuda == "12.4"


def test_the_toolkit_is_found_through_a_script_that_calls_nvcc(machine: Machine) -> None:
    top = machine.cuda("opt/cuda-13.0")
    machine.complete("opt/cuda-13.0")
    machine.program("usr/bin/nvcc", f'#!/bin/sh\nexec {top}/bin/nvcc "$@"\n')
    assert machine.find().components["cudart"].header_folder == top / "include"


def test_libraries_of_another_cuda_version_are_ignored(machine: Machine) -> None:
    machine.cuda("usr/local/cuda")
    machine.complete("usr/local/cuda", major="12")
    found = machine.find()
    assert found.missing == ("cublas",)
    machine.library("usr", "cublas", "cublas_v2.h", ".so.13")
    assert machine.find().components["cublas"].library == machine.usr / "lib64/libcublas.so.13"


def test_a_library_without_its_header_is_missing(machine: Machine) -> None:
    machine.cuda("usr/local/cuda")
    machine.complete("usr/local/cuda")
    (machine.local / "cuda/include/curand.h").unlink()
    assert machine.find().missing == ("curand",)


@pytest.mark.parametrize(
    ("cuda", "folders"),
    [
        ("13.0", {"cublas": "cu13", "curand": "cu13", "cudart": "cu13", "cudnn": "cudnn"}),
        ("12.9", {"cublas": "cublas", "curand": "curand", "cudart": "cuda_runtime",
                  "cudnn": "cudnn"}),
    ],
)  # fmt: skip
def test_the_libraries_of_pypis_packages_are_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, cuda: str, folders: dict[str, str]
) -> None:
    machine.cuda("usr/local/cuda", cuda)
    major = cuda.partition(".")[0]
    heads = {"cublas": ("cublas_v2.h", major), "curand": ("curand.h", "10"),
             "cudart": ("cuda_runtime.h", major), "cudnn": ("cudnn.h", "9")}  # fmt: skip
    for name, folder in folders.items():
        header, number = heads[name]
        machine.file(f"site/nvidia/{folder}/include/{header}")
        machine.file(f"site/nvidia/{folder}/lib/lib{name}.so.{number}")
    machine.file(
        "site/nvidia/cudnn/include/cudnn_version.h",
        "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 28\n#define CUDNN_PATCHLEVEL 0\n",
    )
    monkeypatch.syspath_prepend(str(machine.root / "site"))
    found = machine.find()
    assert found.missing == ()
    assert found.cudnn == "9.28.0"
    for name, folder in folders.items():
        library = found.components[name].library
        assert library.parent == machine.root / "site" / "nvidia" / folder / "lib"


def test_the_toolkits_stub_is_not_mistaken_for_the_driver(machine: Machine) -> None:
    machine.cuda("usr/local/cuda")
    stub = machine.file("usr/local/cuda/lib64/stubs/libcuda.so")
    machine.file("usr/local/cuda/lib64/stubs/libcuda.so.1")
    machine.environment["LD_LIBRARY_PATH"] = str(stub.parent)
    found = machine.find()
    assert (found.has_driver, found.stub_library) == (False, stub)
    driver = machine.file("usr/lib/wsl/lib/libcuda.so.1")
    assert machine.find().driver_library == driver


def test_an_nvcc_that_does_not_list_its_architectures_is_accepted(
    machine: Machine,
) -> None:
    machine.cuda("usr/local/cuda", "10.2", listed="exit 1")
    found = machine.find()
    assert (found.cuda, found.architectures) == ("10.2", ())


def test_it_can_be_handed_on_as_json(machine: Machine) -> None:
    machine.cuda("usr/local/cuda")
    machine.complete("usr/local/cuda")
    found = json.loads(json.dumps(machine.find().as_dict()))
    assert found["cuda"] == "13.0"
    assert found["components"]["curand"]["library"].endswith("libcurand.so.10")


def test_the_gpus_are_those_that_nvidia_smi_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find()
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H100 80GB HBM3", "Tesla K80"]
    assert [gpu.compute_capability for gpu in found.gpus] == ["9.0", "3.7"]
    smi.write_text("#!/bin/sh\necho no devices were found\nexit 6\n")
    assert find().gpus == ()


def test_finding_the_tools_of_this_machine_raises_no_error() -> None:
    found = find()
    assert found.cpus >= 1
    assert version_tuple(found.make) >= (3,) or not found.make


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022", "12.2.0"),
        ("gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0\n", "11.4.0"),
        ("gcc (crosstool-NG 1.25.0) 12.3.1\n", "12.3.1"),
        ("gcc (GCC) 14.2.1 20250110 (Red Hat 14.2.1-7)\n", "14.2.1"),
        ("GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu\n", "4.3"),
        ("cmake version 3.25.1\n", "3.25.1"),
        ("git version 2.39.5\n", "2.39.5"),
        ("4.6.0\n", "4.6.0"),
        ("", ""),
        ("no number here\n1.2.3", ""),
    ],
)
def test_versions_are_parsed(printed: str, expected: str) -> None:
    assert parse_version(printed) == expected


def test_the_output_of_nvcc_and_the_header_of_cudnn_are_parsed() -> None:
    assert parse_cuda_version("Cuda compilation tools, release 13.0, V13.0.88") == "13.0"
    assert parse_cuda_version("") == ""
    assert parse_architectures("compute_100\ncompute_75\nbad\ncompute_90a\n") == ("75", "100")
    old = "#define CUDNN_MAJOR 7\n#define CUDNN_MINOR 6\n#define CUDNN_PATCHLEVEL 5\n"
    assert parse_cudnn_version(old) == "7.6.5"
    assert parse_cudnn_version('#include "cudnn_version.h"\n') == ""
