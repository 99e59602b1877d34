"""Building darknet: in a folder of its own, once, and with the log kept."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet import make
from oiyolo.darknet.make import Flags, build, choose_flags, has_sources
from oiyolo.errors import DarknetError

if TYPE_CHECKING:
    from pathlib import Path

MAKEFILE = """\
darknet: src/gemm.c obj backup
\t@echo "compiling with GPU=$(GPU) OPENMP=$(OPENMP) AVX=$(AVX)"
\t@printf '#!/bin/sh\\necho GPU=$(GPU)\\n' > darknet
\t@chmod +x darknet
\t@touch obj/gemm.o
\t@echo built >> built.txt
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "src").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "src" / "gemm.c").write_text("int gemm;\n")
    (folder / "src" / "old.o").write_text("")
    (folder / ".git").write_text("gitdir: elsewhere\n")
    return folder


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a gcc and a g++ that need not be installed."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("gcc", "g++"):
        (folder / name).write_text("#!/bin/sh\necho gcc 1.0\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def times_built(folder: Path) -> int:
    return len((folder / "built.txt").read_text().splitlines())


def test_it_is_built_in_a_folder_of_its_own_and_the_sources_stay(
    tmp_path: Path, source: Path
) -> None:
    before = contents(source)
    executable = build(source, tmp_path / "build", Flags(OPENMP=1))
    assert executable == tmp_path / "build" / "darknet"
    assert os.access(executable, os.X_OK)
    assert contents(source) == before
    assert not (tmp_path / "build" / ".git").exists()
    assert not (tmp_path / "build" / "src" / "old.o").exists()
    log = (tmp_path / "build" / make.BUILD_LOG).read_text()
    assert "compiling with GPU=0 OPENMP=1 AVX=0" in log


def test_a_second_build_with_nothing_new_does_nothing(tmp_path: Path, source: Path) -> None:
    build(source, tmp_path / "build", Flags())
    before = contents(tmp_path / "build")
    (tmp_path / "build" / "built.txt").write_text("built\nmark\n")
    build(source, tmp_path / "build", Flags())
    after = contents(tmp_path / "build")
    assert {name: after[name] for name in before if name != "built.txt"} == {
        name: before[name] for name in before if name != "built.txt"
    }
    assert times_built(tmp_path / "build") == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("source", "sources changed"),
        ("new file", "sources changed"),
        ("flags", "flags changed: AVX from 0 to 1"),
        ("compiler", "compiler changed"),
        ("executable", "the executable is gone"),
        ("stamp", "it was not made yet"),
    ],
)
def test_what_changed_is_built_again_and_the_reason_is_told(
    *, tmp_path: Path, source: Path, tools: Path, change: str, reason: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    folder = tmp_path / "build"
    build(source, folder, Flags())
    (folder / "built.txt").write_text("mark\n")
    flags = Flags()
    if change == "source":
        (source / "src" / "gemm.c").write_text("int gemm, other;\n")
    elif change == "new file":
        (source / "src" / "new.h").write_text("")
    elif change == "flags":
        flags = Flags(AVX=1)
    elif change == "compiler":
        (tools / "gcc").write_text("#!/bin/sh\necho gcc 2.0\n")
    elif change == "executable":
        (folder / "darknet").unlink()
    else:
        (folder / make._STAMP).unlink()
    with caplog.at_level("INFO", logger="oiyolo"):
        build(source, folder, flags)
    assert "mark" not in (folder / "built.txt").read_text()  # from the beginning
    assert reason in caplog.text


def test_what_darknets_sources_are_not_does_not_count(tmp_path: Path, source: Path) -> None:
    build(source, tmp_path / "build", Flags())
    (tmp_path / "build" / "built.txt").write_text("mark\n")
    (source / "README.md").write_text("new")
    build(source, tmp_path / "build", Flags())
    assert (tmp_path / "build" / "built.txt").read_text() == "mark\n"


@pytest.mark.parametrize(
    ("recipe", "ended"),
    [("@exit 3", "exit code 2"), ("@true", "exit code 0"), ("@kill -SEGV $$$$", "exit code 2")],
)
def test_a_build_that_fails_is_told_with_its_last_lines_and_its_log(
    tmp_path: Path, source: Path, recipe: str, ended: str
) -> None:
    lines = "".join(f"\t@echo line {number}\n" for number in range(20))
    (source / "Makefile").write_text(f"all:\n{lines}\t@echo nvcc fatal >&2\n\t{recipe}\n")
    with pytest.raises(DarknetError, match="could not be built") as caught:
        build(source, tmp_path / "build", Flags())
    log_path = tmp_path / "build" / make.BUILD_LOG
    assert caught.value.exit_code == 5
    assert ended in caught.value.what
    assert str(log_path) in caught.value.found
    assert "nvcc fatal" in caught.value.found
    assert "line 2\n" not in caught.value.found
    assert "line 2\n" in log_path.read_text()
    # A failure is not remembered as done.
    (source / "Makefile").write_text(MAKEFILE)
    assert build(source, tmp_path / "build", Flags()).is_file()


def test_a_tool_that_is_missing_is_told_with_the_package_that_has_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(DarknetError, match="make is needed") as caught:
        build(source, tmp_path / "build", Flags())
    assert "build-essential" in caught.value.remedy
    assert not (tmp_path / "build").exists()


def test_an_empty_submodule_holds_no_sources(tmp_path: Path, source: Path) -> None:
    assert has_sources(source)
    assert not has_sources(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert not has_sources(tmp_path / "empty")
    (source / "src" / "gemm.c").unlink()
    assert not has_sources(source)


NVCC = "/usr/bin/nvcc"
ONE_GPU = "-gencode arch=compute_86,code=[sm_86,compute_86]"
TWO_GPUS = f"-gencode arch=compute_75,code=[sm_75,compute_75] {ONE_GPU}"


@pytest.mark.parametrize(
    ("wish", "nvcc", "gpus", "cudnn", "processor", "expected"),
    [
        ("no", True, ["8.6"], 1, {"avx", "avx2", "fma"}, Flags(OPENMP=1, AVX=1)),
        ("no", False, [], 0, {"avx"}, Flags(OPENMP=1)),
        ("auto", False, [], 0, set(), Flags(OPENMP=1)),
        ("auto", True, [], 1, set(), Flags(OPENMP=1)),
        ("auto", False, ["8.6"], 1, set(), Flags(OPENMP=1)),
        ("auto", True, ["8.6"], 1, set(), Flags(GPU=1, CUDNN=1, OPENMP=1, ARCH=ONE_GPU, NVCC=NVCC)),
        ("auto", True, ["7.5", "8.6"], 0, set(), Flags(GPU=1, OPENMP=1, ARCH=TWO_GPUS, NVCC=NVCC)),
        ("yes", True, ["8.6"], 0, {"avx", "avx2", "fma"},
         Flags(GPU=1, OPENMP=1, AVX=1, ARCH=ONE_GPU, NVCC=NVCC)),
        ("yes", False, ["8.6"], 0, set(), "nvcc was not found"),
        ("yes", True, [], 0, set(), "no GPU answered"),
    ],
)  # fmt: skip
def test_the_switches_fit_the_machine(
    *,
    monkeypatch: pytest.MonkeyPatch,
    wish: str,
    gpus: list[str],
    cudnn: int,
    processor: set[str],
    expected: Flags | str,
    nvcc: bool,
) -> None:
    monkeypatch.setattr(make, "_compute_capabilities", lambda: gpus)
    monkeypatch.setattr(make, "_has_cudnn", lambda: cudnn)
    monkeypatch.setattr(make, "_processor_flags", lambda: processor)
    monkeypatch.setattr("shutil.which", lambda name: NVCC if nvcc and name == "nvcc" else None)
    if isinstance(expected, str):
        with pytest.raises(DarknetError, match=expected):
            choose_flags(wish)
    else:
        assert choose_flags(wish) == expected


def test_switches_are_given_as_make_takes_them() -> None:
    assert Flags(GPU=1, ARCH="-gencode a b").arguments() == [
        "GPU=1", "CUDNN=0", "OPENCV=0", "OPENMP=0", "AVX=0", "ARCH=-gencode a b",
    ]  # fmt: skip
    assert not any(argument.startswith("ARCH") for argument in Flags().arguments())
