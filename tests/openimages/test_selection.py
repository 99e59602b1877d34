"""The selection of images and boxes from tables of boxes and labels."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.openimages.classes import SelectedClass
from oiyolo.openimages.selection import FLAG_COLUMNS, SEPARATOR, count_per_class, select_images
from oiyolo.project.keys import DatasetOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.openimages.selection import SelectionTables

BOAT = SelectedClass(0, "Boat", "/m/boat", {"/m/canoe": "Canoe"})
DUCK = SelectedClass(1, "Duck", "/m/duck", {})
DEFAULTS = DatasetOptions()


def boxes(*rows: tuple[str, str] | tuple[str, str, Mapping[str, object]]) -> pd.DataFrame:
    """Make a table of boxes from image id, label, and values that differ from a plain box."""
    plain = {"XMin": 0.1, "XMax": 0.5, "YMin": 0.2, "YMax": 0.7, "Subset": "train", "Source": "x",
             **dict.fromkeys(FLAG_COLUMNS.values(), 0)}  # fmt: skip
    full: list[dict[str, Any]] = [
        {"ImageID": row[0], "LabelName": row[1], **plain, **(row[2] if len(row) > 2 else {})}
        for row in rows
    ]
    return pd.DataFrame(full, columns=["ImageID", "LabelName", *plain])


def labels(*rows: tuple[str, str, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["ImageID", "LabelName", "Confidence"])
    return table.assign(Source="verification", Subset="validation")


def select(
    table: pd.DataFrame,
    image_labels: pd.DataFrame | None = None,
    classes: tuple[SelectedClass, ...] = (BOAT, DUCK),
    **options: Any,
) -> SelectionTables:
    image_labels = labels() if image_labels is None else image_labels
    return select_images(table, image_labels, classes, replace(DEFAULTS, **options))


def ids(selected: SelectionTables) -> list[str]:
    return list(selected.images["ImageID"])


def test_every_image_with_a_box_of_a_class_is_selected_ordered_by_id() -> None:
    found = select(boxes(("b", "/m/boat"), ("a", "/m/canoe"), ("b", "/m/duck"), ("a", "/m/boat")))
    assert ids(found) == ["a", "b"]
    assert found.boxes["ImageID"].tolist() == ["a", "a", "b", "b"]
    assert found.boxes["class"].tolist() == ["Boat", "Boat", "Boat", "Duck"]
    assert found.boxes["class_id"].tolist() == [0, 0, 0, 1]
    assert found.boxes["used"].all()
    assert found.images["Subset"].tolist() == ["train", "train"]
    assert not found.images["negative"].any()
    assert found.excluded == {}
    assert count_per_class(found, (BOAT, DUCK)) == {
        "Boat": {"images": 2, "boxes": 3},
        "Duck": {"images": 1, "boxes": 1},
    }


@pytest.mark.parametrize("option", sorted(FLAG_COLUMNS))
@pytest.mark.parametrize(
    ("choice", "value", "images", "used"),
    [
        ("keep", 1, ["a", "b", "c"], [True, True, True, True]),
        ("drop-box", 1, ["a", "b"], [True, False, True]),
        ("drop-image", 1, ["b"], [True]),
        ("drop-box", 0, ["a", "b", "c"], [True, True, True, True]),
        ("drop-image", 0, ["a", "b", "c"], [True, True, True, True]),
        ("drop-box", -1, ["a", "b", "c"], [True, True, True, True]),
        ("drop-image", -1, ["a", "b", "c"], [True, True, True, True]),
    ],
)
def test_a_flag_keeps_or_drops_the_box_or_the_image_and_unknown_counts_as_not_set(
    option: str, choice: str, value: int, images: list[str], used: list[bool]
) -> None:
    flag = {FLAG_COLUMNS[option]: value}
    options: dict[str, Any] = {option: choice}
    table = boxes(
        ("a", "/m/boat"), ("a", "/m/boat", flag), ("b", "/m/boat"), ("c", "/m/duck", flag)
    )
    found = select(table, **options)
    assert ids(found) == images
    assert found.boxes["used"].tolist() == used
    dropped = found.boxes[~found.boxes["used"]]
    assert set(dropped["dropped_because"]) <= {option}
    assert sum(found.excluded.values()) == 3 - len(images)


def test_a_masked_group_remains_a_used_box() -> None:
    found = select(boxes(("a", "/m/boat", {"IsGroupOf": 1})), group_of="mask")
    assert ids(found) == ["a"]


def test_excluded_images_are_counted_once() -> None:
    flag = {"IsGroupOf": 1, "IsOccluded": 1}
    table = boxes(("a", "/m/boat", flag), ("a", "/m/boat", flag), ("b", "/m/boat", {"IsInside": 1}))
    found = select(table, group_of="drop-image", occluded="drop-box", inside="drop-box")
    assert found.excluded == {"dropped by a flag": 1, "no box left": 1}
    assert ids(found) == []
    assert found.boxes.empty


def test_a_missing_flag_column_drops_nothing() -> None:
    table = boxes(("a", "/m/boat")).drop(columns=list(FLAG_COLUMNS.values()))
    assert ids(select(table, group_of="drop-image")) == ["a"]


@pytest.mark.parametrize(
    ("low", "high", "used"),
    [
        (0.0, 1.0, [True, True, True, True]),
        (0.05, 1.0, [False, True, True, True]),
        (0.0, 0.3, [True, True, True, False]),
        (0.2, 0.2, [False, False, True, False]),
    ],
)
def test_boxes_too_small_or_too_large_are_dropped(
    low: float, high: float, used: list[bool]
) -> None:
    def with_width(width: float) -> dict[str, object]:
        return {"XMin": 0.0, "XMax": width, "YMin": 0.25, "YMax": 0.75}

    table = boxes(*(("a", "/m/boat", with_width(width)) for width in (0.02, 0.2, 0.4, 0.8)))
    found = select(table, min_box_area=low, max_box_area=high)
    assert found.boxes["used"].tolist() == used
    expected = {"min_box_area"} if low else set()
    expected |= {"max_box_area"} if high < 0.4 else set()
    assert set(found.boxes["dropped_because"]) - {""} == expected


HEX_IDS = st.lists(
    st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}"), unique=True, min_size=1, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(HEX_IDS, st.integers(1, 45), st.integers(1, 45))
def test_a_smaller_limit_selects_a_subset_of_a_larger_limit(
    image_ids: list[str], first: int, second: int
) -> None:
    table = boxes(*((i, "/m/boat") for i in image_ids))
    small, large = (select(table, limit=n) for n in sorted((first, second)))
    assert set(ids(small)) <= set(ids(large))
    for limit, found in zip(sorted((first, second)), (small, large), strict=True):
        assert len(ids(found)) == min(limit, len(image_ids))
        beyond = len(image_ids) - len(ids(found))
        assert found.excluded == ({"beyond the limit": beyond} if beyond else {})
    shuffled = boxes(*((i, "/m/boat") for i in reversed(image_ids)))
    assert ids(select(shuffled, limit=first)) == ids(select(table, limit=first))


@settings(max_examples=20, deadline=None)
@given(HEX_IDS, st.integers(1, 20), st.sets(st.integers(0, 39)))
def test_new_images_enter_a_limited_selection_only_by_their_hash_order(
    image_ids: list[str], limit: int, absent: set[int]
) -> None:
    some = [i for place, i in enumerate(image_ids) if place not in absent]
    before = set(ids(select(boxes(*((i, "/m/boat") for i in some)), limit=limit)))
    after = set(ids(select(boxes(*((i, "/m/boat") for i in image_ids)), limit=limit)))
    assert after & set(some) <= before


def test_negatives_are_images_in_which_humans_verified_the_class_as_absent() -> None:
    image_labels = labels(
        ("n1", "/m/boat", 0),
        ("n2", "/m/boat", 0),
        ("present", "/m/boat", 1),  # a boat without a box
        ("child", "/m/canoe", 1),  # a canoe is a boat
        ("child", "/m/boat", 0),
        ("no canoe", "/m/canoe", 0),  # which says nothing of boats
        ("p", "/m/boat", 0),  # contradicted by a box
    )
    table = boxes(("p", "/m/boat"), ("q", "/m/boat"))
    found = select(table, image_labels, (BOAT,), negatives=1.0)
    assert ids(found) == ["n1", "n2", "p", "q"]
    assert found.images["negative"].tolist() == [True, True, False, False]
    assert found.images["absent"].tolist() == ["Boat", "Boat", "", ""]
    assert found.images["present"].tolist() == ["", "", "Boat", "Boat"]
    assert found.images["Subset"].tolist() == ["validation", "validation", "train", "train"]
    assert set(found.boxes["ImageID"]) == {"p", "q"}


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.1, 0), (0.5, 1), (1.0, 2), (9.0, 5)])
def test_negatives_are_a_ratio_of_the_positives_as_far_as_available(
    ratio: float, count: int
) -> None:
    image_labels = labels(*((f"n{n}", "/m/boat", 0) for n in range(5)))
    table = boxes(("p", "/m/boat"), ("q", "/m/boat"))
    found = select(table, image_labels, (BOAT,), negatives=ratio)
    assert int(found.images["negative"].sum()) == count


def test_an_image_whose_boxes_were_all_dropped_never_becomes_a_negative() -> None:
    image_labels = labels(("a", "/m/boat", 0), ("n", "/m/boat", 0))
    table = boxes(("a", "/m/boat", {"IsGroupOf": 1}), ("p", "/m/boat"))
    found = select(table, image_labels, (BOAT,), group_of="drop-box", negatives=5.0)
    assert ids(found) == ["n", "p"]
    assert found.excluded == {"no box left": 1}


def test_require_verified_selects_only_images_verified_for_every_class() -> None:
    image_labels = labels(("a", "/m/duck", 0), ("b", "/m/duck", 1), ("c", "/m/canoe", 0))
    table = boxes(("a", "/m/boat"), ("b", "/m/canoe"), ("c", "/m/duck"), ("d", "/m/boat"))
    found = select(table, image_labels, require_verified=True)
    assert ids(found) == ["a", "b"]
    assert found.excluded == {"not verified for every class": 2}
    assert found.images["present"].tolist() == ["Boat", "Boat|Duck"]
    assert found.images["absent"].tolist() == ["Duck", ""]


def test_without_boxes_no_images_are_selected() -> None:
    found = select(boxes())
    assert ids(found) == []
    assert list(found.images.columns) == ["ImageID", "Subset", "negative", "present", "absent"]
    assert count_per_class(found, (BOAT,)) == {"Boat": {"images": 0, "boxes": 0}}


def test_the_input_tables_are_not_modified() -> None:
    table = boxes(("b", "/m/boat"), ("a", "/m/boat"))
    before = table.copy()
    select(table, group_of="drop-box")
    pd.testing.assert_frame_equal(table, before)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]


def select_row_by_row(
    table: pd.DataFrame,
    image_labels: pd.DataFrame,
    classes: tuple[SelectedClass, ...],
    negatives: float,
) -> dict[str, tuple[bool, str, str]]:
    """Select row by row; return whether it is negative, present and absent classes, by image."""
    class_of = {mid: c for c in classes for mid in c.mids}
    positive = {
        box["ImageID"]
        for box in rows_of(table)
        if not any(
            other["IsInside"] == 1 for other in rows_of(table) if other["ImageID"] == box["ImageID"]
        )
        and box["IsGroupOf"] != 1
    }
    present = {(box["ImageID"], class_of[box["LabelName"]].name) for box in rows_of(table)}
    absent = set()
    for label in rows_of(image_labels):
        pair = (label["ImageID"], class_of[label["LabelName"]].name)
        if label["Confidence"] == 1:
            present.add(pair)
        elif class_of[label["LabelName"]].mid == label["LabelName"]:
            absent.add(pair)
    absent -= present
    excluded = {image for image, _ in present} | set(table["ImageID"])
    candidates = sorted(
        {image for image, _ in absent} - excluded, key=lambda i: sha256(i.encode()).digest()
    )
    is_negative = dict.fromkeys(positive, False)
    is_negative |= dict.fromkeys(candidates[: round(negatives * len(positive))], True)

    def joined(pairs: set[tuple[str, str]], image: str) -> str:
        return SEPARATOR.join(c.name for c in classes if (image, c.name) in pairs)

    return {
        image: (negative_flag, joined(present, image), joined(absent, image))
        for image, negative_flag in sorted(is_negative.items())
    }


SOME_IDS = st.sampled_from("abcdefgh")
SOME_MIDS = st.sampled_from(["/m/boat", "/m/canoe", "/m/duck"])
FLAG_VALUES = st.sampled_from([-1, 0, 0, 1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(SOME_IDS, SOME_MIDS, FLAG_VALUES, FLAG_VALUES), max_size=12),
    st.lists(st.tuples(SOME_IDS, SOME_MIDS, st.sampled_from([0, 1])), max_size=12),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_the_selection_equals_a_row_by_row_selection(
    rows: list[tuple[str, str, int, int]],
    image_labels: list[tuple[str, str, int]],
    negatives: float,
) -> None:
    table = boxes(
        *((i, mid, {"IsGroupOf": group, "IsInside": inside}) for i, mid, group, inside in rows)
    )
    options: dict[str, Any] = {
        "group_of": "drop-box",
        "inside": "drop-image",
        "negatives": negatives,
    }
    found = select(table, labels(*image_labels), **options)
    assert {
        row["ImageID"]: (row["negative"], row["present"], row["absent"])
        for row in rows_of(found.images)
    } == select_row_by_row(table, labels(*image_labels), (BOAT, DUCK), negatives)
    kept = [row for row in rows_of(table) if row["ImageID"] in set(ids(found))]
    assert len(found.boxes) == len(kept)
    assert int(found.boxes["used"].sum()) == sum(row["IsGroupOf"] != 1 for row in kept)
    left_out = set(table["ImageID"]) - set(ids(found))
    assert sum(found.excluded.values()) == len(left_out)
