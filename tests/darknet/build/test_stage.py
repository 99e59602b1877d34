"""What ``oiyolo build`` hands out, and what a stage that trains takes from it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet.build import toolchain
from oiyolo.darknet.gpus import Gpu
from oiyolo.darknet.forks import LINES
from oiyolo.darknet.program import Darknet, ask
from oiyolo.darknet.build.proof import prove
from oiyolo.darknet.build.toolchain import Component, Toolchain
from oiyolo.core.errors import DarknetError
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
    """Let the stage see another machine."""
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


def test_a_build_for_cuda_without_a_driver_says_so_and_nothing_trains_with_it(
    cli: Cli, make_project: Callable[..., Path], source: Path,
    machine: Callable[[Toolchain], None],
) -> None:  # fmt: skip
    machine(WITHOUT_DRIVER)
    project = make_project(executable=None, source=str(source), build_gpu="yes", arch="8.6")
    done = cli.ok("build", "--json", project=project).json
    assert (done["gpu"], done["proved"], done["proved_now"]) == (True, False, False)
    assert "no NVIDIA driver" in done["why_unproved"]
    assert done["flags"]["architectures"] == ["86"]
    assert "not proved: it is built for CUDA" in cli.ok("build", project=project).out
    with pytest.raises(DarknetError, match="cannot train on this machine"):
        stage.run(open_project(project))


def test_a_build_for_cuda_with_a_driver_and_no_gpu_is_not_proved_either(
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
    assert "the driver knows no GPU" in done["why_unproved"]
    # Where a GPU answers, it is an error.
    gpu = Gpu(0, "a GPU", 1 << 34, 1 << 34, "8.6", "580.65.06")
    machine(replace(WITHOUT_DRIVER, driver_library=Path("/c/libcuda.so.1"), gpus=(gpu,)))
    assert cli("build", project=project).code == 5


@pytest.mark.darknet
@pytest.mark.usefixtures("darknet")
def test_another_wish_builds_anew_and_is_told(
    cli: Cli, make_project: Callable[..., Path], source: Path,
    machine: Callable[[Toolchain], None],
) -> None:  # fmt: skip
    machine(WITHOUT_DRIVER)
    project = make_project(executable=None, source=str(source))
    done = cli.ok("build", "--json", project=project)
    assert (done.json["gpu"], done.json["proved_now"]) == (False, True)
    assert "no GPU answered; --build-gpu yes" in done.err
    words = ("build", "--build-gpu", "yes", "--arch", "7.5;90")
    plan = cli.ok(*words, "--dry-run", project=project).out
    assert "flags changed: gpu from False to True" in plan
    done = cli.ok(*words, project=project)
    assert "flags changed" in done.err
    assert "CUDA for compute capability 7.5, 9.0" in done.out
    machine(replace(WITHOUT_DRIVER, gcc="2.0"))
    assert "compiler changed: gcc" in cli.ok(*words, project=project).err


def test_arch_that_is_none_is_refused(cli: Cli, make_project: Callable[..., Path]) -> None:
    for wrong in ("Turing", "8.6.1", "", "9"):
        done = cli("build", "--arch", wrong, project=make_project())
        assert done.code == 2
        assert "compute capabilities" in done.err


def test_a_source_without_sources_is_refused(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    done = cli("build", "--source", tmp_path, project=make_project(executable=None))
    assert done.code == 5
    assert "no sources of darknet" in done.err


PROGRAM = """#!/bin/sh
case "$2" in
train) {train} ;;
*) echo 'usage: darknet detector [train/test/valid/demo/map] [data] [cfg] [weights]' ;;
esac
"""


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ('echo " CUDA Error: CUDA driver version is insufficient for CUDA runtime version"; exit 1',
         "older than this CUDA needs"),
        ('echo "CUDA Error: no kernel image is available for execution on the device"; exit 1',
         "not compiled for this GPU"),
        ("exit 0", "Build it anew"),
        ("kill -ILL $$", "signal SIGILL"),
    ],
)  # fmt: skip
def test_a_darknet_that_does_not_train_is_explained(tmp_path: Path, train: str, said: str) -> None:
    program = tmp_path / "darknet"
    program.write_text(PROGRAM.format(train=train))
    program.chmod(0o755)
    with pytest.raises(DarknetError, match="starts but does not train") as caught:
        prove(ask(program, "here"))
    assert said in str(caught.value)


def test_weights_that_are_none_are_no_proof(tmp_path: Path) -> None:
    program = tmp_path / "darknet"
    program.write_text(PROGRAM.format(train="echo hello > proof_final.weights"))
    program.chmod(0o755)
    with pytest.raises(Exception, match=r"proof_final\.weights"):
        prove(Darknet(program, LINES["alexeyab"], gpu=False, origin="here"))
