"""freeze and run --from: the same dataset again, and a list of what differs."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.label_errors import decisions
from oiyolo.label_errors.decisions import ReviewRow
from oiyolo.operations import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Site

LIMIT = 20


@pytest.fixture(scope="module")
def original(make_project: Callable[..., Path]) -> Path:
    project = make_project(
        limit=LIMIT, negatives=0.2, cache="cache", train=0.6, valid=0.2, test=0.2
    )
    oiyolo.fetch(project)
    oiyolo.split(project)
    return project


@pytest.fixture(scope="module")
def lock_path(original: Path) -> Path:
    return oiyolo.freeze(original).path


@pytest.fixture
def project(original: Path, lock_path: Path, tmp_path: Path) -> Path:
    assert lock_path.is_file()
    return shutil.copytree(original, tmp_path / "project")


def splits(project: Path) -> dict[str, list[str]]:
    folder = project / "data" / "dataset"
    return {
        name: [line.rpartition("/")[2] for line in (folder / f"{name}.txt").read_text().split()]
        for name in ("train", "valid", "test")
    }


def differences(project: Path) -> list[dict[str, str]]:
    with (project / "data" / "lock_differences.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run_from(lock: Path, folder: Path, **options: Any) -> Any:
    options = {"cache": folder / "cache", "look": False, "until": "split", **options}
    return oiyolo.run(folder, frozen=lock, **options)


def edited(lock: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write a lock with another content, and with the checksum that belongs to it."""
    content = json.loads(lock.read_text())
    change(content)
    content.pop("sha256", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))
    return path


def test_the_lock_is_the_same_every_time_and_has_a_line_for_each_image(
    project: Path, lock_path: Path, tmp_path: Path
) -> None:
    done = oiyolo.freeze(project, out=tmp_path / "other.lock")
    text = done.path.read_text()
    assert text == lock_path.read_text()
    assert not oiyolo.freeze(project, out=tmp_path / "other.lock").changed
    assert str(project) not in text
    lines = text.splitlines()
    for ids in splits(project).values():
        for name in ids:
            assert sum(line.startswith(f'["{name[:-4]}"') for line in lines) == 1


