"""The split stage: no leaks, permanent splits, and a check that detects violations."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

import oiyolo
from oiyolo.imagery.duplicates import NEAR_BITS
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.splits.assign import CONFLICT_REASON
from oiyolo.stages.split.group_keys import near_duplicates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Cli, Shell

    MakeProject = Callable[..., Path]
    Digests = Callable[[Path], dict[str, str]]

SUBSETS = ["train", "validation", "test"]
SPLIT_OF = {"train": "train", "validation": "valid", "test": "test"}


def read_table(folder: Path) -> pd.DataFrame:
    path = folder / "data" / "dataset" / "split.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("ImageID")


def read_splits(folder: Path) -> dict[str, str]:
    return dict(read_table(folder)["split"])


def read_images(folder: Path) -> pd.DataFrame:
    path = folder / "data" / "selection" / "images.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("ImageID")


def replace_by_copy(folder: Path, source: str, target: str) -> None:
    """Replace an image by a smaller, cropped and recompressed copy of another one."""
    images = folder / "data" / "images"
    with Image.open(images / f"{source}.jpg") as picture:
        width, height = picture.size
        cropped = picture.convert("RGB").crop((3, 2, width - 3, height - 2))
        cropped.resize((width // 2, height // 2)).save(images / f"{target}.jpg", quality=50)


def upright_ids(images: pd.DataFrame, ids: Sequence[str]) -> list[str]:
    """Return the ids of images without rotation, whose copies have the same orientation."""
    rows = images.loc[list(ids)]
    return list(rows.index[rows["Rotation"].isin(["", "0.0", "0", "nan"])])


@pytest.fixture(scope="module")
def split_project(make_project: MakeProject) -> Path:
    """Return a project that is split; tests must not change it."""
    folder = make_project(negatives=0.3)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


@pytest.fixture
def project_copy(split_project: Path, tmp_path: Path) -> Path:
    """Return a copy of the split project that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(split_project, folder)
    oiyolo.split(folder)  # writes lists with the paths of the copy
    return folder


def test_the_table_shows_images_and_objects_of_every_class_and_split(
    cli: Cli, split_project: Path
) -> None:
    result = oiyolo.split(split_project)
    assert isinstance(result, oiyolo.stages.split.Split)
    table = result.table
    assert list(table.columns) == list(SPLITS)
    assert list(table.index) == ["images", "images: Boat", "images: negatives", "objects: Boat"]
    counts = {row: table.loc[row].tolist() for row in table.index}
    parts = zip(counts["images: Boat"], counts["images: negatives"], strict=True)
    assert counts["images"] == [boats + negatives for boats, negatives in parts]
    labels = {
        path.stem: len(path.read_text(encoding="utf-8").splitlines())
        for path in (split_project / "data" / "dataset" / "obj").glob("*.txt")
    }
    split_by_id = read_splits(split_project)
    for column, name in enumerate(SPLITS):
        label_counts = [labels[i] for i, split in split_by_id.items() if split == name]
        assert counts["images: Boat"][column] == sum(count > 0 for count in label_counts)
        assert counts["objects: Boat"][column] == sum(label_counts)
    out = cli.ok("split", project=split_project).out
    assert "images: negatives" in out
    assert "groups that stay together" in out


def test_near_duplicates_share_a_group_and_the_table_has_the_reason(
    make_project: MakeProject,
) -> None:
    folder = make_project(group_by=["duplicate"])
    oiyolo.fetch(folder)
    ids = upright_ids(
        read_images(folder), sorted(p.stem for p in (folder / "data/images").iterdir())
    )
    copies = dict(zip(ids[:12:2], ids[1:12:2], strict=True))
    for source, target in copies.items():
        replace_by_copy(folder, source, target)
    oiyolo.split(folder)
    table = read_table(folder)
    pairs = [(a, b) for a, b in copies.items() if {a, b} <= set(table.index)]
    assert len(pairs) >= 4
    for first, second in pairs:
        assert {str(table.loc[i, "group"]) for i in (first, second)} == {min(first, second)}
        assert len({str(table.loc[i, "split"]) for i in (first, second)}) == 1
        assert str(table.loc[second, "why"]).startswith(f"near-duplicate of {first} (")
    with open_project(folder).ledger(read_only=True) as ledger:
        bits_by_pair = {(a, b) if a < b else (b, a): bits for a, b, bits in near_duplicates(ledger)}
    assert bits_by_pair.keys() == {(min(pair), max(pair)) for pair in pairs}
    assert all(0 <= bits <= NEAR_BITS for bits in bits_by_pair.values())
    others = table[~table.index.isin([i for pair in pairs for i in pair])]
    assert (others["group"] == others.index).all()  # generated scenes are not duplicates
    assert set(others["why"]) == {""}
    event = oiyolo.why(pairs[0][1], folder).events[-1][2]
    assert "near-duplicate of" in event


