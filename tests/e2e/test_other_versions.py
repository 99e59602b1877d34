"""State that another version of oiyolo wrote: used, made again, or refused, and never damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core.errors import NewerVersionError
from oiyolo.training.run import Run, fingerprint_of_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("why", "{id}"),
    ("select",),
    ("fetch",),
    ("fetch", "--shard", "0/2"),
    ("prepare",),
    ("split",),
    ("split", "--check"),
    ("split", "--reassign"),
    ("plan",),
    ("refresh",),
    ("run", "--until", "split"),
    ("freeze",),
    ("withdraw", "{id}"),
    ("train", "--dry-run"),
    ("plot",),
    ("evaluate",),
    ("evaluate", "--all-checkpoints"),
    ("report",),
    ("export", "onnx"),
    ("stop",),
)
_OF_RUNS = {"status", "why", "train", "plot", "evaluate", "report", "export", "stop"}
NEWER = {"oiyolo_form": 2, "oiyolo": "9.9.9", "images": ["another form"], "events": {"a": 1}}
RUN = "runs/tiny-001"
REFUSED = {
    "data/selection/selection.json": "select",
    "data/selection/.made-from.json": "select",
    "data/dataset/.prepared-from.json": "prepare",
    "data/dataset/.split-from.json": "split",
    "data/dataset/.split-ratios.json": "split",
    "data/dataset/.recorded-from.json": "split",
    "data/fetch.json": "",
    "data/plan.json": "status",
    f"{RUN}/run.json": "why",
    f"{RUN}/evaluation.json": "report",
    f"{RUN}/checkpoint_scores.json": "plot",
    f"{RUN}/.detected-from.json": "",
    f"{RUN}/.evaluated-from.json": "",
    f"{RUN}/.plotted-from.json": "",
    f"{RUN}/.reported-from.json": "",
}
"""Each JSON file of a project, and a command that must refuse its newer form."""


@pytest.fixture(scope="module")
def original(make_project: Callable[..., Path]) -> Path:
    project = make_project(limit=12, cache="cache")
    oiyolo.plan(project)
    oiyolo.fetch(project)
    oiyolo.split(project)
    run = Run(project / RUN)
    run.folder.mkdir(parents=True)
    ids = {}
    for name in ("train", "valid"):
        text = (project / "data" / "dataset" / f"{name}.txt").read_text()
        (run.folder / f"{name}.txt").write_text(text)
        ids[name] = [line.rpartition("/")[2][:-4] for line in text.split()]
    run.write_record(
        state="finished",
        began_at="2026-01-01T00:00:00",
        network="tiny",
        max_batches=10,
        darknet={"fork": "pjreddie"},
        list_fingerprints={name: fingerprint_of_images(own) for name, own in ids.items()},
    )
    run.log_path.write_text("")
    return project


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "project")


def an_id(project: Path) -> str:
    return min(path.stem for path in (project / "data" / "images").glob("*.jpg"))


def run_all(cli: Cli, project: Path, name: str = "data/") -> dict[tuple[str, ...], int]:
    """Return the exit code of each command that may touch a file, run in order."""
    image_id = an_id(project)
    return {
        words: cli(*(word.format(id=image_id) for word in words), project=project).code
        for words in COMMANDS
        if words[0] in _OF_RUNS or not name.startswith("runs/")
        if words[0] not in {"plot", "train"} or name.startswith("runs/")
    }


@pytest.mark.parametrize("name", REFUSED)
def test_a_newer_file_is_refused_and_kept(project: Path, cli: Cli, name: str) -> None:
    path = project / name
    path.write_text(json.dumps(NEWER))
    if command := REFUSED[name]:
        words = (command, an_id(project)) if command == "why" else (command,)
        done = cli(*words, project=project)
        assert done.code == 3
        assert "9.9.9" in done.err + done.out
        assert oiyolo.__version__ in done.err + done.out
    codes = run_all(cli, project, name)
    assert 1 not in codes.values(), codes
    assert json.loads(path.read_text()) == NEWER


def test_a_newer_cache_entry_is_refused_and_kept(project: Path, cli: Cli) -> None:
    path = next((project / "cache").rglob("*bbox.csv.facts.json"))
    path.write_text(json.dumps(NEWER))
    assert cli("select", project=project).code == 3
    codes = run_all(cli, project)
    assert 1 not in codes.values(), codes
    assert json.loads(path.read_text()) == NEWER


def test_a_newer_journal_is_refused_and_kept(project: Path, cli: Cli) -> None:
    path = project / "data" / "shards" / "0-of-2" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    line = json.dumps({"id": an_id(project), "what": "another form"})
    path.write_text(json.dumps({"journal": "a", **NEWER}) + "\n" + line + "\n")
    before = path.read_bytes()
    assert cli("fetch", project=project).code == 3
    codes = run_all(cli, project)
    assert 1 not in codes.values(), codes
    assert path.read_bytes() == before


def test_a_newer_ledger_is_refused_and_nothing_else_changes(
    project: Path, cli: Cli, digests: Callable[[Path], dict[str, str]]
) -> None:
    db = sqlite3.connect(project / "data" / "ledger.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()

    def state() -> dict[str, str]:
        return {
            name: digest
            for name, digest in digests(project / "data").items()
            if not name.endswith(("-wal", "-shm", ".lock")) and not name.startswith("shards/")
        }

    toml = project / "oiyolo.toml"
    toml.write_text(toml.read_text().replace("limit = 12", "limit = 10"))  # a stale selection
    before = state()
    done = cli("status", project=project)
    assert done.code == 3
    assert "99" in done.err
    assert oiyolo.__version__ in done.err
    codes = run_all(cli, project)
    assert 1 not in codes.values(), codes
    assert state() == before | {"refresh.log": state().get("refresh.log")}


def test_a_newer_error_is_its_own_class(project: Path) -> None:
    (project / RUN / "run.json").write_text(json.dumps(NEWER))
    with pytest.raises(NewerVersionError) as caught:
        _ = Run(project / RUN).record
    assert caught.value.exit_code == 3


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {key: value for key, value in content.items() if key not in keys}


def renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Return a ``run.json`` with the names that older versions used."""
    events = [{"kind": "nan", "told": "the loss is NaN"}]
    return {
        **without("map", "list_fingerprints")(content),
        "events": events,
        "darknet": {"line": "x"},
    }


@pytest.mark.parametrize(
    ("name", "older"),
    [
        ("data/selection/.made-from.json", without("version")),
        ("data/dataset/.prepared-from.json", without("version", "sha256")),
        ("data/dataset/.split-from.json", without("version", "sha256")),
        ("data/dataset/.split-ratios.json", without("official", "group_by")),
        ("data/dataset/.recorded-from.json", without("version")),
        ("data/fetch.json", without("network_bytes")),
        (f"{RUN}/run.json", renamed),
    ],
)
def test_an_older_file_is_used_or_made_again(
    project: Path, cli: Cli, name: str, older: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    lists = (project / "data" / "dataset" / "split.csv").read_bytes()
    path = project / name
    path.write_text(json.dumps(older(json.loads(path.read_text()))))
    for words in (("status",), ("why", an_id(project)), ("fetch",), ("split",), ("refresh",)):
        cli.ok(*words, project=project)
    assert (project / "data" / "dataset" / "split.csv").read_bytes() == lists


def test_an_older_cache_entry_is_made_again(project: Path, cli: Cli) -> None:
    path = next((project / "cache").rglob("*bbox.csv.facts.json"))
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(without("md5", "etag")(whole)))
    cli.ok("select", project=project)
    assert json.loads(path.read_text())["md5"] == whole["md5"]
