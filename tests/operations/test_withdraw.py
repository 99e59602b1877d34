"""withdraw: an image leaves every file of the project, and never comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core import locks
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.project.withdrawn import read
from oiyolo.training.run import Run, fingerprint_of_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli

UNKNOWN = "0123456789abcdef"


@pytest.fixture(scope="module")
def original(make_project: Callable[..., Path]) -> Path:
    project = make_project(limit=24, negatives=0.1, cache="cache")
    oiyolo.fetch(project)
    oiyolo.split(project)
    return project


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "project")


def ids_of(project: Path, split: str) -> list[str]:
    lines = (project / "data" / "dataset" / f"{split}.txt").read_text().split()
    return [line.rpartition("/")[2].removesuffix(".jpg") for line in lines]


def add_run(project: Path, split: str = "test") -> Run:
    """Add a finished run that was trained on the dataset and evaluated on a split."""
    run = Run(project / "runs" / "tiny-001")
    run.panels_folder.mkdir(parents=True)
    for name in ("train", "valid"):
        shutil.copy(project / "data" / "dataset" / f"{name}.txt", run.folder)
    fingerprints = {n: fingerprint_of_images(ids_of(project, n)) for n in ("train", "valid")}
    run.write_record(
        state="finished", began_at="2026-01-01T00:00:00", list_fingerprints=fingerprints
    )
    run.evaluation_path.write_text(json.dumps({"split": split}))
    later_s = time.time() + 60
    os.utime(run.evaluation_path, (later_s, later_s))
    (run.panels_folder / "overview.png").touch()
    return run


def files_that_name(project: Path, image_id: str) -> set[str]:
    folders = [project / "data" / "images", project / "data" / "dataset"]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {
        path.name
        for path in paths
        if image_id in path.name
        or path.read_bytes().startswith(image_id.encode())
        or f"\n{image_id},".encode() in path.read_bytes()
        or f"/{image_id}.".encode() in path.read_bytes()
    }


def test_nothing_of_a_withdrawn_image_is_left(project: Path) -> None:
    image_id, kept_id = ids_of(project, "train")[:2]
    others = files_that_name(project, kept_id)
    oiyolo.split(project, look=True)
    look = project / "data" / "dataset" / "look"
    assert (look / "train.jpg").is_file()
    assert files_that_name(project, image_id)
    selected = oiyolo.status(project).counts.selected

    done = oiyolo.withdraw([image_id], project, why="asked by,\nits author")

    assert done.image_ids == [image_id]
    assert done.deleted == 1
    assert files_that_name(project, image_id) == set()
    assert files_that_name(project, kept_id) == others
    assert not [*look.glob("*.jpg"), *look.glob("*.html")]
    counts = oiyolo.status(project).counts
    assert counts.excluded["withdrawn"] == 1
    assert counts.selected == selected == sum([*counts.states.values(), *counts.excluded.values()])
    assert read(project / "data" / "withdrawn.csv")[image_id].why == "asked by, its author"
    assert oiyolo.why(image_id, project).events[-1][1:] == (
        "withdraw",
        "withdrawn: asked by, its author",
    )
    oiyolo.split(project)
    assert oiyolo.split(project, check=True).exit_code == 0


def test_a_second_withdrawal_does_nothing(
    project: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    image_id = ids_of(project, "valid")[0]
    oiyolo.withdraw(image_id, project)
    before = digests(project)
    again = oiyolo.withdraw(image_id, project, why="another reason")
    assert (again.image_ids, again.earlier, again.deleted) == ([], [image_id], 0)
    assert digests(project) == before


def test_a_dry_run_changes_nothing(
    project: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    before = digests(project / "data" / "dataset")
    plan = oiyolo.withdraw(ids_of(project, "train")[0], project, dry_run=True)
    assert len(plan.actions) == 2
    assert digests(project / "data" / "dataset") == before
    assert not (project / "data" / "withdrawn.csv").exists()
    assert oiyolo.status(project).counts.excluded.get("withdrawn", 0) == 0


@pytest.mark.parametrize("without_ledger", [False, True])
def test_a_withdrawn_image_is_never_fetched_again(project: Path, *, without_ledger: bool) -> None:
    image_id = ids_of(project, "train")[0]
    oiyolo.withdraw(image_id, project, why="private")
    assert oiyolo.select(project, dry_run=True).facts["dropped"] == 0
    if without_ledger:
        (project / "data" / "ledger.sqlite").unlink()
    oiyolo.fetch(project, retry="all")
    oiyolo.fetch(project, limit=0, negatives=1.0)  # everything there is

    selection = oiyolo.select(project, dry_run=False, limit=0, negatives=1.0)
    assert image_id not in set(selection.images["ImageID"])
    assert selection.summary["excluded"]["withdrawn"] == 1
    assert not (project / "data" / "images" / f"{image_id}.jpg").exists()
    counts = oiyolo.status(project).counts
    assert counts.excluded["withdrawn"] == 1
    assert counts.selected == len(selection.images) + 1
    assert oiyolo.why(image_id, project).row["reason"] == "withdrawn"


def test_an_image_can_be_withdrawn_before_it_is_selected(make_project: Callable[..., Path]) -> None:
    project = make_project(limit=24, cache="cache")
    chosen = oiyolo.select(project).images["ImageID"].tolist()
    other = make_project(limit=24, cache="cache")
    done = oiyolo.withdraw([chosen[0], UNKNOWN], other)
    assert set(done.not_selected) == {chosen[0], UNKNOWN}
    assert not (other / "data" / "ledger.sqlite").exists()
    selected = oiyolo.select(other).images["ImageID"].tolist()
    assert chosen[0] not in selected
    assert len(selected) == len(chosen)  # the limit is reached with another image
    assert oiyolo.why(UNKNOWN, other).row["state"] == "excluded"


def test_undo_brings_the_image_back_into_its_split(project: Path) -> None:
    image_id = ids_of(project, "test")[0]
    oiyolo.withdraw(image_id, project)
    oiyolo.select(project)
    assert oiyolo.withdraw(image_id, project, undo=True).undone == [image_id]
    oiyolo.fetch(project)
    oiyolo.split(project)
    assert image_id in ids_of(project, "test")
    assert "withdrawn" not in oiyolo.status(project).counts.excluded


def test_runs_that_used_the_image_are_named(project: Path) -> None:
    run = add_run(project)
    by_split = {split: ids_of(project, split)[0] for split in ("train", "valid", "test")}
    report = run.folder / "report.html"
    report.write_text("<!doctype html>")  # which shows samples of every split
    done = oiyolo.withdraw(list(by_split.values()), project)
    assert {i: [use.uses for use in uses] for i, uses in done.uses.items()} == {
        by_split["train"]: [["trained on it"]],
        by_split["valid"]: [["validated on it"]],
        by_split["test"]: [["evaluated on it (test)"]],
    }
    (use,) = done.uses[by_split["test"]]
    assert use.pictures == [run.panels_folder / "overview.png", report]
    assert done.uses[by_split["train"]][0].pictures == [report]
    assert str(run.panels_folder / "overview.png") in str(done)
    assert oiyolo.why(by_split["test"], project).training_runs == {
        "tiny-001": "evaluated on it (test)"
    }


def test_files_that_a_live_run_uses_go_when_it_has_ended(project: Path) -> None:
    run = add_run(project)
    image_id = ids_of(project, "train")[0]
    prepared = project / "data" / "dataset" / "obj" / f"{image_id}.jpg"
    with run.lock("train"):
        done = oiyolo.withdraw(image_id, project)
        assert (done.kept, done.deleted) == ([image_id], 0)
        assert image_id not in ids_of(project, "train")
        oiyolo.split(project)
        assert prepared.is_file()
    assert not locks.is_held(run.folder / ".lock")
    oiyolo.split(project)
    assert not prepared.exists()
    assert files_that_name(project, image_id) == set()


def test_ids_are_read_from_a_file_and_from_stdin(
    project: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ids_of(project, "train")[:2]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"# by request\n\n{first}  # a face\n")
    assert cli.ok("withdraw", "--file", listed, "--json", project=project).json["withdrawn"] == [
        first
    ]
    read_end, write_end = os.pipe()
    os.write(write_end, f"{second}\n".encode())
    os.close(write_end)
    with os.fdopen(read_end) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        done = cli.ok("withdraw", "--file", "-", "--json", project=project)
    assert done.json["withdrawn"] == [second]


@pytest.mark.parametrize("text", ["../../victim", "ABCDEFABCDEFABCD", "0123456789abcde", "é" * 16])
def test_a_malformed_id_changes_nothing(project: Path, text: str) -> None:
    with pytest.raises(InputFormError):
        oiyolo.withdraw([ids_of(project, "train")[0], text], project)
    assert not (project / "data" / "withdrawn.csv").exists()


def test_a_mistyped_id_names_the_nearest(project: Path) -> None:
    image_id = ids_of(project, "train")[0]
    with pytest.raises(InputFormError) as caught:
        oiyolo.withdraw(image_id.upper(), project)
    assert image_id in caught.value.remedy


def test_no_id_is_a_usage_error(project: Path) -> None:
    with pytest.raises(UsageError):
        oiyolo.withdraw((), project)


@pytest.mark.parametrize(
    "text",
    ["", "ImageID,reason\n", "ImageID,date,why\n../../x,2026-01-01,\n", "ImageID,date,why\na,b\n"],
)
def test_an_invalid_list_stops_every_command_that_selects(
    project: Path, cli: Cli, text: str, digests: Callable[[Path], dict[str, str]]
) -> None:
    (project / "data" / "withdrawn.csv").write_text(text)
    before = digests(project)
    for words in (["select"], ["fetch"], ["refresh"], ["withdraw", UNKNOWN]):
        done = cli(*words, project=project)
        assert done.code == 3
        assert "withdrawn.csv" in done.err
    logs = (".lock", "refresh.log")
    after = {name: d for name, d in digests(project).items() if not name.endswith(logs)}
    assert after == {name: d for name, d in before.items() if not name.endswith(logs)}


def test_a_list_edited_by_hand_is_applied_by_the_next_selection(project: Path) -> None:
    image_id = ids_of(project, "train")[0]
    row = f"\ufeffImageID,date,why\r\n{image_id},today,by hand\r\n"
    (project / "data" / "withdrawn.csv").write_text(row)
    oiyolo.fetch(project)
    oiyolo.split(project)
    assert files_that_name(project, image_id) == set()


def test_a_kill_after_the_record_loses_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = ids_of(project, "train")[0]
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("oiyolo.stages.prepare.remove_boxes", _interrupt)
        oiyolo.withdraw(image_id, project)
    assert files_that_name(project, image_id)
    oiyolo.withdraw(image_id, project)
    assert files_that_name(project, image_id) == set()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