def test_a_new_image_that_would_join_two_splits_is_excluded_and_no_image_moves(
    cli: Cli, make_project: MakeProject
) -> None:
    folder = make_project(limit=24)
    oiyolo.fetch(folder)
    cli.ok("split", project=folder)
    before = read_splits(folder)
    oiyolo.fetch(folder, limit=0)
    images = read_images(folder)
    split_of_author = {images.loc[i, "AuthorProfileURL"]: split for i, split in before.items()}
    new = [i for i in upright_ids(images, list(images.index)) if i not in before]
    new = [i for i in new if (folder / "data" / "images" / f"{i}.jpg").is_file()]
    conflicting = next(
        i for i in new if split_of_author.get(images.loc[i, "AuthorProfileURL"]) == "train"
    )
    elsewhere = next(i for i in upright_ids(images, list(before)) if before[i] != "train")
    replace_by_copy(folder, elsewhere, conflicting)
    done = cli.ok("split", "--json", project=folder).json
    after = read_splits(folder)
    assert {i: after[i] for i in before} == before
    assert conflicting not in after
    assert done["left_out"] >= 1
    status = cli.ok("status", "--json", project=folder).json
    assert status["excluded"][CONFLICT_REASON] == done["left_out"]
    assert status["selected"] == sum(status["states"].values()) + sum(status["excluded"].values())
    out = cli.ok("why", conflicting, project=folder).out
    assert f"a near-duplicate is in {before[elsewhere]}" in out
    assert "an image by the same author is in train" in out
    cli.ok("split", "--check", project=folder)
    assert read_splits(folder) == after
    cli.ok("split", project=folder)
    assert read_splits(folder) == after


def test_no_image_moves_when_the_dataset_grows_and_shrinks(
    make_project: MakeProject, digests: Digests
) -> None:
    folder = make_project(negatives=0.2)
    split_by_id: dict[str, str] = {}
    for limit in (12, 30, 8, 0, 20, 0):
        oiyolo.fetch(folder, limit=limit)
        result = oiyolo.split(folder)
        now = read_splits(folder)
        assert {i: now[i] for i in now if i in split_by_id} == {
            i: split_by_id[i] for i in now if i in split_by_id
        }
        assert limit == 0 or len(now) <= limit * 1.2 + 1
        split_by_id |= now
        check = oiyolo.split(folder, check=True)
        items = [item for item in check.findings if item.name != "ratios"]
        assert {item.outcome for item in items} <= {"ok", "note"}
        if limit == 12:
            notes = result.as_dict()["notes"]
            assert isinstance(notes, list)
            assert "largest group" in str(notes)
    before = digests(folder / "data" / "dataset")
    result = oiyolo.split(folder)
    assert result.as_dict()["new"] == 0
    assert digests(folder / "data" / "dataset") == before


# ---- official subsets


def test_official_subsets_remain_the_splits(cli: Cli, make_project: MakeProject) -> None:
    folder = make_project(subsets=SUBSETS, official=True)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    subset_by_id = dict(read_images(folder)["Subset"])
    split_by_id = read_splits(folder)
    assert set(split_by_id.values()) == set(SPLITS)
    assert split_by_id == {i: SPLIT_OF[subset_by_id[i]] for i in split_by_id}
    checked = cli.ok("split", "--check", "--json", project=folder).json
    outcomes = {row["name"]: row["outcome"] for row in checked["findings"]}
    assert checked["sound"] is True
    assert outcomes["authors"] == "note"  # authors in several subsets are reported, not moved
    assert outcomes["ratios"] == "ok"
    failed = cli("split", "--no-official", project=folder)
    assert failed.code == 2
    assert "[split] changed (official from " in failed.err
    assert read_splits(folder) == split_by_id
    cli.ok("split", "--no-official", "--reassign", project=folder)
    again = cli.ok("split", "--check", "--json", "--no-official", project=folder).json
    assert {row["name"]: row["outcome"] for row in again["findings"]}["authors"] == "ok"


