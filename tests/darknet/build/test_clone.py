"""Fetching the sources at the pinned commit, and the order in which a build looks for darknet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core.errors import UnavailableError
from oiyolo.darknet.build import clone as clone_of
from oiyolo.darknet.build.clone import PINNED_COMMIT, clone, clone_folder
from oiyolo.darknet.build.tree import revision
from oiyolo.project.keys import DarknetOptions
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

ROOT = Path(__file__).resolve().parents[3]
NOWHERE = "/nonexistent/darknet.git"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# Replaces the compilation, which takes minutes: it copies the darknet on PATH.
MAKEFILE = "darknet:\n\tcp {program} darknet\n"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bare repository whose pinned commit is not the latest."""
    work = tmp_path / "work"
    (work / "src").mkdir(parents=True)
    program = shutil.which("darknet") or "/bin/true"
    (work / "Makefile").write_text(MAKEFILE.format(program=program))
    for name in ("gemm.c", "detector.c"):
        (work / "src" / name).write_text("int a;\n")
    git(work, "init", "-q")
    git(work, "add", ".")
    git(work, "commit", "-qm", "the one")
    monkeypatch.setattr(clone_of, "PINNED_COMMIT", git(work, "rev-parse", "HEAD"))
    (work / "src" / "gemm.c").write_text("int later;\n")
    git(work, "commit", "-qam", "later")
    bare = tmp_path / "remote.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    return bare


def test_the_pinned_commit_is_the_one_of_the_submodule() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    mode, commit, *_ = git(ROOT, "ls-files", "-s", "darknet").split()
    assert (mode, commit) == ("160000", PINNED_COMMIT)
    assert DarknetOptions().source_url == git(
        ROOT, "config", "-f", ".gitmodules", "submodule.darknet.url"
    )


def test_the_pinned_commit_is_defined_once() -> None:
    found = [
        path.name
        for path in (ROOT / "oiyolo").rglob("*.py")
        if PINNED_COMMIT[:12] in path.read_text(encoding="utf-8")
    ]
    assert found == ["clone.py"]


def test_only_the_pinned_commit_is_fetched_and_only_once(remote: Path, tmp_path: Path) -> None:
    folder = clone(str(remote), tmp_path / "cache")
    assert folder == clone_folder(tmp_path / "cache")
    assert (folder / "src" / "gemm.c").read_text() == "int a;\n"
    assert git(folder, "rev-list", "--count", "HEAD") == "1"
    shutil.rmtree(remote)
    assert clone(str(remote), tmp_path / "cache") == folder


