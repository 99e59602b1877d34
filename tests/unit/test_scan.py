"""The scan finds what a plain reading of the whole table would find."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oiyolo.errors import InputFormError
from oiyolo.openimages import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REAL = Path(__file__).parents[3] / "shared" / "real" / "metadata"

BOX_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax",
               "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")  # fmt: skip
IMAGE_COLUMNS = ("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License",
                 "AuthorProfileURL", "Author", "Title", "OriginalSize", "OriginalMD5",
                 "Thumbnail300KURL", "Rotation")  # fmt: skip
# /m/019 begins /m/019jd; /m/0k4j and /m/0k4 too.
MIDS = ("/m/019jd", "/m/019", "/m/0k4j", "/m/0k4", "/m/01g317", "/m/0ph39", "/m/02068x",
        "/m/07yv9", "/m/01btn", "/m/0dv5r", "/m/0dtln", "/m/0l3ms", "/m/0199g")  # fmt: skip
TITLES = ("plain", "with, commas, two", 'a "quoted" word', "two\nlines", 'all, "of"\r\nit', "",
          "/m/019jd", 'ends in a quote"', "\n")  # fmt: skip


def image_id(number: int) -> str:
    return f"{number:016x}"


def box_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        row = dict.fromkeys(BOX_COLUMNS, "0")
        row |= {
            "ImageID": image_id(number // 3),
            "Source": rng.choice(("xclick", "activemil", "/m/019jd")),  # a MID in another column
            "LabelName": rng.choice(MIDS),
            "Confidence": "1",
            **{corner: f"{rng.random():.6f}" for corner in ("XMin", "XMax", "YMin", "YMax")},
        }
        rows.append(row)
    return rows


def image_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        row = {column: f"{column} {number}" for column in IMAGE_COLUMNS}
        row |= {
            "ImageID": image_id(number),
            "Author": rng.choice(TITLES).strip(),
            "Title": rng.choice(TITLES),
            # Another image's id in this image's address.
            "OriginalURL": f"https://host/{image_id(rng.randrange(count))}.jpg",
        }
        rows.append(row)
    return rows


def render(
    rows: Sequence[dict[str, str]], columns: Sequence[str], ending: str = "\n", *, last: bool = True
) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    return content if last else content.removesuffix(ending.encode())


def plainly(rows: Sequence[dict[str, str]], columns: Sequence[str], column: str,
            wanted: set[str]) -> pd.DataFrame:  # fmt: skip
    table = pd.DataFrame(rows, columns=list(columns), dtype=str)
    return table[table[column].isin(wanted)].reset_index(drop=True)


@pytest.fixture(params=[1 << 24, 997, 64, 1], ids=["one block", "997 B", "64 B", "1 B"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the scan's blocks so small that rows lie across their ends."""
    monkeypatch.setattr(scan, "_BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("wanted", [MIDS[:1], MIDS[1:2], MIDS[:4], MIDS, (), ("/m/0",)],
                         ids=["one", "prefix", "few", "many", "none", "no MID"])  # fmt: skip
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["final newline", "no final newline"])
def test_boxes_are_found_as_in_the_whole_table(
    tmp_path: Path, wanted: tuple[str, ...], ending: str, *, last: bool
) -> None:
    rows = box_rows(120)
    path = tmp_path / "boxes.csv"
    path.write_bytes(render(rows, BOX_COLUMNS, ending, last=last))
    found = scan.matching_rows(path, scan.BOXES, "LabelName", wanted)
    expected = plainly(rows, BOX_COLUMNS, "LabelName", set(wanted))
    pd.testing.assert_frame_equal(found.astype(object), expected.astype(object),
                                  check_dtype=False)  # fmt: skip


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("count", [1, 5, 40], ids=["one", "few", "many"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_images_are_found_whatever_their_titles_hold(
    tmp_path: Path, count: int, ending: str
) -> None:
    rows = image_rows(60, seed=count)
    wanted = {image_id(number) for number in random.Random(count).sample(range(60), count)}
    path = tmp_path / "images.csv"
    path.write_bytes(render(rows, IMAGE_COLUMNS, ending))
    found = scan.matching_rows(path, scan.IMAGES, "ImageID", wanted)
    expected = plainly(rows, IMAGE_COLUMNS, "ImageID", wanted)
    assert found.to_dict("records") == expected.to_dict("records")


@pytest.mark.parametrize("words", [1, 40], ids=["few", "many"])
@pytest.mark.parametrize("form", ["boxes", "images"])
def test_columns_may_stand_in_another_order_beside_others(
    tmp_path: Path, words: int, form: str
) -> None:
    path = tmp_path / "table.csv"
    is_boxes = form == "boxes"
    rows = box_rows(90) if is_boxes else image_rows(60)
    kind = scan.BOXES if is_boxes else scan.IMAGES
    turned = ["Extra", *reversed(rows[0])]
    rows = [{"Extra": "x", **row} for row in rows]
    path.write_bytes(render(rows, turned))
    wanted = {image_id(number) for number in range(words)}
    found = scan.matching_rows(path, kind, "ImageID", wanted)
    assert list(found.columns) == turned
    expected = plainly(rows, turned, "ImageID", wanted)
    assert found.to_dict("records") == expected.to_dict("records")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(b"\xef\xbb\xbf" + render(box_rows(9), BOX_COLUMNS))
    assert scan.read_header(path, scan.BOXES) == list(BOX_COLUMNS)
    assert len(scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)) == 9


def test_text_that_looks_like_no_value_stays_text(tmp_path: Path) -> None:
    rows = image_rows(3)
    for row in rows:
        row |= {"Author": "NA", "Title": "null", "Rotation": "nan", "OriginalSize": "007"}
    path = tmp_path / "images.csv"
    path.write_bytes(render(rows, IMAGE_COLUMNS))
    found = scan.matching_rows(path, scan.IMAGES, "ImageID", [image_id(1)])
    assert found.to_dict("records") == [rows[1]]


def without_a_field(line: str) -> str:
    return line.rpartition(",")[0]


def with_a_field_more(line: str) -> str:
    return line.replace("\n", ",0\n")


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("damage", [without_a_field, with_a_field_more])
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("at", [2, 50, 91])
@pytest.mark.parametrize("wanted", [MIDS[:1], MIDS], ids=["few", "many"])
def test_a_broken_row_is_told_with_its_line_also_where_it_is_not_wanted(
    tmp_path: Path, damage: Callable[[str], str], ending: str, at: int, wanted: Sequence[str]
) -> None:
    lines = render(box_rows(90), BOX_COLUMNS).decode().splitlines(keepends=True)
    lines[at - 1] = damage(lines[at - 1]).rstrip("\n") + "\n"
    path = tmp_path / "boxes.csv"
    path.write_bytes("".join(lines).replace("\n", ending).encode())
    with pytest.raises(InputFormError, match="a broken row") as caught:
        scan.matching_rows(path, scan.BOXES, "LabelName", wanted)
    assert caught.value.exit_code == 3
    assert caught.value.where == f"{path}:{at}"
    assert caught.value.expected == "13 fields"
    assert caught.value.found.startswith(("12 in", "14 in"))


def test_a_file_cut_off_in_the_middle_of_a_row_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(render(box_rows(9), BOX_COLUMNS)[:-40])
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    assert caught.value.where == f"{path}:10"


@pytest.mark.parametrize("count", [1, 30], ids=["few", "many"])
@pytest.mark.parametrize("place", ["first", "later"])
@pytest.mark.parametrize("damage", [without_a_field, with_a_field_more])
def test_a_broken_row_among_wanted_images_is_told_with_its_line(
    tmp_path: Path, count: int, place: str, damage: Callable[[str], str]
) -> None:
    rows = [dict(row, Title="one line", Author="A") for row in image_rows(40)]
    lines = render(rows, IMAGE_COLUMNS).decode().splitlines(keepends=True)
    at = 1 if place == "first" else count
    lines[at] = damage(lines[at]).rstrip("\n") + "\n"
    path = tmp_path / "images.csv"
    path.write_bytes("".join(lines).encode())
    wanted = [image_id(number) for number in range(count)]
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(path, scan.IMAGES, "ImageID", wanted)
    assert caught.value.where == f"{path}:{at + 1}"
    assert caught.value.expected == "12 fields"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\n", "an empty file"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "<!DOCTYPE html>"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "<?xml"),
        (b"ImageID,Source,LabelName\n0,1,2\n", "ImageID,Source,LabelName"),
        (b"\xff\xd8\xff\xe0" * 50, "..."),
    ],
    ids=["empty", "blank", "HTML", "XML", "a column missing", "a picture"],
)
def test_what_has_not_the_right_header_is_refused(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(InputFormError, match="this is no Open Images boxes file") as caught:
        scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    assert caught.value.where == f"{path}:1"
    assert found in caught.value.found
    assert "XMin" in caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("make", [None, Path.mkdir], ids=["absent", "a folder"])
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, make: Callable[[Path], None] | None
) -> None:
    path = tmp_path / "boxes.csv"
    if make:
        make(path)
    with pytest.raises(InputFormError, match="cannot be read") as caught:
        scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    assert caught.value.where == str(path)


