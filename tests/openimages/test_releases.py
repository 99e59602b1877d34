"""The table of official files is complete and consistent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.openimages.releases import RELEASES, SUBSETS, TABLES, release

if TYPE_CHECKING:
    from oiyolo.openimages.releases import OfficialFile

EVERY_FILE = {file for name in RELEASES for file in release(name).files()}


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_has_names_hierarchy_and_three_tables_a_subset(name: str) -> None:
    files = release(name).files()
    assert len(files) == len(set(files)) == 2 + len(SUBSETS) * len(TABLES)
    assert [file.path.rsplit(".", 1)[1] for file in files[:2]] == ["csv", "json"]
    for subset in SUBSETS:
        tables = release(name).subsets[subset]
        assert all(
            re.search(rf"{subset}-{word}", getattr(tables, table).path)
            for table, word in (("images", "images"), ("labels", "annotations-human-imagelabels"),
                                ("boxes", "annotations-bbox"))
        )  # fmt: skip


def test_one_path_has_one_size_and_one_md5() -> None:
    assert len({file.path for file in EVERY_FILE}) == len(EVERY_FILE) == 19


def test_sizes_and_checksums_are_plausible() -> None:
    for file in EVERY_FILE:
        assert not file.path.startswith("/")
        assert file.size_bytes >= 0
        assert re.fullmatch(r"([0-9a-f]{32})?", file.md5)
        assert file.size_bytes or not file.md5, f"{file.path}: an MD5 comes with a size"
    md5s = [file.md5 for file in EVERY_FILE if file.md5]
    assert len(md5s) == len(set(md5s)) == 10


@pytest.mark.parametrize(
    ("older", "newer", "moved"),
    [
        ("v4", "v5", {"classes", "boxes of validation", "boxes of test", "labels of train",
                      "labels of validation", "labels of test"}),
        ("v5", "v6", {"boxes of train"}),
        ("v6", "v7", {"classes"}),
    ],
)  # fmt: skip
def test_a_release_differs_from_the_previous_one_in_a_few_files(
    older: str, newer: str, moved: set[str]
) -> None:
    def by_role(name: str) -> dict[str, OfficialFile]:
        files = release(name)
        tables = {
            f"{table} of {subset}": getattr(files.subsets[subset], table)
            for subset in SUBSETS
            for table in TABLES
        }
        return {"classes": files.classes, "hierarchy": files.hierarchy, **tables}

    before, after = by_role(older), by_role(newer)
    assert {role for role in before if before[role] != after[role]} == moved


def test_a_selection_needs_the_tables_of_its_subsets() -> None:
    files = release("v7").files(["validation"])
    assert [file.path for file in files] == [
        "v7/oidv7-class-descriptions-boxable.csv",
        "2018_04/bbox_labels_600_hierarchy.json",
        "v5/validation-annotations-bbox.csv",
        "2018_04/validation/validation-images-with-rotation.csv",
        "v5/validation-annotations-human-imagelabels-boxable.csv",
    ]


def test_the_train_boxes_of_v6_have_the_documented_size_and_md5() -> None:
    boxes = release("v6").subsets["train"].boxes
    assert boxes.size_bytes == 2_258_447_590
    assert boxes.md5 == "3c3e70cfaba5757ea5c2604b19cac3b2"


@pytest.mark.parametrize("name", ["v3", "7", "", "V7"])
def test_an_unknown_release_is_rejected_with_a_list_of_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        release(name)
    assert caught.value.expected == "v4, v5, v6, v7"
