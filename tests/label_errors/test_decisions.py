"""The file of decisions: it survives reading and writing, and says which row is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.label_errors import decisions, reviewed
from oiyolo.label_errors.decisions import ReviewRow

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = ("a" * 16, "b" * 16, "c" * 16)
BOX, FAR = (0.1, 0.2, 0.5, 0.6), (0.6, 0.6, 0.9, 0.9)
HEADER = "ImageID,class,XMin,XMax,YMin,YMax,decision\n"


def corners() -> st.SearchStrategy[tuple[float, float, float, float]]:
    number = st.integers(0, 999_998).map(lambda value: value / 1e6)
    side = st.tuples(number, number).map(sorted).map(lambda pair: (pair[0], pair[1] + 1e-6))
    return st.tuples(side, side).map(lambda p: (p[0][0], p[1][0], p[0][1], p[1][1]))


@given(
    st.builds(
        ReviewRow, st.just(A), st.sampled_from(["Boat", 'a "b", c', "Ruderboot ü"]), corners(),
        kind=st.just("location"), score=st.integers(0, 10_000).map(lambda v: v / 10_000),
        decision=st.sampled_from(["", "keep", "drop", "replace", "drop_image"]),
        new_class=st.just("Oar"), new_xyxy=corners(), reason=st.just("IoU, 0.4"),
    )
)  # fmt: skip
def test_a_row_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, row: ReviewRow
) -> None:
    path = tmp_path_factory.mktemp("review") / "review.csv"
    decisions.write(path, [row])
    (read,) = decisions.read(path)
    assert read.xyxy == pytest.approx(row.xyxy, abs=1e-6)
    assert (read.class_name, read.decision, read.reason) == (
        row.class_name,
        row.decision,
        row.reason,
    )
    assert read.score == row.score


def test_a_file_of_a_spreadsheet_and_a_short_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    assert decisions.read(path) == []
    path.write_text(f"\ufeff{HEADER}{A},Boat,0.1,0.5,0.2,0.6,DROP\n,,,,,,\n", encoding="utf-8")
    (row,) = decisions.read(path)
    assert row == ReviewRow(A, "Boat", BOX, decision="drop")
    path.write_text(f"{HEADER}{A},Boat,0.10000004,0.5,0.2,0.6,drop\n")  # 6 decimals count
    assert decisions.read(path) == [row]
    path.write_text(f"{HEADER}{A},Boat,0.1000001,0.1000002,0.2,0.6,drop\n")
    with pytest.raises(InputFormError, match="not a box"):
        decisions.read(path)
    path.write_text(f"{HEADER}{A},,,,,,drop_image\n")
    assert decisions.read(path) == [ReviewRow(A, "", (0.0, 0.0, 1.0, 1.0), decision="drop_image")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,b\n1,2\n", "a,b"),
        (f"{HEADER}../x,Boat,0.1,0.5,0.2,0.6,drop\n", "../x"),
        (f"{HEADER}{A},Boat,0.1,0.5,0.2,0.6,delete\n", "delete"),
        (f"{HEADER}{A},Boat,0.5,0.1,0.2,0.6,drop\n", "XMin 0.5"),
        (f"{HEADER}{A},Boat,0.1,nan,0.2,0.6,drop\n", "nan"),
        (f"{HEADER}{A},Boat,0.1,x,0.2,0.6,drop\n", "x"),
        (f"{HEADER}{A},Boat,0.1,0.5,0.2,0.6,replace\n", ""),
        (f'{HEADER}{A},"Boat,0.1\n', ""),
        (f"{HEADER}{A}\n", ""),
        (f"class,{HEADER}Boat\n", ""),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "review.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputFormError) as caught:
        decisions.read(path)
    assert str(path) in caught.value.where
    assert found in (caught.value.found or "")


def test_decisions_are_kept_for_the_same_box_and_others_stay() -> None:
    nearly = (0.1, 0.2, 0.5, 0.601)
    new = [
        ReviewRow(A, "Boat", nearly, kind="spurious", score=0.5, reason="new"),
        ReviewRow(A, "Boat", BOX, kind="missing", score=0.4),
        ReviewRow(B, "Boat", BOX, kind="missing", score=0.3),
    ]
    before = [
        ReviewRow(A, "Boat", BOX, kind="location", decision="drop", reason="old"),
        ReviewRow(C, "Boat", BOX, decision="add"),
        ReviewRow(B, "Boat", BOX, kind="missing"),
    ]
    merged = decisions.with_decisions(new, before)
    assert [row.decision for row in merged] == ["drop", "", "", "add"]
    assert (merged[0].reason, merged[0].xyxy) == ("new", BOX)


def test_of_nearly_equal_boxes_each_keeps_its_own_decision() -> None:
    twin = (0.1, 0.2, 0.51, 0.6)
    new = [ReviewRow(A, "Boat", box, kind="duplicate") for box in (BOX, twin)]
    (second,) = before = [replace(new[1], decision="drop")]
    assert decisions.with_decisions(new, before) == [new[0], second]
    assert [decisions.find_row(new, row) for row in (new[0], second)] == [0, 1]
    boxes = table().iloc[[0, 0]].reset_index(drop=True)
    boxes.loc[1, "XMax"] = twin[2]
    result = reviewed.apply(boxes, [A], ["Boat"], before)
    assert result.boxes["dropped_because"].tolist() == ["", "review"]


def test_a_box_is_replaced_by_one_that_is_there_already() -> None:
    row = ReviewRow(A, "Boat", BOX, decision="replace", new_class="Oar", new_xyxy=FAR)
    result = reviewed.apply(table(), [A, B], ["Boat", "Oar"], [row])
    assert (result.note(A), result.not_applied) == ("1 box dropped by review", [])


@pytest.mark.parametrize(
    ("xyxy", "expected"),
    [
        ((-0.1, 0.2, 0.5, 1.1), (0.0, 0.2, 0.5, 1.0)),
        ((0.1, 0.0, 0.4, 0.0), None),
        ((0.1, 0.2, 0.1000001, 0.4), None),
    ],
)
def test_only_a_box_that_can_be_read_again_is_written(
    xyxy: tuple[float, float, float, float], expected: object
) -> None:
    assert decisions.to_file_precision(xyxy) == expected


def table() -> pd.DataFrame:
    rows = [
        (A, "train", *BOX, "Boat", 0, ""),
        (A, "train", *FAR, "Oar", 1, ""),
        (B, "train", *BOX, "Boat", 0, ""),
        (B, "train", *FAR, "Boat", 0, "group_of"),
    ]
    names = ["ImageID", "Subset", "XMin", "YMin", "XMax", "YMax", "class", "class_id"]
    boxes = pd.DataFrame(rows, columns=[*names, "dropped_because"])
    return boxes.assign(used=boxes["dropped_because"] == "", IsGroupOf=0)


def test_boxes_are_dropped_added_and_replaced() -> None:
    rows = [
        ReviewRow(A, "Boat", BOX, decision="drop"),
        ReviewRow(A, "Boat", FAR, decision="add"),
        ReviewRow(
            B, "Boat", BOX, decision="replace", new_class="Oar", new_xyxy=(0.0, 0.0, 0.3, 0.3)
        ),
        ReviewRow(B, "Boat", BOX, decision="keep"),
    ]
    result = reviewed.apply(table(), [A, B], ["Boat", "Oar"], rows)
    assert result.boxes["ImageID"].tolist() == [A, A, A, B, B, B]
    assert result.boxes["dropped_because"].tolist() == ["review", "", "", "review", "group_of", ""]
    assert result.boxes["class"].tolist() == ["Boat", "Oar", "Boat", "Boat", "Boat", "Oar"]
    assert result.boxes["IsGroupOf"].tolist() == [0, 0, -1, 0, 0, -1]
    assert result.note(A) == result.note(B) == "1 box dropped and 1 box added by review"
    assert (result.not_applied, result.rejected_ids) == ([], frozenset())


def test_decisions_that_match_nothing_are_listed() -> None:
    rows = [
        ReviewRow(C, "Boat", BOX, decision="drop"),
        ReviewRow(A, "Oar", BOX, decision="drop"),
        ReviewRow(A, "Boat", BOX, decision="add"),
        ReviewRow(A, "Car", FAR, decision="add"),
        ReviewRow(B, "Boat", FAR, decision="drop"),
        ReviewRow(B, "Boat", BOX, decision="drop_image"),
    ]
    result = reviewed.apply(table(), [A, B], ["Boat", "Oar"], rows)
    assert list(result.not_applied) == rows[:5]
    assert result.rejected_ids == {B}
    pd.testing.assert_frame_equal(result.boxes, table())


def test_without_decisions_the_table_is_the_same() -> None:
    boxes = table()
    assert reviewed.apply(boxes, [A, B], ["Boat"], [ReviewRow(A, "Boat", BOX)]).boxes is boxes