def test_the_same_dataset_is_rebuilt_in_an_empty_folder(
    original: Path, lock_path: Path, tmp_path: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    folder = tmp_path / "elsewhere"
    ran = run_from(lock_path, folder)
    assert ran.comparison.differences == []
    assert ran.comparison.notes == []
    assert splits(folder) == splits(original)
    before, after = digests(original / "data" / "dataset"), digests(folder / "data" / "dataset")
    same = {name for name in before if name.startswith("obj/")} | {"boxes.csv", "obj.names"}
    same |= {"split.csv", "CREDITS.csv"}
    assert {name: after.get(name) for name in same} == {name: before[name] for name in same}
    assert digests(folder / "data" / "images") == digests(original / "data" / "images")
    assert oiyolo.freeze(folder).path.read_text() == lock_path.read_text()
    assert run_from(lock_path, folder).comparison.differences == []


@pytest.fixture
def decided(project: Path) -> list[ReviewRow]:
    """Decide about the labels of three images, and apply that."""
    opened = oiyolo.open_project(project)
    boxes = oiyolo.select(project).boxes
    ids = [name[:-4] for name in splits(project)["train"]]
    used = boxes[boxes["used"] & boxes["ImageID"].isin(ids)]
    changed, rejected = used["ImageID"].unique()[:2]
    box = used[used["ImageID"] == changed].iloc[0]
    corners = tuple(box[name] for name in ("XMin", "YMin", "XMax", "YMax"))
    rows = [
        ReviewRow(changed, "Boat", (0.0, 0.0, 0.25, 0.25), decision="add", kind="missing"),
        ReviewRow(changed, "Boat", corners, decision="drop", kind="spurious", score=0.4),
        ReviewRow(rejected, "Boat", (0.0, 0.0, 1.0, 1.0), decision="drop_image"),
        ReviewRow(ids[-1], "Boat", (0.0, 0.0, 0.5, 0.5), decision="keep"),
    ]
    decisions.write(opened.review_path, rows)
    with pytest.raises(UsageError, match="the decisions about labels changed"):
        oiyolo.freeze(project)
    oiyolo.split(project)
    return rows


def test_decisions_about_labels_are_part_of_the_lock(
    project: Path,
    decided: list[ReviewRow],
    tmp_path: Path,
    digests: Callable[[Path], dict[str, str]],
) -> None:
    lock = oiyolo.freeze(project).path
    content = json.loads(lock.read_text())
    assert content["format"] == 3
    assert [row[0] for row in content["review"]] == [decided[0].image_id] * 2
    folder = tmp_path / "elsewhere"
    planned = run_from(lock, folder, dry_run=True).actions
    assert planned[0].startswith("add 2 decisions about labels to ")
    ran = run_from(lock, folder)
    assert ran.comparison.differences == []
    assert ran.comparison.notes == []
    assert run_from(lock, folder, dry_run=True).actions == []
    before, after = digests(project / "data" / "dataset"), digests(folder / "data" / "dataset")
    assert after["boxes.csv"] == before["boxes.csv"]
    assert oiyolo.freeze(folder).path.read_text() == lock.read_text()
    assert run_from(lock, folder).comparison.differences == []

    own = ReviewRow(decided[-1].image_id, "Boat", (0.0, 0.0, 0.1, 0.1), decision="add")
    path = oiyolo.open_project(folder).review_path
    decisions.write(path, [*decisions.read(path), own])
    with pytest.raises(UsageError, match="1 decision about labels") as caught:
        run_from(lock, folder)
    assert caught.value.where == str(path)


def test_the_form_of_the_decisions_does_not_change_the_lock(
    project: Path, decided: list[ReviewRow]
) -> None:
    lock = oiyolo.freeze(project).path
    path = oiyolo.open_project(project).review_path
    decisions.write(path, decided[::-1])
    assert not oiyolo.freeze(project).changed
    path.write_text(path.read_text().replace("0.250000", "0.25000004"))
    assert not oiyolo.freeze(project).changed
    assert run_from(lock, project).comparison.differences == []


def test_a_damaged_decision_in_a_lock_is_named(lock_path: Path, tmp_path: Path) -> None:
    damaged: list[object] = [[["a" * 16, "Boat", "2", "1"]], [3], [[3]], "no"]
    for rows in damaged:
        change = functools.partial(dict.update, review=rows)
        lock = edited(lock_path, tmp_path / "x.lock", change)
        with pytest.raises(InputFormError) as caught:
            run_from(lock, tmp_path / "elsewhere")
        assert "review" in str(caught.value.found)


def test_new_images_and_another_limit_change_nothing(
    original: Path, lock_path: Path, tmp_path: Path
) -> None:
    lock = edited(lock_path, tmp_path / "x.lock", lambda c: c["options"].update(limit=0, seed=7))
    folder = tmp_path / "elsewhere"
    ran = run_from(lock, folder)
    assert ran.comparison.differences == []
    assert splits(folder) == splits(original)


def test_a_later_selection_without_the_lock_follows_the_options_again(
    lock_path: Path, tmp_path: Path
) -> None:
    lock = edited(lock_path, tmp_path / "x.lock", lambda c: c["options"].update(limit=0))
    folder = tmp_path / "elsewhere"
    ran = run_from(lock, folder)
    before = ran.results["select"].summary["images"]
    assert oiyolo.select(folder).summary["images"] > before


def test_what_the_sources_no_longer_serve_is_listed(
    lock_path: Path, tmp_path: Path, own_site: Site
) -> None:
    mirror = own_site.mirror.folder / "open-images-dataset" / "train"
    rows = json.loads(lock_path.read_text())["images"]
    ids = [row[0] for row in rows if row[3] == "mirror"]
    elsewhere = [row[0] for row in rows if row[3] != "mirror"]
    (mirror / f"{ids[0]}.jpg").unlink()
    shutil.copyfile(mirror / f"{ids[2]}.jpg", mirror / f"{ids[1]}.jpg")
    folder = tmp_path / "elsewhere"
    options = {**own_site.urls, "sources": ["mirror"]}
    ran = run_from(lock_path, folder, **options, tolerance=0.5)
    kinds = {d.image_id: d.kind for d in ran.comparison.differences}
    missing = dict.fromkeys([ids[0], *elsewhere], rebuild.MISSING)
    assert kinds == missing | {ids[1]: rebuild.OTHER_FILE}
    assert [row["ImageID"] for row in differences(folder)] == sorted(kinds)
    assert not (folder / "data" / "images" / f"{ids[1]}.jpg").exists()


def test_too_many_differences_stop_the_run_before_the_training(
    lock_path: Path, tmp_path: Path, own_site: Site
) -> None:
    mirror = own_site.mirror.folder / "open-images-dataset" / "train"
    image_id = json.loads(lock_path.read_text())["images"][0][0]
    (mirror / f"{image_id}.jpg").unlink()
    folder = tmp_path / "elsewhere"
    options = {**own_site.urls, "sources": ["mirror"], "tolerance": 0.0}
    with pytest.raises(UnavailableError):
        run_from(lock_path, folder, **options, until=None)
    assert image_id in [row["ImageID"] for row in differences(folder)]
    assert not (folder / "runs").exists()


def test_other_annotations_are_listed(lock_path: Path, tmp_path: Path, own_site: Site) -> None:
    (table,) = (own_site.mirror.folder / "openimages").rglob("*train-annotations-bbox.csv")
    rows = table.read_text().splitlines()
    ids = [row[0] for row in json.loads(lock_path.read_text())["images"]]
    boxed = next(i for i in ids if any(row.startswith(i) for row in rows))
    gone = next(i for i in ids if i != boxed and any(row.startswith(i) for row in rows))
    changed = []
    for row in rows:
        fields = row.split(",")
        if fields[0] == gone:
            continue
        if fields[0] == boxed:
            fields[4] = "0.0"  # XMin
        changed.append(",".join(fields))
    table.write_text("\n".join(changed) + "\n")
    folder = tmp_path / "elsewhere"
    with pytest.raises(InputFormError):
        run_from(lock_path, folder, **own_site.urls, tolerance=0.0)
    found = {row["ImageID"]: row["difference"] for row in differences(folder)}
    assert found == {boxed: rebuild.OTHER_BOXES, gone: rebuild.MISSING}
    ran = run_from(lock_path, folder, **own_site.urls, tolerance=0.5)
    assert len(ran.comparison.notes) == 1  # another annotation file


def test_files_that_were_prepared_differently_are_listed(
    project: Path, lock_path: Path, tmp_path: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["method"], content["oiyolo"] = 1, "0.0.9"
        content["images"][0][7] = "0" * 64

    lock = edited(lock_path, tmp_path / "x.lock", change)
    with pytest.raises(InputFormError) as caught:
        run_from(lock, project, tolerance=0.0)
    assert "0.0.9" in str(caught.value)
    assert [row["difference"] for row in differences(project)] == [rebuild.OTHER_PIXELS]
    assert run_from(lock_path, project, tolerance=0.0).comparison.differences == []
    assert not (project / "data" / "lock_differences.csv").exists()


def test_withdrawn_images_stay_withdrawn(project: Path, tmp_path: Path) -> None:
    withdrawn, kept = splits(project)["train"][0][:-4], splits(project)["train"][1][:-4]
    oiyolo.withdraw(withdrawn, project, why="a private reason")
    path = oiyolo.freeze(project).path
    assert "a private reason" not in path.read_text()
    folder = tmp_path / "elsewhere"
    run_from(path, folder, tolerance=0.0)
    selected = oiyolo.select(folder, limit=0).images["ImageID"]
    assert withdrawn not in set(selected)
    assert oiyolo.status(folder).counts.excluded["withdrawn"] == 1
    oiyolo.withdraw(kept, folder)
    ran = run_from(path, folder, tolerance=0.5)
    assert [d.image_id for d in ran.comparison.differences] == [kept]


def test_a_project_that_contradicts_the_lock_is_refused(
    project: Path, lock_path: Path, tmp_path: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    other = edited(
        lock_path,
        tmp_path / "x.lock",
        lambda c: [row.__setitem__(2, "test") for row in c["images"]],
    )
    before = digests(project / "data" / "dataset")
    with pytest.raises(UsageError):  # an image keeps its split
        run_from(other, project)
    with pytest.raises(UsageError):  # the lock decides
        run_from(lock_path, tmp_path / "new", seed=3)
    assert not (tmp_path / "new").exists()
    toml = project / "oiyolo.toml"
    toml.write_text(toml.read_text().replace("negatives = 0.2", "negatives = 0.5"))
    with pytest.raises(UsageError):
        run_from(lock_path, project)
    assert digests(project / "data" / "dataset") == before


def test_a_dataset_that_is_not_up_to_date_is_not_frozen(project: Path) -> None:
    (project / "dataset.lock").unlink()
    (project / "data" / "dataset" / "obj" / splits(project)["train"][0]).unlink()
    with pytest.raises(UsageError):
        oiyolo.freeze(project)
    assert not (project / "dataset.lock").exists()


def test_a_dry_run_writes_nothing(project: Path, lock_path: Path, tmp_path: Path) -> None:
    (project / "dataset.lock").unlink()
    assert len(oiyolo.freeze(project, dry_run=True).actions) == 1
    assert not (project / "dataset.lock").exists()
    plan = oiyolo.run(tmp_path / "new", frozen=lock_path, until="split", dry_run=True)
    assert plan.actions
    assert not (tmp_path / "new").exists()


def test_until_ends_after_a_stage(make_project: Callable[..., Path], cli: Cli) -> None:
    project = make_project(limit=10)
    done = cli.ok("run", "--until", "prepare", "--json", project=project)
    assert list(done.json) == ["select", "fetch", "prepare"]
    with pytest.raises(UsageError):
        oiyolo.run(project, until="deploy")