@pytest.mark.parametrize("subsets", [["train"], ["train", "test"]])
def test_official_splits_need_all_subsets(
    cli: Cli, make_project: MakeProject, subsets: list[str]
) -> None:
    folder = make_project(subsets=subsets, limit=10)
    cli.ok("fetch", project=folder)
    failed = cli("split", "--official", project=folder)
    assert failed.code == 2
    assert '[dataset] subsets = ["train", "validation", "test"]' in failed.err


# ---- a plan


def test_a_plan_agrees_with_what_the_call_does(cli: Cli, project_copy: Path) -> None:
    images = len(read_splits(project_copy))
    for words in (("--train", "0.5", "--valid", "0.25", "--test", "0.25"), ("--official",)):
        codes = {
            cli("split", *words, *more, project=project_copy).code for more in ([], ["--dry-run"])
        }
        assert codes == {2}
    assert cli.ok("split", "--dry-run", "--json", project=project_copy).json["would"] == []
    plan = cli.ok("split", "--size", "64x64", "--dry-run", "--json", project=project_copy).json
    assert any(f"prepare {images} images" in action for action in plan["would"])
    done = cli.ok("split", "--size", "64x64", "--json", project=project_copy)
    assert f"prepared {images} images" in done.err
    # They have their splits already.
    assert (plan["images"], done.json["new"]) == (0, 0)
    planned = cli.ok("split", "--size", "64x64", "--reassign", "--dry-run", project=project_copy)
    assert f"assign {images} images again" in planned.out


def test_a_plan_says_that_lists_of_another_place_are_written_again(
    cli: Cli, project_copy: Path
) -> None:
    moved = project_copy.rename(project_copy.with_name("moved"))
    assert "write the lists again" in cli.ok("split", "--dry-run", project=moved).out
    cli.ok("split", project=moved)
    assert "nothing to do" in cli.ok("split", "--dry-run", project=moved).out


# ---- the check


def list_image_twice(folder: Path) -> None:
    lists = folder / "data" / "dataset"
    line = (lists / "train.txt").read_text(encoding="utf-8").splitlines()[0]
    with (lists / "test.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def remove_from_list(folder: Path) -> None:
    path = folder / "data" / "dataset" / "train.txt"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]))


def damage_list(folder: Path) -> None:
    (folder / "data" / "dataset" / "valid.txt").write_bytes(b"\xff\xfe")


def change_table(folder: Path) -> None:
    path = folder / "data" / "dataset" / "split.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",train,", ",test,", 1))


def damage_table(folder: Path) -> None:
    (folder / "data" / "dataset" / "split.csv").write_text("ImageID,split\n")


def divide_group(folder: Path) -> None:
    table = read_table(folder).reset_index()
    first = {name: table[table["split"] == name].index[0] for name in ("train", "test")}
    table.loc[first["train"], "group"] = table.loc[first["test"], "group"]
    table.to_csv(folder / "data" / "dataset" / "split.csv", index=False)


def remove_label(folder: Path) -> None:
    next((folder / "data" / "dataset" / "obj").glob("*.txt")).unlink()


def remove_image(folder: Path) -> None:
    next((folder / "data" / "dataset" / "obj").glob("*.jpg")).unlink()


