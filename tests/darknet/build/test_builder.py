"""Building darknet: builds are complete or absent, not repeated needlessly, and keep their log."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import DarknetError
from oiyolo.darknet.build import builder, tree
from oiyolo.darknet.build.builder import BUILD_LOG, RECIPE_FILE
from oiyolo.darknet.build.failures import explain
from oiyolo.darknet.build.flags import Flags
from oiyolo.darknet.build.toolchain import Component, Toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.darknet.build.builder import BuildSpec

MAKEFILE = """\
darknet: src/gemm.c obj backup
\t@echo "compiling with GPU=$(GPU) OPENMP=$(OPENMP) AVX=$(AVX) MAKEFLAGS=$(MAKEFLAGS)"
\t@printf '#!/bin/sh\\necho GPU=$(GPU)\\n' > darknet
\t@chmod +x darknet
\t@touch obj/gemm.o
"""
HERE = Toolchain(gcc="1.0", gxx="1.0", make="4.3", cmake="3.25.1", git="2.39.5")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "src").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    for name in ("gemm.c", "detector.c"):
        (folder / "src" / name).write_text("int gemm;\n")
    (folder / "src" / "old.o").write_text("")
    (folder / "darknet").write_text("an old one, built in place")
    (folder / ".git").write_text("gitdir: elsewhere\n")
    return folder


def build(
    source: Path, folder: Path, flags: Flags | None = None, toolchain: Toolchain = HERE
) -> tuple[BuildSpec, str | None]:
    spec = builder.build_spec(source, folder, flags or Flags(), toolchain)
    return spec, builder.build(spec)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_build_has_its_own_folder_and_leaves_the_sources_unchanged(
    tmp_path: Path, source: Path
) -> None:
    before = contents(source)
    output, _ = build(source, tmp_path / "builds" / "a", Flags(openmp=True))
    assert output.executable == tmp_path / "builds" / "a" / "darknet"
    assert "GPU=0" in output.executable.read_text()
    assert os.access(output.executable, os.X_OK)
    assert contents(source) == before
    assert sorted(path.name for path in output.executable.parent.iterdir()) == [
        *(RECIPE_FILE, BUILD_LOG, "darknet"),
    ]
    assert not list((tmp_path / "builds").glob("*.part"))
    log = output.log_path.read_text()
    assert "compiling with GPU=0 OPENMP=1 AVX=0" in log
    assert log.startswith("$ make -j1 GPU=0")


def test_an_outer_make_does_not_affect_the_build(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEFLAGS", "n --jobserver-auth=3,4")
    assert "jobserver" not in build(source, tmp_path / "build")[0].log_path.read_text()


def test_a_second_build_without_changes_does_nothing(tmp_path: Path, source: Path) -> None:
    first, reason = build(source, tmp_path / "build")
    assert reason == "no earlier output"
    before = contents(tmp_path / "build")
    os.utime(source / "src" / "gemm.c")  # touched, not changed
    (source / "README.md").write_text("new")
    assert build(source, tmp_path / "build") == (first, None)
    assert contents(tmp_path / "build") == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("source", "revision changed: digest from"),
        ("new file", "revision changed: digest from"),
        ("flags", "flags changed: avx from false to true"),
        ("compiler", "compiler changed: gcc from 1.0 to 2.0"),
        ("executable", "the executable is missing"),
        ("stamp", "no earlier output"),
    ],
)
def test_a_change_causes_another_build_and_the_reason_is_logged(
    *, tmp_path: Path, source: Path, change: str, reason: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    folder = tmp_path / "build"
    build(source, folder)
    before = (folder / RECIPE_FILE).stat().st_ino
    flags, toolchain = Flags(), HERE
    if change == "source":
        (source / "src" / "gemm.c").write_text("int gemm, other;\n")
    elif change == "new file":
        (source / "src" / "new.h").write_text("")
    elif change == "flags":
        flags = Flags(avx=True)
    elif change == "compiler":
        toolchain = replace(HERE, gcc="2.0")
    elif change == "executable":
        (folder / "darknet").unlink()
    else:
        (folder / RECIPE_FILE).unlink()
    with caplog.at_level("INFO", logger="oiyolo"):
        _, actual = build(source, folder, flags, toolchain)
    assert actual is not None
    assert actual.startswith(reason)
    assert reason in caplog.text
    assert (folder / RECIPE_FILE).stat().st_ino != before
    assert build(source, folder, flags, toolchain)[1] is None


def test_tools_that_a_cpu_build_does_not_use_do_not_make_it_stale(
    tmp_path: Path, source: Path
) -> None:
    build(source, tmp_path / "build")
    other = replace(HERE, cmake="4.1.0", cuda="13.0", opencv="5.0.0", cudnn="9.1.0")
    assert build(source, tmp_path / "build", toolchain=other)[1] is None


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        ("@exit 3", "exit code 2"),
        ("@true", "exit code 0, but no executable"),
        ("@kill -SEGV $$$$", "exit code 2"),
    ],
)
def test_a_failed_build_is_reported_with_its_last_lines_and_its_log(
    tmp_path: Path, source: Path, command: str, failure: str
) -> None:
    lines = "".join(f"\t@echo line {number}\n" for number in range(20))
    (source / "Makefile").write_text(f"all:\n{lines}\t@echo oh no >&2\n\t{command}\n")
    folder = tmp_path / "build"
    with pytest.raises(DarknetError) as caught:
        build(source, folder)
    log_path = tmp_path / "build-failed.log"
    assert caught.value.exit_code == 5
    assert caught.value.where == str(source)
    assert failure in caught.value.what
    assert str(log_path) in caught.value.found
    assert "oh no" in caught.value.found
    assert "line 2\n" not in caught.value.found
    assert "line 2\n" in log_path.read_text()
    assert not folder.exists()
    # A failed build is not recorded as complete, and its log is deleted once a build succeeds.
    (source / "Makefile").write_text(MAKEFILE)
    assert build(source, folder)[0].executable.is_file()
    assert not log_path.exists()


def test_a_known_failure_is_explained(tmp_path: Path, source: Path) -> None:
    output = "nvcc fatal   : Unsupported gpu architecture 'compute_37'"
    (source / "Makefile").write_text(f'all:\n\t@echo "{output}"; exit 1\n')
    with pytest.raises(DarknetError) as caught:
        build(source, tmp_path / "build")
    assert "3.7" in caught.value.what
    assert "CUDA 11.8 is the last" in caught.value.remedy


def test_a_failed_build_keeps_the_previous_one(tmp_path: Path, source: Path) -> None:
    output, _ = build(source, tmp_path / "build")
    before = contents(tmp_path / "build")
    (source / "Makefile").write_text("all:\n\t@exit 1\n")
    with pytest.raises(DarknetError):
        build(source, tmp_path / "build")
    assert contents(tmp_path / "build") == before
    assert output.executable.is_file()


CHILD = """
import sys
from pathlib import Path
from oiyolo.darknet.build import builder
from oiyolo.darknet.build.flags import Flags
from oiyolo.darknet.build.toolchain import Toolchain
here = Toolchain(gcc="1.0", gxx="1.0", make="4.3")
builder.build(builder.build_spec(Path(sys.argv[1]), Path(sys.argv[2]), Flags(), here))
"""


def start(source: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(source), str(folder)])


def wait_for(path: Path, pattern: str) -> None:
    until = time.monotonic() + 60
    while not list(path.glob(pattern)):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_build_is_not_taken_for_complete(tmp_path: Path, source: Path) -> None:
    # The program exists and is still being written.
    (source / "Makefile").write_text(
        "all:\n\t@echo half > darknet; chmod +x darknet; touch begun; sleep 600\n"
    )
    folder = tmp_path / "builds" / "a"
    child = start(source, folder)
    wait_for(tmp_path / "builds", "*.part/tree/begun")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not folder.exists()
    (source / "Makefile").write_text(MAKEFILE)
    assert "GPU=0" in build(source, folder)[0].executable.read_text()
    assert not list((tmp_path / "builds").glob("*.part"))


def test_two_builds_at_the_same_time_build_once(tmp_path: Path, source: Path) -> None:
    (source / "Makefile").write_text(
        f"all:\n\t@echo x >> {tmp_path}/count; sleep 1; echo done > darknet; chmod +x darknet\n"
    )
    children = [start(source, tmp_path / "build") for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert (tmp_path / "count").read_text() == "x\n"


@pytest.mark.parametrize("tool", ["make", "gcc", "gxx"])
def test_a_missing_tool_is_named_with_the_package_that_contains_it(
    tmp_path: Path, source: Path, tool: str
) -> None:
    without = {"make": replace(HERE, make=""), "gcc": replace(HERE, gcc="")}
    with pytest.raises(DarknetError) as caught:
        build(source, tmp_path / "build", toolchain=without.get(tool, replace(HERE, gxx="")))
    assert "build-essential" in caught.value.remedy
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("files", "fork"),
    [
        (["Makefile", "src/gemm.c", "src/detector.c", "CMakeLists.txt"], "alexeyab"),
        (["Makefile", "src/gemm.c", "examples/detector.c"], "pjreddie"),
        (["CMakeLists.txt", "src-lib/CMakeLists.txt", "src-cli/CMakeLists.txt"], "hank"),
        (["Makefile", "src/gemm.c"], None),
        (["README.md"], None),
        ([], None),
    ],
)
def test_a_source_tree_is_recognised_by_its_files(
    tmp_path: Path, files: list[str], fork: str | None
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert tree.fork_of(tmp_path) == fork
    assert tree.has_sources(tmp_path) == (fork is not None)
    if fork is None:
        with pytest.raises(DarknetError) as caught:
            build(tmp_path, tmp_path / "build")
        assert caught.value.where == str(tmp_path)


def test_the_revision_is_read_without_changing_the_repository(tmp_path: Path, source: Path) -> None:
    (source / ".git").unlink()
    git(source, "init", "-q")
    git(source, "add", "src/*.c", "Makefile")
    git(source, "commit", "-qm", "one")
    git(source, "tag", "v5.1")
    # The command with which hank-ai's build asks git for the version, in its build folder.
    (source / "Makefile").write_text(MAKEFILE + "\t@cd obj && git describe --tags --dirty --long\n")
    git(source, "commit", "-qam", "probe", "--amend")
    git(source, "tag", "-f", "v5.1")
    os.utime(source / "src" / "gemm.c")  # tempts git to refresh its index
    before = contents(source / ".git")
    revision = tree.revision(source)
    assert revision.commit == git(source, "rev-parse", "HEAD")
    assert (revision.git_describe or "").startswith("v5.1-0-g")
    output, _ = build(source, tmp_path / "build")
    assert output.revision.name == revision.commit
    assert re.search(
        r"^v5\.1-0-g[0-9a-f]+$", output.log_path.read_text(), re.MULTILINE
    )  # not dirty
    assert contents(source / ".git") == before
    git(source, "commit", "-qm", "two", "--allow-empty")
    _, reason = build(source, tmp_path / "build")
    assert reason is not None
    assert reason.startswith("revision changed: commit from")


def test_a_repository_of_another_owner_is_named_with_gits_remedy(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / ".git").unlink()
    assert tree.revision(source).git_error == ""  # no repository
    git(source, "init", "-q")
    git(source, "commit", "-qm", "one", "--allow-empty")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # of git's own tests
    refused = tree.revision(source).git_error
    failure = explain(refused)
    assert failure is not None
    assert f"git config --global --add safe.directory {source}" in failure.remedy
    assert "tags" not in failure.what


def test_a_folder_in_another_repository_has_no_revision_of_its_own(
    tmp_path: Path, source: Path
) -> None:
    (source / ".git").unlink()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "source")
    git(tmp_path, "commit", "-qm", "one")
    revision = tree.revision(source)
    assert (revision.commit, revision.git_describe) == ("", None)
    assert revision.name.startswith("sources ")


def test_without_git_the_digest_of_the_sources_is_the_revision(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_git = tree.revision(source)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert tree.revision(source) == with_git


@pytest.mark.parametrize("driver", ["driver", "stub", "neither"])
def test_a_cuda_build_links_with_and_without_a_driver(
    tmp_path: Path, source: Path, driver: str
) -> None:
    # A program that needs one function of the driver, from a libcuda with the driver's soname.
    code = "int cuCtxGetCurrent(void **context); int main(void) { return cuCtxGetCurrent(0); }"
    (source / "src" / "main.c").write_text(code)
    (source / "Makefile").write_text("all:\n\t$(CC) src/main.c -o darknet -lcuda -lcurand\n")
    library = tmp_path / "cuda" / "lib" / "libcurand.so.10"
    library.parent.mkdir(parents=True)
    stub = tmp_path / "cuda" / "lib" / "stubs" / "libcuda.so"
    stub.parent.mkdir()
    (tmp_path / "c.c").write_text("int curand; int cuCtxGetCurrent(void **c) { return !c; }")
    for path, name in ((library, "libcurand.so.10"), (stub, "libcuda.so.1")):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", path, tmp_path / "c.c"],
            check=True,
        )
    parts = {name: Component(tmp_path / "cuda", library) for name in ("cudart", "cublas", "curand")}
    toolchain = replace(
        HERE,
        nvcc=tmp_path / "nvcc",
        cuda="13.0",
        components=parts,
        driver_library=stub if driver == "driver" else None,
        stub_library=stub if driver == "stub" else None,
    )
    folder = tmp_path / "my builds" / "it's one"
    output, _ = build(source, folder, Flags(gpu=True, architectures=("86",)), toolchain)
    dynamic = subprocess.run(
        ["readelf", "-d", output.executable], capture_output=True, text=True, check=True
    ).stdout
    assert "[libcuda.so.1]" in dynamic
    assert f"[{library.parent}]" in dynamic  # where the program finds its libraries at start
    assert "part/links" not in dynamic