def test_a_source_url_is_never_an_option_or_a_program(
    cli: Cli, bare_project: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    for address in (f"--upload-pack=touch {marker};", f"ext::sh -c touch% {marker}"):
        with pytest.raises(UnavailableError):
            clone(address, tmp_path / "cache")
        for command in ("build", "doctor", "plan"):
            assert cli(command, "--source-url", address, project=bare_project).code == 2
    assert not marker.exists()


def test_a_git_hook_s_environment_does_not_redirect_the_clone(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-qm", "other", "--allow-empty")
    head = git(other, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    folder = clone(str(remote), tmp_path / "cache")
    assert revision(folder).commit == clone_of.PINNED_COMMIT
    monkeypatch.delenv("GIT_DIR")
    assert git(other, "rev-parse", "HEAD") == head


def test_credentials_of_a_source_url_are_not_shown_logged_or_stored(
    cli: Cli, bare_project: Path, tmp_path: Path
) -> None:
    url = "http://me:secret@127.0.0.1:1/darknet.git"
    for words in (["build", "-vv"], ["build", "--dry-run"], ["doctor", "--offline", "--json"]):
        done = cli(*words, "--source-url", url, project=bare_project)
        assert "secret" not in done.out + done.err
        assert words != ["build", "-vv"] or "http://127.0.0.1:1/darknet.git" in done.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in written)


@pytest.mark.parametrize("leftover", ["a partial clone", "an empty folder of its name"])
def test_an_interrupted_clone_is_not_taken_for_complete(
    remote: Path, tmp_path: Path, leftover: str
) -> None:
    folder = clone_folder(tmp_path / "cache")
    half = folder.with_name(folder.name + ".part") if leftover == "a partial clone" else folder
    (half / "src").mkdir(parents=True)
    if half != folder:
        (half / "Makefile").write_text("half")
        (half / ".git").mkdir()
    else:
        (half / "src").rmdir()
    assert git(clone(str(remote), tmp_path / "cache"), "status", "--porcelain") == ""
    assert not folder.with_name(folder.name + ".part").exists()


@pytest.mark.parametrize("fault", ["no repository", "another repository"])
def test_a_failed_fetch_is_an_error_and_leaves_no_files(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    url = NOWHERE if fault == "no repository" else str(remote)
    if fault == "another repository":
        monkeypatch.setattr(clone_of, "PINNED_COMMIT", "1" * 40)
    with pytest.raises(UnavailableError) as caught:
        clone(url, tmp_path / "cache")
    assert caught.value.where == url
    assert caught.value.found.startswith(("fatal:", "error:"))
    assert [path.name for path in (tmp_path / "cache" / "sources").iterdir()] == [
        path.name for path in (tmp_path / "cache" / "sources").glob(".*.lock")
    ]


def test_without_git_nothing_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError) as caught:
        clone(NOWHERE, tmp_path / "cache")
    assert "apt-get install git" in caught.value.remedy


@pytest.fixture
def bare_project(
    make_project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project without darknet sources; the checkout's submodule is hidden, too."""
    monkeypatch.setattr(
        "oiyolo.stages.build.__file__", str(tmp_path / "a" / "b" / "c" / "build.py")
    )
    return make_project(limit=20, executable=None, cache=str(tmp_path / "cache"))


@pytest.mark.darknet
def test_build_without_sources_fetches_builds_and_verifies_them(
    cli: Cli, bare_project: Path, remote: Path, darknet: Path
) -> None:
    words = ("build", "--source-url", remote, "--build-gpu", "no", "--json")
    first = cli.ok(*words, project=bare_project).json
    assert first["origin"].startswith("built from")
    assert first["executable"] != str(darknet)
    assert first["revision"] == clone_of.PINNED_COMMIT
    assert (first["proved"], first["proved_now"]) == (True, True)
    assert first["built_because"] == "no earlier output"
    assert "cp" in Path(first["log"]).read_text()
    second = cli.ok(*words, project=bare_project).json
    assert second == {**first, "proved_now": False, "built_because": None}
    # Without the URL, the build is used from now on.
    plan = cli.ok("build", "--build-gpu", "no", "--dry-run", project=bare_project).out
    assert re.search(r"build would use .*, which is already built", plan)


@pytest.fixture
def path_without_darknet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the darknet on PATH, and nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in os.environ["PATH"].split(os.pathsep):
        for program in Path(name).iterdir() if Path(name).is_dir() else ():
            if program.name != "darknet" and not os.path.lexists(folder / program.name):
                (folder / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.darknet
@pytest.mark.usefixtures("darknet", "remote", "path_without_darknet")
def test_training_fetches_and_builds_darknet_where_there_is_none(
    cli: Cli, bare_project: Path, tmp_path: Path
) -> None:
    oiyolo.fetch(bare_project)
    oiyolo.split(bare_project)
    url = str(tmp_path / "remote.git")
    words = ("train", "--source-url", url, "--build-gpu", "no", "--engine", "darknet")
    plan = cli.ok(*words, "--dry-run", project=bare_project).out
    assert f"fetch {url} at {PINNED_COMMIT[:12]} and build it, then train with it" in plan
    assert not (tmp_path / "cache" / "sources").exists()
    cli.ok(*words, "--max-batches", "2", project=bare_project)
    (run,) = runs_in(bare_project / "runs")
    assert run.record["darknet"]["revision"] == clone_of.PINNED_COMMIT
    assert "and build it" not in cli.ok(*words, "--dry-run", project=bare_project).out

    cache = tmp_path / "cache"
    shutil.rmtree(cache / "sources")
    (built,) = (cache / "builds").glob("*/darknet")
    assert f"use {built}" in cli.ok("build", "--dry-run", project=bare_project).out
    scoring = ("evaluate", "--with", "darknet", "--source-url", url, "--dry-run")
    assert "and build it" not in cli.ok(*scoring, project=bare_project).out
    shutil.rmtree(cache / "builds")
    assert f"fetch {url} at {PINNED_COMMIT[:12]}" in cli.ok(*scoring, project=bare_project).out


@pytest.mark.darknet
def test_a_stage_that_finds_a_darknet_fetches_none(
    bare_project: Path, remote: Path, darknet: Path, tmp_path: Path
) -> None:
    project = open_project(bare_project, {"source_url": str(remote)})
    assert build_stage.run(project).darknet.executable == darknet
    assert not (tmp_path / "cache" / "sources").exists()


@pytest.mark.darknet
def test_after_a_failed_fetch_the_darknet_on_path_is_used_with_a_warning(
    cli: Cli, bare_project: Path, darknet: Path
) -> None:
    done = cli.ok("build", "--source-url", NOWHERE, project=bare_project)
    assert "cannot fetch darknet's sources" in done.err
    assert f"{darknet} (" in done.out
    assert "on PATH" in done.out


def test_without_sources_and_without_a_program_the_error_names_both(
    cli: Cli, bare_project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    git_path = shutil.which("git")
    assert git_path is not None
    (tmp_path / "bin" / "git").symlink_to(git_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = cli("build", "--source-url", NOWHERE, project=bare_project)
    assert done.code == 5
    assert "no darknet found" in done.err
    assert NOWHERE in done.err
    assert "apt-get install darknet" in done.err


def test_a_dry_run_reports_the_fetch_without_fetching(
    cli: Cli, bare_project: Path, tmp_path: Path
) -> None:
    done = cli.ok("build", "--source-url", NOWHERE, "--dry-run", project=bare_project)
    assert f"fetch {NOWHERE} at {PINNED_COMMIT[:12]}" in done.out
    assert not (tmp_path / "cache" / "sources").exists()