def copy_in_ledger(column: str) -> Callable[[Path], None]:
    """Return a function that copies a value from an image of train to an image of test."""

    def copy(folder: Path) -> None:
        first = {split: i for i, split in read_splits(folder).items()}
        with sqlite3.connect(folder / "data" / "ledger.sqlite") as db:
            db.execute(
                f"UPDATE images SET {column} = (SELECT {column} FROM images "  # noqa: S608  (a column name of this file)
                "WHERE image_id = ?) WHERE image_id = ?",
                (first["train"], first["test"]),
            )
        db.close()

    return copy


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an image in two lists": (list_image_twice, "lists"),
    "an image missing from a list": (remove_from_list, "ledger"),
    "an unreadable list": (damage_list, "lists"),
    "another split in the table": (change_table, "split.csv"),
    "a damaged table": (damage_table, "split.csv"),
    "a divided group": (divide_group, "groups"),
    "a missing label": (remove_label, "files"),
    "a missing image": (remove_image, "files"),
    "another split in the ledger": (copy_in_ledger("split"), "ledger"),
    "the same bytes": (copy_in_ledger("md5"), "bytes"),
    "the same hash": (copy_in_ledger("phash"), "near-duplicates"),
    "the same author": (copy_in_ledger("author"), "authors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_check_detects_damage(
    cli: Cli, project_copy: Path, digests: Digests, name: str
) -> None:
    cli.ok("split", "--check", project=project_copy)
    damage, item_name = DAMAGE[name]
    damage(project_copy)
    before = digests(project_copy / "data" / "dataset")
    with open_project(project_copy).data_lock("a test"):  # the check takes no lock
        done = cli("split", "--check", "--json", project=project_copy)
    assert done.code == 3
    assert done.json["sound"] is False
    failed = {row["name"] for row in done.json["findings"] if row["outcome"] == "failed"}
    assert item_name in failed
    assert digests(project_copy / "data" / "dataset") == before
    as_text = cli("split", "--check", project=project_copy)
    assert as_text.code == 3
    assert "FAILED" in as_text.out
    assert "NOT sound" in as_text.out


@pytest.mark.parametrize(
    "damage",
    [list_image_twice, remove_from_list, damage_list, change_table, damage_table, divide_group],
)
def test_the_next_run_repairs_lists_and_table(
    cli: Cli, project_copy: Path, digests: Digests, damage: Callable[[Path], None]
) -> None:
    before = digests(project_copy / "data" / "dataset")
    damage(project_copy)
    cli.ok("split", project=project_copy)
    assert digests(project_copy / "data" / "dataset") == before
    assert "split: up to date" in cli.ok("split", project=project_copy).err


def test_the_check_detects_shares_far_from_the_ratios(cli: Cli, project_copy: Path) -> None:
    ratios = project_copy / "data" / "dataset" / ".split-ratios.json"
    saved = json.loads(ratios.read_text(encoding="utf-8"))
    ratios.write_text(json.dumps({**saved, "train": 0.2, "valid": 0.4, "test": 0.4}))
    done = cli("split", "--check", "--json", project=project_copy)
    assert done.code == 3
    failed = {row["name"] for row in done.json["findings"] if row["outcome"] == "failed"}
    assert failed == {"ratios"}


def test_checking_before_splitting_fails(cli: Cli, make_project: MakeProject) -> None:
    failed = cli("split", "--check", project=make_project())
    assert failed.code == 2
    assert "`oiyolo split` first" in failed.err


def test_a_check_does_not_reassign(cli: Cli, split_project: Path) -> None:
    assert cli("split", "--check", "--reassign", project=split_project).code == 2


# ---- projects of older versions, kills, moved projects


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "none"])
def test_images_split_without_hashes_get_a_hash_and_keep_their_split(
    make_project: MakeProject, cli: Cli, fit: str
) -> None:
    folder = make_project(limit=30, fit=fit, size=(128, 96))
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    before = read_splits(folder)
    path = folder / "data" / "ledger.sqlite"
    db = sqlite3.connect(path)
    hashes = dict(db.execute("SELECT image_id, phash FROM images WHERE state != 'excluded'"))
    db.executescript(
        "DROP TRIGGER sums_of_new; DROP TRIGGER sums_of_changed; DROP TABLE sums;"
        "DROP TABLE journals; ALTER TABLE images DROP COLUMN phash;"
        "ALTER TABLE images DROP COLUMN prepared_bytes; DROP INDEX images_by_name;"
        "ALTER TABLE images DROP COLUMN original_name;"
        "ALTER TABLE events RENAME COLUMN message TO told; PRAGMA user_version = 1;"
    )
    db.close()
    checked = cli.ok("split", "--check", "--json", project=folder).json
    messages = {row["name"]: row["message"] for row in checked["findings"]}
    assert "without a perceptual hash" in messages["near-duplicates"]
    oiyolo.split(folder)
    assert read_splits(folder) == before
    with open_project(folder).ledger(read_only=True) as ledger:
        again = ledger.column("phash", *SPLITS)
    assert again.keys() == before.keys()
    for image_id, text in again.items():
        bits = (int(str(text), 16) ^ int(hashes[image_id], 16)).bit_count()
        assert bits <= NEAR_BITS


