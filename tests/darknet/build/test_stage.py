"""The results of ``oiyolo build``, and which of them a training accepts."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import DarknetError, InputFormError
from oiyolo.darknet.build import toolchain
from oiyolo.darknet.build.proof import verify
from oiyolo.darknet.build.toolchain import Component, Toolchain
from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.program import Darknet, probe
from oiyolo.project.project import open_project
from oiyolo.stages import build as stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

PARTS = {name: Component(Path("/c/include"), Path("/c/lib.so")) for name in
         ("cudart", "cublas", "curand")}  # fmt: skip
WITHOUT_DRIVER = Toolchain(
    gcc="1.0",
    gxx="1.0",
    make="4.3",
    nvcc=Path("/c/bin/nvcc"),
    cuda="13.0",
    architectures=("75", "86", "90"),
    components=PARTS,
    stub_library=Path("/c/stubs/libcuda.so"),
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Toolchain], None]:
    """Replace the toolchain that the stage finds."""
    return lambda seen: monkeypatch.setattr(toolchain, "find", lambda: seen)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "src").mkdir(parents=True)
    for name in ("gemm.c", "detector.c"):
        (folder / "src" / name).write_text("int a;\n")
    program = shutil.which("darknet") or "/bin/true"
    (folder / "Makefile").write_text(f"all:\n\tcp {program} darknet\n")
    return folder


def test_a_program_for_another_processor_is_explained(cli: Cli, tmp_path: Path) -> None:
    program = tmp_path / "darknet"
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    program.chmod(0o755)
    done = cli("build", "--executable", program, "--json", project=tmp_path)
    assert done.code == 5
    error = json.loads(done.err if done.err.startswith("{") else done.out)
    assert "illegal instruction" in error["error"]
    assert error["found"] == "signal SIGILL"


def test_a_relative_executable_is_not_searched_for_on_path(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "on-path"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "darknet").write_text(f"#!/bin/sh\necho {name}\nexit 3\n")
        (tmp_path / name / "darknet").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'on-path'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path / "here")
    done = cli("build", "--executable", "./darknet", project=tmp_path)
    assert done.code == 5
    assert "'here'" in done.err


def test_a_cuda_build_without_a_driver_is_unverified_and_not_trained_with(
    cli: Cli, make_project: Callable[..., Path], source: Path,
    machine: Callable[[Toolchain], None],
) -> None:  # fmt: skip
    machine(WITHOUT_DRIVER)
    project = make_project(executable=None, source=str(source), build_gpu="yes", arch="8.6")
    done = cli.ok("build", "--json", project=project).json
    assert (done["gpu"], done["proved"], done["proved_now"]) == (True, False, False)
    assert "no NVIDIA driver" in done["why_unproved"]
    assert done["flags"]["architectures"] == ["86"]
    assert "not verified: it is built for CUDA" in cli.ok("build", project=project).out
    with pytest.raises(DarknetError) as caught:
        stage.run(open_project(project))
    assert caught.value.found == done["why_unproved"]


def test_a_cuda_build_with_a_driver_but_no_gpu_is_unverified(
    cli: Cli, make_project: Callable[..., Path], source: Path,
    machine: Callable[[Toolchain], None],
) -> None:  # fmt: skip
    machine(replace(WITHOUT_DRIVER, driver_library=Path("/c/libcuda.so.1")))
    program = source / "program"
    program.write_text("#!/bin/sh\necho 'CUDA Error: no CUDA-capable device is detected'; exit 1\n")
    program.chmod(0o755)
    (source / "Makefile").write_text("all:\n\tcp program darknet\n")
    project = make_project(executable=None, source=str(source), build_gpu="yes", arch="8.6")
    done = cli.ok("build", "--json", project=project).json
    assert not done["proved"]
    assert "the driver detects no GPU" in done["why_unproved"]
    # If nvidia-smi lists a GPU, it is an error.
    gpu = Gpu(0, "a GPU", 1 << 34, 1 << 34, "8.6", "580.65.06")
    machine(replace(WITHOUT_DRIVER, driver_library=Path("/c/libcuda.so.1"), gpus=(gpu,)))
    assert cli("build", project=project).code == 5


@pytest.mark.darknet
@pytest.mark.usefixtures("darknet")
def test_another_option_causes_another_build_and_a_message(
    cli: Cli, make_project: Callable[..., Path], source: Path,
    machine: Callable[[Toolchain], None],
) -> None:  # fmt: skip
    machine(WITHOUT_DRIVER)
    project = make_project(executable=None, source=str(source))
    done = cli.ok("build", "--json", project=project)
    assert (done.json["gpu"], done.json["proved_now"]) == (False, True)
    assert "no GPU detected; to use CUDA 13.0 anyway, pass --build-gpu yes" in done.err
    words = ("build", "--build-gpu", "yes", "--arch", "7.5;90")
    plan = cli.ok(*words, "--dry-run", project=project).out
    assert "flags changed: gpu from false to true" in plan
    done = cli.ok(*words, project=project)
    assert "flags changed" in done.err
    assert "CUDA for compute capability 7.5, 9.0" in done.out
    machine(replace(WITHOUT_DRIVER, gcc="2.0"))
    assert "compiler changed: gcc" in cli.ok(*words, project=project).err


def test_an_invalid_arch_is_refused(cli: Cli, make_project: Callable[..., Path]) -> None:
    for wrong in ("Turing", "8.6.1", "", "9"):
        done = cli("build", "--arch", wrong, project=make_project())
        assert done.code == 2
        assert "compute capabilities" in done.err


def test_a_source_folder_without_sources_is_refused(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    done = cli("build", "--source", tmp_path, project=make_project(executable=None))
    assert done.code == 5
    assert "no darknet sources" in done.err


PROGRAM = """#!/bin/sh
case "$2" in
train) {train} ;;
*) echo 'usage: darknet detector [train/test/valid/demo/map] [data] [cfg] [weights]' ;;
esac
"""


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ('echo " CUDA Error: CUDA driver version is insufficient for CUDA runtime version"; exit 1',
         "older than this CUDA needs"),
        ('echo "CUDA Error: no kernel image is available for execution on the device"; exit 1',
         "not compiled for this GPU"),
        ("exit 0", "Build it again"),
        ("kill -ILL $$", "signal SIGILL"),
    ],
)  # fmt: skip
def test_a_darknet_that_does_not_train_is_explained(
    tmp_path: Path, train: str, message: str
) -> None:
    program = tmp_path / "darknet"
    program.write_text(PROGRAM.format(train=train))
    program.chmod(0o755)
    with pytest.raises(DarknetError) as caught:
        verify(probe(program, "here"))
    assert caught.value.where == str(program)
    assert message in str(caught.value)


def test_invalid_weights_fail_the_verification(tmp_path: Path) -> None:
    program = tmp_path / "darknet"
    program.write_text(PROGRAM.format(train="echo hello > proof_final.weights"))
    program.chmod(0o755)
    with pytest.raises(InputFormError) as caught:
        verify(Darknet(program, FORKS["alexeyab"], gpu=False, origin="here"))
    assert caught.value.where.endswith("proof_final.weights")
