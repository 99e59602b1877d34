"""split: no leaks, no moves, and a check that would find them."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from PIL import Image

import oiyolo
from oiyolo.imagery.duplicates import NEAR_BITS
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.splits.assign import STRADDLES
from oiyolo.stages.split.group_keys import look_alikes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Cli, Shell

    MakeProject = Callable[..., Path]
    Digests = Callable[[Path], dict[str, str]]

SUBSETS = ["train", "validation", "test"]
SPLIT_OF = {"train": "train", "validation": "valid", "test": "test"}


def table_of(folder: Path) -> pd.DataFrame:
    path = folder / "data" / "dataset" / "split.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("ImageID")


def splits_of(folder: Path) -> dict[str, str]:
    return dict(table_of(folder)["split"])


def selected(folder: Path) -> pd.DataFrame:
    path = folder / "data" / "selection" / "images.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("ImageID")


def copy_over(folder: Path, source: str, target: str) -> None:
    """Let an image be a smaller, trimmed copy of another one of poorer quality."""
    images = folder / "data" / "images"
    with Image.open(images / f"{source}.jpg") as picture:
        width, height = picture.size
        trimmed = picture.convert("RGB").crop((3, 2, width - 3, height - 2))
        trimmed.resize((width // 2, height // 2)).save(images / f"{target}.jpg", quality=50)


def upright_ids(images: pd.DataFrame, ids: Sequence[str]) -> list[str]:
    """Give those of the ids that are not turned, so that a copy lies as its source does."""
    rows = images.loc[list(ids)]
    return list(rows.index[rows["Rotation"].isin(["", "0.0", "0", "nan"])])


@pytest.fixture(scope="module")
def whole(make_project: MakeProject) -> Path:
    """A project that is split; it must not be changed."""
    folder = make_project(negatives=0.3)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


@pytest.fixture
def own(whole: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    folder = tmp_path / "own"
    shutil.copytree(whole, folder)
    oiyolo.split(folder)  # its lists have paths of its own
    return folder


def test_the_table_shows_images_and_objects_of_every_class_and_split(cli: Cli, whole: Path) -> None:
    found = oiyolo.split(whole)
    assert isinstance(found, oiyolo.stages.split.Split)
    table = found.table
    assert list(table.columns) == list(SPLITS)
    assert list(table.index) == ["images", "images: Boat", "images: negatives", "objects: Boat"]
    counted = {row: table.loc[row].tolist() for row in table.index}
    parts = zip(counted["images: Boat"], counted["images: negatives"], strict=True)
    assert counted["images"] == [boats + negatives for boats, negatives in parts]
    labels = {
        path.stem: len(path.read_text(encoding="utf-8").splitlines())
        for path in (whole / "data" / "dataset" / "obj").glob("*.txt")
    }
    split_of = splits_of(whole)
    for column, name in enumerate(SPLITS):
        counts = [labels[i] for i, split in split_of.items() if split == name]
        assert counted["images: Boat"][column] == sum(count > 0 for count in counts)
        assert counted["objects: Boat"][column] == sum(counts)
    told = cli.ok("split", project=whole).out
    assert "images: negatives" in told
    assert "groups that stay together" in told


def test_near_duplicates_share_a_group_and_the_table_says_why(make_project: MakeProject) -> None:
    folder = make_project(group_by=["duplicate"])
    oiyolo.fetch(folder)
    some = upright_ids(selected(folder), sorted(p.stem for p in (folder / "data/images").iterdir()))
    copies = dict(zip(some[:12:2], some[1:12:2], strict=True))
    for source, target in copies.items():
        copy_over(folder, source, target)
    oiyolo.split(folder)
    table = table_of(folder)
    pairs = [(a, b) for a, b in copies.items() if {a, b} <= set(table.index)]
    assert len(pairs) >= 4
    for first, second in pairs:
        assert {str(table.loc[i, "group"]) for i in (first, second)} == {min(first, second)}
        assert len({str(table.loc[i, "split"]) for i in (first, second)}) == 1
        assert str(table.loc[second, "why"]).startswith(f"near-duplicate of {first} (")
    with open_project(folder).ledger(read_only=True) as ledger:
        alike = {(a, b) if a < b else (b, a): bits for a, b, bits in look_alikes(ledger)}
    assert alike.keys() == {(min(pair), max(pair)) for pair in pairs}
    assert all(0 <= bits <= NEAR_BITS for bits in alike.values())
    others = table[~table.index.isin([i for pair in pairs for i in pair])]
    assert (others["group"] == others.index).all()  # drawn scenes are no duplicates
    assert set(others["why"]) == {""}
    event = oiyolo.why(pairs[0][1], folder).events[-1][2]
    assert "near-duplicate of" in event


def test_a_new_image_that_would_join_two_splits_is_excluded_and_nobody_moves(
    cli: Cli, make_project: MakeProject
) -> None:
    folder = make_project(limit=24)
    oiyolo.fetch(folder)
    cli.ok("split", project=folder)
    before = splits_of(folder)
    oiyolo.fetch(folder, limit=0)
    images = selected(folder)
    split_of_author = {images.loc[i, "AuthorProfileURL"]: split for i, split in before.items()}
    new = [i for i in upright_ids(images, list(images.index)) if i not in before]
    new = [i for i in new if (folder / "data" / "images" / f"{i}.jpg").is_file()]
    torn = next(i for i in new if split_of_author.get(images.loc[i, "AuthorProfileURL"]) == "train")
    elsewhere = next(i for i in upright_ids(images, list(before)) if before[i] != "train")
    copy_over(folder, elsewhere, torn)
    done = cli.ok("split", "--json", project=folder).json
    after = splits_of(folder)
    assert {i: after[i] for i in before} == before
    assert torn not in after
    assert done["left_out"] >= 1
    status = cli.ok("status", "--json", project=folder).json
    assert status["excluded"][STRADDLES] == done["left_out"]
    assert status["selected"] == sum(status["states"].values()) + sum(status["excluded"].values())
    told = cli.ok("why", torn, project=folder).out
    assert f"a near-duplicate is in {before[elsewhere]}" in told
    assert "an image of its author is in train" in told
    cli.ok("split", "--check", project=folder)
    assert splits_of(folder) == after
    cli.ok("split", project=folder)
    assert splits_of(folder) == after


def test_growing_shrinking_and_growing_back_moves_nobody(
    make_project: MakeProject, digests: Digests
) -> None:
    folder = make_project(negatives=0.2)
    known: dict[str, str] = {}
    for limit in (12, 30, 8, 0, 20, 0):
        oiyolo.fetch(folder, limit=limit)
        found = oiyolo.split(folder)
        now = splits_of(folder)
        assert {i: now[i] for i in now if i in known} == {i: known[i] for i in now if i in known}
        assert limit == 0 or len(now) <= limit * 1.2 + 1
        known |= now
        check = oiyolo.split(folder, check=True)
        kin = [f for f in check.findings if f.name != "ratios"]  # type: ignore[union-attr]
        assert {f.outcome for f in kin} <= {"ok", "told"}
        if limit == 12:
            notes = found.as_dict()["notes"]
            assert isinstance(notes, list)
            assert "largest group" in str(notes)
    before = digests(folder / "data" / "dataset")
    found = oiyolo.split(folder)
    assert found.as_dict()["new"] == 0
    assert digests(folder / "data" / "dataset") == before


# ---- official subsets


def test_official_subsets_are_the_splits_and_keep_being_so(
    cli: Cli, make_project: MakeProject
) -> None:
    folder = make_project(subsets=SUBSETS, official=True)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    subset_of = dict(selected(folder)["Subset"])
    found = splits_of(folder)
    assert set(found.values()) == set(SPLITS)
    assert found == {i: SPLIT_OF[subset_of[i]] for i in found}
    checked = cli.ok("split", "--check", "--json", project=folder).json
    outcomes = {row["name"]: row["outcome"] for row in checked["findings"]}
    assert checked["sound"] is True
    assert outcomes["authors"] == "told"  # the same authors in several subsets: told, not moved
    assert outcomes["ratios"] == "ok"
    refused = cli("split", "--no-official", project=folder)
    assert refused.code == 2
    assert "official from True to False" in refused.err
    assert splits_of(folder) == found
    cli.ok("split", "--no-official", "--reassign", project=folder)
    again = cli.ok("split", "--check", "--json", "--no-official", project=folder).json
    assert {row["name"]: row["outcome"] for row in again["findings"]}["authors"] == "ok"


@pytest.mark.parametrize("subsets", [["train"], ["train", "test"]])
def test_official_splits_need_all_subsets(
    cli: Cli, make_project: MakeProject, subsets: list[str]
) -> None:
    folder = make_project(subsets=subsets, limit=10)
    cli.ok("fetch", project=folder)
    refused = cli("split", "--official", project=folder)
    assert refused.code == 2
    assert '[dataset] subsets = ["train", "validation", "test"]' in refused.err


# ---- the check


def list_in_two(folder: Path) -> None:
    lists = folder / "data" / "dataset"
    line = (lists / "train.txt").read_text(encoding="utf-8").splitlines()[0]
    with (lists / "test.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def lose_from_list(folder: Path) -> None:
    path = folder / "data" / "dataset" / "train.txt"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]))


def lose_list(folder: Path) -> None:
    (folder / "data" / "dataset" / "valid.txt").write_bytes(b"\xff\xfe")


def change_table(folder: Path) -> None:
    path = folder / "data" / "dataset" / "split.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",train,", ",test,", 1))


def damage_table(folder: Path) -> None:
    (folder / "data" / "dataset" / "split.csv").write_text("ImageID,split\n")


def tear_group(folder: Path) -> None:
    table = table_of(folder).reset_index()
    first = {name: table[table["split"] == name].index[0] for name in ("train", "test")}
    table.loc[first["train"], "group"] = table.loc[first["test"], "group"]
    table.to_csv(folder / "data" / "dataset" / "split.csv", index=False)


def lose_label(folder: Path) -> None:
    next((folder / "data" / "dataset" / "obj").glob("*.txt")).unlink()


def lose_picture(folder: Path) -> None:
    next((folder / "data" / "dataset" / "obj").glob("*.jpg")).unlink()


def in_ledger(column: str) -> Callable[[Path], None]:
    """Let an image of train and one of test have the same."""

    def changed(folder: Path) -> None:
        first = {split: i for i, split in splits_of(folder).items()}
        with sqlite3.connect(folder / "data" / "ledger.sqlite") as db:
            db.execute(
                f"UPDATE images SET {column} = (SELECT {column} FROM images "  # noqa: S608  (ours)
                "WHERE image_id = ?) WHERE image_id = ?",
                (first["train"], first["test"]),
            )
        db.close()

    return changed


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an image in two lists": (list_in_two, "lists"),
    "an image lost from a list": (lose_from_list, "ledger"),
    "a list that cannot be read": (lose_list, "lists"),
    "another split in the table": (change_table, "split.csv"),
    "a damaged table": (damage_table, "split.csv"),
    "a torn group": (tear_group, "groups"),
    "a lost label": (lose_label, "files"),
    "a lost picture": (lose_picture, "files"),
    "another split in the ledger": (in_ledger("split"), "ledger"),
    "the same bytes": (in_ledger("md5"), "bytes"),
    "the same look": (in_ledger("phash"), "near-duplicates"),
    "the same author": (in_ledger("author"), "authors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_check_finds(cli: Cli, own: Path, digests: Digests, name: str) -> None:
    cli.ok("split", "--check", project=own)
    damage, finding = DAMAGE[name]
    damage(own)
    before = digests(own / "data" / "dataset")
    with open_project(own).data_lock("a test"):  # it takes no lock
        done = cli("split", "--check", "--json", project=own)
    assert done.code == 3
    assert done.json["sound"] is False
    failed = {row["name"] for row in done.json["findings"] if row["outcome"] == "failed"}
    assert finding in failed
    assert digests(own / "data" / "dataset") == before
    told = cli("split", "--check", project=own)
    assert told.code == 3
    assert "FAILED" in told.out
    assert "NOT sound" in told.out


@pytest.mark.parametrize(
    "damage", [list_in_two, lose_from_list, lose_list, change_table, damage_table, tear_group]
)
def test_the_next_run_repairs_lists_and_table(
    cli: Cli, own: Path, digests: Digests, damage: Callable[[Path], None]
) -> None:
    before = digests(own / "data" / "dataset")
    damage(own)
    cli.ok("split", project=own)
    assert digests(own / "data" / "dataset") == before
    assert "nothing new" in cli.ok("split", project=own).err


def test_the_check_finds_shares_that_are_far_off(cli: Cli, own: Path) -> None:
    ratios = own / "data" / "dataset" / ".split-ratios.json"
    saved = json.loads(ratios.read_text(encoding="utf-8"))
    ratios.write_text(json.dumps({**saved, "train": 0.2, "valid": 0.4, "test": 0.4}))
    done = cli("split", "--check", "--json", project=own)
    assert done.code == 3
    failed = {row["name"] for row in done.json["findings"] if row["outcome"] == "failed"}
    assert failed == {"ratios"}


def test_there_is_nothing_to_check_before_there_is_a_split(
    cli: Cli, make_project: MakeProject
) -> None:
    refused = cli("split", "--check", project=make_project())
    assert refused.code == 2
    assert "`oiyolo split` first" in refused.err


def test_a_check_does_not_reassign(cli: Cli, whole: Path) -> None:
    assert cli("split", "--check", "--reassign", project=whole).code == 2


# ---- older projects, kills, other places


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "none"])
def test_images_that_were_split_before_there_were_hashes_get_one_and_stay(
    make_project: MakeProject, cli: Cli, fit: str
) -> None:
    folder = make_project(limit=30, fit=fit, size=(128, 96))
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    before = splits_of(folder)
    path = folder / "data" / "ledger.sqlite"
    db = sqlite3.connect(path)
    hashes = dict(db.execute("SELECT image_id, phash FROM images WHERE state != 'excluded'"))
    db.executescript(
        "DROP TRIGGER sums_of_new; DROP TRIGGER sums_of_changed; DROP TABLE sums;"
        "DROP TABLE journals; ALTER TABLE images DROP COLUMN phash; PRAGMA user_version = 1;"
    )
    db.close()
    checked = cli.ok("split", "--check", "--json", project=folder).json
    told = {row["name"]: row["told"] for row in checked["findings"]}
    assert "without a perceptual hash" in told["near-duplicates"]
    oiyolo.split(folder)
    assert splits_of(folder) == before
    with open_project(folder).ledger(read_only=True) as ledger:
        again = ledger.facts("phash", *SPLITS)
    assert again.keys() == before.keys()
    for image_id, text in again.items():
        bits = (int(str(text), 16) ^ int(hashes[image_id], 16)).bit_count()
        assert bits <= NEAR_BITS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_split_killed_at_random_moments_ends_as_if_it_had_not_been(
    shell: Shell, whole: Path, own: Path, seed: int
) -> None:
    wanted = table_of(whole)
    shutil.rmtree(own / "data" / "dataset")
    oiyolo.prepare(own)
    with open_project(own).ledger() as ledger:
        ledger.forget_splits()
    rng = random.Random(seed)
    for _ in range(4):
        process = shell.start("split", "--project", str(own))
        time.sleep(rng.uniform(0.3, 1.6))
        process.kill()
        process.communicate()
    done = shell("split", "--project", str(own))
    assert done.code == 0, done.err
    assert table_of(own).equals(wanted)
    assert shell("split", "--check", "--project", str(own)).code == 0
    assert not list((own / "data" / "dataset").glob("*.part"))


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["two  spaces", "images/帆船.jpg"])
def test_a_moved_project_is_repaired_by_the_next_run_and_trains(
    cli: Cli, own: Path, darknet: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = splits_of(own)
    target = own.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    moved = own.rename(target)
    cli.ok("split", project=moved)
    assert splits_of(moved) == before
    cli.ok("split", "--check", project=moved)
    monkeypatch.chdir("/")  # the lists work from anywhere
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
    ids = [i for i in selected(folder).index if (folder / "data/images" / f"{i}.jpg").is_file()]
    upright = set(upright_ids(selected(folder), ids))
    ids.sort(key=lambda image_id: image_id not in upright)
    shown: dict[str, Any] = {}
    for number, image_id in enumerate(ids):  # every third is a copy of the one before it
        is_copy = number % 3 == 2 and image_id in upright
        source = photographs[number - is_copy]
        shown[image_id] = source
        with Image.open(source) as picture:
            kept: Image.Image = picture
            if is_copy:
                kept = picture.resize((300, 200))
            kept.save(folder / "data" / "images" / f"{image_id}.jpg", quality=60)
    oiyolo.split(folder)
    table = table_of(folder)
    by_source: dict[Path, set[str]] = {}
    for image_id in table.index:
        by_source.setdefault(shown[image_id], set()).add(str(table.loc[image_id, "group"]))
    assert all(len(groups) == 1 for groups in by_source.values())
    assert len({group for groups in by_source.values() for group in groups}) == len(by_source)
    assert any(str(why).startswith("near-duplicate") for why in table["why"])
