"""Damage to a file that the project wrote is an error with a remedy, or is repaired."""

from __future__ import annotations

import json
import random
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from tests.e2e.test_standin import StandIn
from tests.support.damage import damage, damages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli

RUN = "runs/tiny-001"
RECORDS = (
    *("data/plan.json", "data/fetch.json", "data/selection/selection.json"),
    *("data/selection/.made-from.json", "data/selection/images.csv", "data/selection/boxes.csv"),
    *("data/dataset/boxes.csv", "data/dataset/split.csv", "data/dataset/obj.names"),
    *("data/dataset/train.txt", "data/dataset/valid.txt", "data/dataset/test.txt"),
    *("data/dataset/.prepared-from.json", "data/dataset/.split-from.json"),
    *("data/dataset/.split-ratios.json", f"{RUN}/run.json", f"{RUN}/evaluation.json"),
    *(f"{RUN}/.evaluated-from.json", f"{RUN}/.reported-from.json", f"{RUN}/network.cfg"),
    *(f"{RUN}/obj.names", f"{RUN}/obj.data", f"{RUN}/train.txt", f"{RUN}/valid.txt"),
)
READING = (
    *("status", "status --json", "why", "split --check", "plan --dry-run", "train --dry-run"),
    *("evaluate --dry-run", "report --dry-run", "prepare --dry-run", "split --dry-run"),
    *("plot --dry-run", "refresh --dry-run", "fetch --dry-run"),
)
WRITING = ("report", "prepare", "split", "plan")
DOCUMENTED = {0, 2, 3, 4}
SLOW_CASES = 300


@pytest.fixture(scope="module")
def original(make_project: Callable[..., Path], tmp_path_factory: Any) -> Path:
    """A project with every record, trained by a program that replaces darknet."""
    project = make_project(limit=20, max_batches=120)
    program = StandIn(tmp_path_factory.mktemp("program"), project, None)  # type: ignore[arg-type]
    program.behave(detects=True)
    oiyolo.fetch(project)
    oiyolo.plan(project)
    oiyolo.split(project)
    oiyolo.train(project, executable=str(program.path))
    oiyolo.evaluate(project, executable=str(program.path))
    (project / RUN / "charts").mkdir()  # drawing charts takes seconds
    shutil.copy(project / RUN / "panels" / "overview.png", project / RUN / "charts" / "loss.png")
    oiyolo.report(project)
    return project


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A copy of it at the same place for each test, and the ID of one of its images."""
    saved = tmp_path / "saved"
    shutil.copytree(original, saved, symlinks=True)
    image_id = min((original / "data" / "images").iterdir()).stem
    yield SimpleNamespace(folder=original, saved=saved, image_id=image_id)
    _restore(original, saved)


def _restore(folder: Path, saved: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(saved, folder, symlinks=True)


def _words(command: str, project: SimpleNamespace) -> list[str]:
    return [*command.split(), *([project.image_id] if command == "why" else [])]


def without_keys(*names: str) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(
        {key: value for key, value in json.loads(content).items() if key not in names}
    ).encode()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_a_line(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:1] + lines[2:])


@pytest.mark.parametrize(
    ("record", "change", "codes"),
    [
        ("data/selection/selection.json", half, {"status": 3, "split": 3, "report": 3}),
        ("data/plan.json", half, {"status": 3, "plan": 0}),
        ("data/fetch.json", half, {"status": 0, "plan": 0}),
        ("data/dataset/boxes.csv", without_a_line, {"train --dry-run": 3, "prepare": 0}),
        ("data/dataset/train.txt", without_a_line, {"train --dry-run": 3, "split": 0}),
        ("data/dataset/test.txt", without_a_line, {"evaluate --dry-run": 3, "split": 0}),
        (f"{RUN}/run.json", half, {"status": 3, "why": 3, "report": 3, "evaluate --dry-run": 3}),
        (f"{RUN}/run.json", without_keys("max_batches", "darknet"), {"report": 3}),
        (f"{RUN}/evaluation.json", half, {"report": 3, "evaluate --dry-run": 0}),
        (f"{RUN}/evaluation.json", without_keys("split"), {"report": 3}),
        (f"{RUN}/evaluation.json", without_keys("weights"), {"evaluate --dry-run": 0}),
        (f"{RUN}/obj.names", half, {"evaluate --dry-run": 2}),
    ],
)
def test_a_damaged_record_is_named_with_a_remedy_or_written_again(
    cli: Cli,
    project: SimpleNamespace,
    record: str,
    change: Callable[[bytes], bytes],
    codes: dict[str, int],
) -> None:
    path = project.folder / record
    intact = path.read_bytes()
    damage(path, change(intact))
    for command, code in codes.items():
        done = cli(*_words(command, project), "-q", project=project.folder)
        assert done.code == code, (command, done.err)
        if code:
            assert path.name in done.err + done.out
    if {"prepare", "split"} & {command for command, code in codes.items() if not code}:
        assert path.read_bytes() == intact


def test_status_lists_what_is_intact_and_names_what_is_damaged(
    cli: Cli, project: SimpleNamespace
) -> None:
    whole = cli.ok("status", "--json", project=project.folder).json
    shutil.copytree(project.folder / RUN, project.folder / "runs" / "tiny-002")
    damage(project.folder / RUN / "run.json", b"{")
    damage(project.folder / "data" / "selection" / "selection.json", b"")
    done = cli("status", "--json", project=project.folder)
    assert done.code == 3
    now = done.json
    assert [run["run"] for run in now["runs"]] == ["tiny-002"]
    assert (now["selected"], now["states"]) == (whole["selected"], whole["states"])
    names = [error["where"].rpartition("/")[2] for error in now["damaged"]]
    assert names == ["run.json", "selection.json"]
    assert all(error["remedy"] for error in now["damaged"])
    assert cli("status", project=project.folder).code == 3


@pytest.mark.slow
def test_no_damage_to_any_record_is_unexpected(
    cli: Cli, project: SimpleNamespace, digests: Callable[[Path], dict[str, str]]
) -> None:
    cases = []
    for record in RECORDS:
        content = (project.folder / record).read_bytes()
        is_json = record.endswith(".json")
        cases += [
            (record, damaged, command)
            for damaged in damages(content, is_json=is_json)
            for command in (*READING, *WRITING)
        ]
    for record, damaged, command in random.Random(1).sample(cases, SLOW_CASES):
        path = project.folder / record
        intact = path.read_bytes()
        damage(path, damaged)
        before = digests(project.folder) if command in READING else {}
        done = cli(*_words(command, project), "-q", project=project.folder)
        case = (record, damaged and damaged[:300], command, done.err)
        assert done.code in DOCUMENTED, case
        assert "Traceback" not in done.err
        if command in READING:
            changed = digests(project.folder).items() ^ before.items()
            assert {name for name, _ in changed} <= {"data/ledger.sqlite-shm"}, case
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            path.write_bytes(intact)
        else:
            _restore(project.folder, project.saved)
