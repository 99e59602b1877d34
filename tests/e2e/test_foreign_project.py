"""A project that was received from another user: tampered with, or not writable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import oiyolo
from tests.support.read_only import as_nobody, on_read_only_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli

VICTIM = "../../../../victim"
"""An "ImageID" that leads from data/dataset/obj to the folder that contains the project."""


@pytest.fixture(scope="module")
def original(make_project: Callable[..., Path]) -> Path:
    project = make_project(limit=20, cache="cache")
    oiyolo.fetch(project)
    oiyolo.split(project)
    return project


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(original, folder, symlinks=True)
    for suffix in (".jpg", ".txt"):
        (tmp_path / f"victim{suffix}").write_text("kept")
    return folder


def an_id(project: Path) -> str:
    return min(path.stem for path in (project / "data" / "dataset" / "obj").glob("*.jpg"))


def check_victim(project: Path) -> None:
    for suffix in (".jpg", ".txt"):
        assert (project.parent / f"victim{suffix}").read_text() == "kept"


def change_ledger(project: Path, column: str, value: str) -> None:
    db = sqlite3.connect(project / "data" / "ledger.sqlite")
    statements = {
        "image_id": "UPDATE images SET image_id = ? WHERE image_id = ?",
        "state": "UPDATE images SET state = ? WHERE image_id = ?",
        "phash": "UPDATE images SET phash = ? WHERE image_id = ?",
    }
    db.execute(statements[column], (value, an_id(project)))
    db.commit()
    db.close()


def change_text(path: Path, before: str, after: str) -> None:
    path.write_text(path.read_text().replace(before, after))


def change_selection(project: Path, name: str, before: str, after: str) -> None:
    """Change a table of the selection, and its checksum with it."""
    folder = project / "data" / "selection"
    change_text(folder / name, before, after)
    path = folder / "selection.json"
    summary = json.loads(path.read_text())
    summary["tables"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(summary))


@pytest.mark.parametrize("command", ["prepare --size 64x64", "split", "split --check"])
def test_an_invalid_id_in_the_ledger_is_refused(cli: Cli, project: Path, command: str) -> None:
    change_ledger(project, "image_id", VICTIM)
    done = cli(*command.split(), "--json", project=project)
    assert done.code == 3
    assert done.json["where"].endswith("ledger.sqlite")
    assert "victim" in done.json["found"]
    check_victim(project)


@pytest.mark.parametrize(
    ("column", "commands"),
    [("state", ["status", "prepare"]), ("phash", ["split", "split --check"])],
)
def test_other_invalid_values_in_the_ledger_are_refused(
    cli: Cli, project: Path, column: str, commands: list[str]
) -> None:
    change_ledger(project, column, VICTIM)
    for command in commands:
        done = cli(*command.split(), "--json", project=project)
        assert done.code == 3
        assert done.json["where"].endswith("ledger.sqlite")


@pytest.mark.parametrize("name", ["boxes.csv", "images.csv"])
def test_an_invalid_id_in_the_selection_is_refused(cli: Cli, project: Path, name: str) -> None:
    change_selection(project, name, an_id(project), VICTIM)
    done = cli("prepare", "--size", "64x64", "--json", project=project)
    assert done.code == 3
    assert done.json["where"].endswith(f"selection/{name}")
    assert "row" in done.json["found"]
    check_victim(project)


def test_an_invalid_subset_in_the_selection_is_refused(cli: Cli, project: Path) -> None:
    change_selection(project, "images.csv", ",train,", ",../../train,")
    done = cli("prepare", "--size", "64x64", "--json", project=project)
    assert done.code == 3
    assert done.json["where"].endswith("selection/images.csv")


def test_a_class_name_of_two_lines_is_refused(cli: Cli, project: Path) -> None:
    change_text(project / "data" / "selection" / "selection.json", '"Boat"', '"Boat\\nTree"')
    done = cli("split", "--json", project=project)
    assert done.code == 3
    assert done.json["where"].endswith("selection.json")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("boxes.csv", "train --dry-run"),
        ("split.csv", "split --check"),
        ("train.txt", "train --dry-run"),
    ],
)
def test_an_invalid_id_in_the_dataset_is_refused(
    cli: Cli, project: Path, name: str, command: str
) -> None:
    change_text(project / "data" / "dataset" / name, an_id(project), VICTIM)
    assert cli(*command.split(), project=project).code == 3
    check_victim(project)


def test_an_invalid_id_as_an_argument_is_a_usage_error(cli: Cli, project: Path) -> None:
    assert cli("why", VICTIM, project=project).code == 2


def test_links_in_the_place_of_own_files_are_not_written_through(cli: Cli, project: Path) -> None:
    lock = project / "data" / ".lock"
    lock.unlink()
    lock.symlink_to(project.parent / "victim.txt")
    assert cli("split", project=project).code != 0
    check_victim(project)


# --- Not writable ----------------------------------------------------------------------------

READING = [
    ["status"],
    ["split", "--check"],
    ["prepare", "--dry-run"],
    ["split", "--dry-run"],
    ["select", "--dry-run"],
]
WRITING = [["select"], ["fetch"], ["prepare"], ["split"], ["refresh"], ["plan"]]


@pytest.fixture
def readable(original: Path) -> Iterator[Path]:
    """Yield a copy of the project that every user may read, outside pytest's private folders."""
    parent = Path(tempfile.mkdtemp(prefix="oiyolo-test-"))
    parent.chmod(0o755)
    folder = parent / "project"
    shutil.copytree(original, folder, symlinks=True)
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(parent)


@pytest.mark.parametrize(
    "run", [pytest.param(as_nobody, marks=pytest.mark.slow), on_read_only_mount]
)
def test_a_read_only_project_can_be_read_and_its_ledger_is_not_called_damaged(
    readable: Path, run: Callable[[list[list[str]], Path], list[tuple[int, str]]]
) -> None:
    before = sorted(path.name for path in readable.rglob("*"))
    why = ["why", an_id(readable)]
    for words, (code, err) in zip(READING, run([*READING, why], readable), strict=False):
        assert code == 0, (words, err)
    for words, (code, err) in zip(WRITING, run(WRITING, readable), strict=True):
        assert code == 4, (words, err)
        assert "read-only" in err
        assert "damaged" not in err
    assert sorted(path.name for path in readable.rglob("*")) == before


@pytest.mark.slow
def test_a_read_only_ledger_of_a_killed_process_shows_the_newest_state(readable: Path) -> None:
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from oiyolo.project.ledger import Change, Ledger
        ledger = Ledger(pathlib.Path(sys.argv[1]))
        ledger.record("fetch", [Change(sys.argv[2], "excluded", "killed", reason="newest")])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    path = readable / "data" / "ledger.sqlite"
    subprocess.run([sys.executable, "-c", script, str(path), an_id(readable)], check=False)
    assert path.with_name("ledger.sqlite-wal").stat().st_size
    path.with_name("ledger.sqlite-shm").unlink()
    ((code, err),) = as_nobody([["why", an_id(readable)]], readable)
    assert code == 0, err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a project to another user")
def test_a_project_of_another_user_works(cli: Cli, project: Path) -> None:
    for path in [project, *project.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for command in ("status", "split --check", "prepare", "split"):
        cli.ok(*command.split(), project=project)
