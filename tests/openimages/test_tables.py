"""The tables of a subset: column types, one row per image, and errors for invalid rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.tables import (
    BOX_COLUMNS,
    IMAGE_COLUMNS,
    TableSource,
    read_boxes,
    read_images,
    read_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = [f"{number:016x}" for number in range(4)]
BOX_HEADER = ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
            "IsGroupOf,IsDepiction,IsInside,XClick1X")  # fmt: skip
IMAGE_HEADER = "ImageID,Subset,OriginalURL,License,Author,Title,OriginalSize,OriginalMD5,Rotation"


@dataclass(frozen=True)
class TextFile:
    lines: tuple[str, ...]
    where: str = "https://host/file.csv"

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        assert size_bytes > 0
        yield "".join(f"{line}\n" for line in self.lines).encode()


def boxes(*ids: str) -> TextFile:
    return TextFile((BOX_HEADER, *(f"{i},xclick,/m/019jd,1,0,1,0,1,0,-1,1,0,0,0.5" for i in ids)))


def images(*rotations: str) -> TextFile:
    rows = (f'{i},train,u,l,"A, b",t,1,m,{r}' for i, r in zip(IDS, rotations, strict=False))
    return TextFile((IMAGE_HEADER, *rows))


def test_boxes_have_numeric_columns_and_no_click_points() -> None:
    rows = read_boxes(TableSource(boxes(*IDS), "test"), ["/m/019jd"]).rows
    assert set(rows.columns) == {*BOX_COLUMNS, "Subset"}
    assert all(rows[corner].dtype == float for corner in ("XMin", "XMax", "YMin", "YMax"))
    assert rows["IsTruncated"].tolist() == [-1] * 4
    assert rows["Subset"].eq("test").all()


def test_a_file_without_matching_rows_gives_an_empty_table_with_all_columns() -> None:
    rows = read_boxes(TableSource(boxes(*IDS), "test"), ["/m/0cmf2"]).rows
    assert rows.empty
    assert set(rows.columns) == {*BOX_COLUMNS, "Subset"}


@pytest.mark.parametrize("invalid_id", ["../../etc/passwd", "0" * 15, "0" * 17, "A" * 16, ""])
def test_an_invalid_image_id_is_rejected_or_skipped(invalid_id: str) -> None:
    source = TableSource(boxes(IDS[0], invalid_id), "train")
    with pytest.raises(InputFormError) as caught:
        read_boxes(source, ["/m/019jd"])
    assert caught.value.found == repr(invalid_id)
    found = read_boxes(replace(source, skip_bad_rows=True), ["/m/019jd"])
    assert found.rows["ImageID"].tolist() == IDS[:1]
    assert found.bad_rows == 1


def test_machine_generated_labels_are_dropped() -> None:
    header = "ImageID,Source,LabelName,Confidence"
    rows = [f"{IDS[0]},verification,/m/1,1", f"{IDS[1]},machine,/m/1,0.7", f"{IDS[2]},x,/m/1,0"]
    found = read_labels(TableSource(TextFile((header, *rows)), "train"), ["/m/1"])
    assert found.rows["ImageID"].tolist() == [IDS[0], IDS[2]]
    assert found.rows["Confidence"].tolist() == [1, 0]
    assert found.bad_rows == 0


def test_images_have_all_columns_one_row_each_and_no_nan() -> None:
    file = images("0.0", "nan", "", "270.0")
    file = TextFile((*file.lines, file.lines[1]))  # the first row again
    rows = read_images(TableSource(file, "train"), IDS).rows
    assert list(rows.columns) == list(IMAGE_COLUMNS)
    assert rows["ImageID"].tolist() == IDS
    assert rows["Rotation"].tolist() == ["0.0", "", "", "270.0"]
    assert rows["Author"].tolist() == ["A, b"] * 4
    assert rows["Thumbnail300KURL"].tolist() == [""] * 4


@pytest.mark.parametrize("rotation", ["45", "-90.0", "up", "360.0"])
def test_an_invalid_rotation_is_rejected_or_skipped(rotation: str) -> None:
    source = TableSource(images("0.0", rotation), "train")
    with pytest.raises(InputFormError) as caught:
        read_images(source, IDS[:2])
    assert caught.value.found == repr(rotation)
    found = read_images(replace(source, skip_bad_rows=True), IDS[:2])
    assert (found.rows["ImageID"].tolist(), found.bad_rows) == (IDS[:1], 1)


@pytest.mark.parametrize("skip", [False, True])
def test_an_image_missing_in_the_list_is_an_error(*, skip: bool) -> None:
    source = TableSource(images("0.0", "0.0"), "train", skip_bad_rows=skip)
    with pytest.raises(InputFormError) as caught:
        read_images(source, IDS[:3])
    assert IDS[2] in caught.value.expected