def test_a_header_alone_gives_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(render([], BOX_COLUMNS, last=False))
    found = scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    assert found.empty
    assert list(found.columns) == list(BOX_COLUMNS)


def test_numbers_become_numbers_and_other_columns_stay(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(render(box_rows(9), BOX_COLUMNS))
    rows = scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    turned = scan.numbers(rows, ["XMin", "IsInside"], path, scan.BOXES, "a number")
    assert turned["XMin"].tolist() == [float(text) for text in rows["XMin"]]
    assert turned["XMax"].tolist() == rows["XMax"].tolist()
    assert all(isinstance(text, str) for text in rows["XMin"])  # what came in is left alone


@pytest.mark.parametrize("value", ["abc", "", "nan", "inf", "-inf", "0.1.2", "1e999", "0x1"])
def test_what_is_no_number_is_told_with_its_line(tmp_path: Path, value: str) -> None:
    rows = box_rows(30)
    rows[16]["XMax"] = value  # the second of three boxes of its image
    path = tmp_path / "boxes.csv"
    path.write_bytes(render(rows, BOX_COLUMNS, "\r\n"))
    found = scan.matching_rows(path, scan.BOXES, "LabelName", MIDS)
    with pytest.raises(InputFormError, match="wrong XMax") as caught:
        scan.numbers(found, ["XMin", "XMax"], path, scan.BOXES, "a number")
    assert caught.value.where == f"{path}:18"
    assert caught.value.found == repr(value)
    assert caught.value.expected == "a number"


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{name} of the real metadata is not here")
    return path


@pytest.mark.parametrize("count", [1, 3, 40])
def test_real_boxes_are_found_as_pandas_finds_them(count: int) -> None:
    path = real("v5_boxes/train-annotations-bbox.csv")
    table = pd.read_csv(path, dtype=str)
    wanted = set(table["LabelName"].value_counts().index[-count:])
    found = scan.matching_rows(path, scan.BOXES, "LabelName", wanted)
    expected = table[table["LabelName"].isin(wanted)]
    assert len(found)
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("step", [1, 300])
def test_real_images_are_found_as_pandas_finds_them(subset: str, step: int) -> None:
    path = real(f"v3/{subset}/images.csv")
    table = pd.read_csv(path, dtype=str, na_filter=False)
    wanted = set(table["ImageID"][::step])
    found = scan.matching_rows(path, scan.IMAGES, "ImageID", wanted)
    expected = table[table["ImageID"].isin(wanted)]
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()
    assert len(found) == len(wanted)