@pytest.mark.parametrize("command", ["prepare", "split"])
def test_partial_files_of_a_killed_run_are_removed(
    cli: Cli, project_copy: Path, command: str
) -> None:
    part = project_copy / "data" / "dataset" / "..split-from.json.1-2.part"
    part.write_bytes(b"{")
    cli.ok(command, project=project_copy)
    assert not part.exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_split_ends_with_the_same_splits_when_run_again(
    shell: Shell, split_project: Path, project_copy: Path, seed: int
) -> None:
    expected = read_table(split_project)
    shutil.rmtree(project_copy / "data" / "dataset")
    oiyolo.prepare(project_copy)
    with open_project(project_copy).ledger() as ledger:
        ledger.forget_splits()
    rng = random.Random(seed)
    for _ in range(4):
        process = shell.start("split", "--project", str(project_copy))
        time.sleep(rng.uniform(0.3, 1.6))
        process.kill()
        process.communicate()
    done = shell("split", "--project", str(project_copy))
    assert done.code == 0, done.err
    assert read_table(project_copy).equals(expected)
    assert shell("split", "--check", "--project", str(project_copy)).code == 0
    assert not list((project_copy / "data" / "dataset").glob("*.part"))


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["two  spaces", "images/帆船.jpg"])
def test_a_moved_project_is_repaired_by_the_next_run_and_trains(
    cli: Cli, project_copy: Path, darknet: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_splits(project_copy)
    target = project_copy.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    moved = project_copy.rename(target)
    cli.ok("split", project=moved)
    assert read_splits(moved) == before
    cli.ok("split", "--check", project=moved)
    monkeypatch.chdir("/")  # the paths do not depend on the current folder
    for split in SPLITS:
        lines = (moved / "data" / "dataset" / f"{split}.txt").read_text(encoding="utf-8")
        for line in lines.splitlines():
            assert Path(line).is_file()
            assert Path(line).with_suffix(".txt").is_file()
    cli.ok("train", "--executable", darknet, project=moved)
    log = (moved / "runs" / "tiny-001" / "train_log.txt").read_text(encoding="utf-8")
    assert "Couldn't open" not in log
    assert "Can't open label file" not in log


def test_real_photographs_and_their_copies_are_split_without_leaks(
    real: Path, tmp_path: Path, make_project: MakeProject
) -> None:
    photographs = sorted((real / "alpaca" / "images").glob("*.jpg"))
    folder = make_project(at=tmp_path / "real", group_by=["duplicate"], size=(64, 64))
    oiyolo.fetch(folder, limit=40)
    ids = [i for i in read_images(folder).index if (folder / "data/images" / f"{i}.jpg").is_file()]
    upright = set(upright_ids(read_images(folder), ids))
    ids.sort(key=lambda image_id: image_id not in upright)
    source_by_id: dict[str, Path] = {}
    for number, image_id in enumerate(ids):  # every third one copies its predecessor
        is_copy = number % 3 == 2 and image_id in upright
        source = photographs[number - is_copy]
        source_by_id[image_id] = source
        with Image.open(source) as picture:
            image: Image.Image = picture
            if is_copy:
                image = picture.resize((300, 200))
            image.save(folder / "data" / "images" / f"{image_id}.jpg", quality=60)
    oiyolo.split(folder)
    table = read_table(folder)
    by_source: dict[Path, set[str]] = {}
    for image_id in table.index:
        by_source.setdefault(source_by_id[image_id], set()).add(str(table.loc[image_id, "group"]))
    assert all(len(groups) == 1 for groups in by_source.values())
    assert len({group for groups in by_source.values() for group in groups}) == len(by_source)
    assert any(str(why).startswith("near-duplicate") for why in table["why"])
