"""The scan finds the same rows as parsing the whole table."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.csvscan import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BOX_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax",
               "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside",
               "XClick1X", "XClick2X", "XClick3X", "XClick4X",
               "XClick1Y", "XClick2Y", "XClick3Y", "XClick4Y")  # fmt: skip
IMAGE_COLUMNS = ("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License",
                 "AuthorProfileURL", "Author", "Title", "OriginalSize", "OriginalMD5",
                 "Thumbnail300KURL", "Rotation")  # fmt: skip
TEXT_BOXES = scan.CsvSchema("boxes", scan.BOXES.required)
"""Boxes without number columns, so that rows are returned as they were written."""
# /m/019 begins /m/019jd; /m/0k4j and /m/0k4 too.
MIDS = ("/m/019jd", "/m/019", "/m/0k4j", "/m/0k4", "/m/01g317", "/m/0ph39", "/m/02068x",
        "/m/07yv9", "/m/01btn", "/m/0dv5r", "/m/0dtln", "/m/0l3ms", "/m/0199g")  # fmt: skip
TITLES = ("plain", "with, commas, two", 'a "quoted" word', "two\nlines", 'all, "of"\r\nit', "",
          "/m/019jd", 'ends in a quote"', "\n", '"', '""', ",", "été, 帆船",
          "\n0000000000000001,train,x\n")  # fmt: skip
ENDINGS = pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
CHECK_ALL = pytest.mark.parametrize("check_all", [True, False], ids=["check all", "check matches"])
BLOCKS = pytest.mark.parametrize("size", [1 << 20, 300, 64, 1], ids="{} B".format)


@dataclass(frozen=True)
class SinglePassFile:
    """A file that can be read only from start to end, in blocks of a chosen size."""

    content: bytes
    size: int = 1 << 20
    where: str = "https://host/file.csv"

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        assert size_bytes > 0
        for at in range(0, len(self.content), self.size):
            yield self.content[at : at + self.size]


def image_id(number: int) -> str:
    return f"{number:016x}"


def box_rows(count: int, width: int = 13, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        row = {column: rng.choice(("0", "1", "-1")) for column in BOX_COLUMNS[:width]}
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
            "Author": rng.choice([*TITLES, image_id(1)]).strip(),
            "Title": rng.choice(TITLES),
            # Another image's id in this image's URL.
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


def find_with_pandas(content: bytes, column: str, values: Sequence[str]) -> list[dict[str, str]]:
    """Return the matching rows that pandas finds by parsing the whole table."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, na_filter=False)
    return records(table[table[column].isin(list(values))])


def records(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {str(name): str(value) for name, value in row.items()} for row in table.to_dict("records")
    ]


@BLOCKS
@pytest.mark.parametrize(
    "values",
    [
        *(MIDS[:1], MIDS[1:2], MIDS[:4], MIDS, (), ("/m/0",), ("",)),
        (*(f"/m/0{n:05}" for n in range(190)), *MIDS[:3]),
    ],
    ids=["one", "prefix", "few", "many", "none", "no MID", "empty", "193"],
)
@ENDINGS
@pytest.mark.parametrize("last", [True, False], ids=["final newline", "no final newline"])
@CHECK_ALL
def test_matching_boxes_are_those_that_pandas_finds(
    size: int, values: tuple[str, ...], ending: str, *, last: bool, check_all: bool
) -> None:
    content = render(box_rows(24), BOX_COLUMNS[:13], ending, last=last)
    found = scan.matching_rows(
        SinglePassFile(content, size), TEXT_BOXES, "LabelName", values, check_all=check_all
    )
    assert records(found.rows) == find_with_pandas(content, "LabelName", values)
    assert found.bad_rows == 0


@pytest.mark.parametrize("width", [8, 13, 21])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["plain", "quoted"])
@pytest.mark.parametrize("column", ["LabelName", "ImageID", "YMax", "Source"])
@CHECK_ALL
@ENDINGS
def test_columns_may_be_in_any_order_quoted_or_additional(
    width: int, quoting: int, column: str, ending: str, *, check_all: bool
) -> None:
    table = pd.DataFrame(box_rows(60, width))
    for order in range(3):
        shuffled = table.sample(frac=1, axis=1, random_state=order).assign(Extra="x")
        content = shuffled.to_csv(index=False, quoting=quoting, lineterminator=ending).encode()  # type: ignore[call-overload]
        for count in (1, 12):
            values = list(dict.fromkeys(table[column]))[:count]
            found = scan.matching_rows(
                SinglePassFile(content, 500), TEXT_BOXES, column, values, check_all=check_all
            )
            assert list(found.rows.columns) == list(shuffled.columns)
            assert records(found.rows) == find_with_pandas(content, column, values)


@BLOCKS
@pytest.mark.parametrize("count", [1, 5, 40], ids=["one", "few", "many"])
@ENDINGS
@CHECK_ALL
def test_images_are_found_whatever_their_titles_contain(
    size: int, count: int, ending: str, *, check_all: bool
) -> None:
    values = [image_id(number) for number in random.Random(count).sample(range(40), count)]
    content = render(image_rows(40, seed=count), IMAGE_COLUMNS, ending)
    found = scan.matching_rows(
        SinglePassFile(content, size), scan.IMAGES, "ImageID", values, check_all=check_all
    )
    assert records(found.rows) == find_with_pandas(content, "ImageID", values)
    assert found.bad_rows == 0


FIELD = st.text(st.sampled_from('ab,"\n\r é'), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc") | FIELD, FIELD, FIELD), max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
    last=st.booleans(),
    column=st.sampled_from("xyz"),
    values=st.lists(st.sampled_from("abc") | FIELD, max_size=12),
    size=st.integers(1, 40),
    check_all=st.booleans(),
)
def test_any_table_gives_the_same_rows_as_pandas(
    *,
    rows: list[tuple[str, str, str]],
    quoting: int,
    ending: str,
    last: bool,
    column: str,
    values: list[str],
    size: int,
    check_all: bool,
) -> None:
    if quoting == csv.QUOTE_MINIMAL and "\r" not in ending:  # csv would not quote it
        rows = [(x.replace("\r", ""), y.replace("\r", ""), z.replace("\r", "")) for x, y, z in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    content = b"x,y,z\n" + text.getvalue().encode()
    content = content if last else content.rstrip(b"\n")
    schema = scan.CsvSchema("table", ("x", "y", "z"))
    found = scan.matching_rows(
        SinglePassFile(content, size), schema, column, values, check_all=check_all
    )
    assert found.bad_rows == 0
    assert records(found.rows) == find_with_pandas(content, column, values)


@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=80)
    | st.text(st.sampled_from('ab,"\n\r\0é1'), max_size=80).map(str.encode),
    column=st.sampled_from("xyz"),
    size=st.integers(1, 40),
    check_all=st.booleans(),
)
def test_arbitrary_bytes_raise_only_input_form_errors(
    body: bytes, column: str, size: int, check_all: bool
) -> None:
    schema = scan.CsvSchema("table", ("x", "y", "z"), ("y",))
    content = b"x,y,z\n" + body
    values = ["a", "b", "1", ""]
    found = scan.matching_rows(
        SinglePassFile(content, size),
        schema,
        column,
        values,
        check_all=check_all,
        skip_bad_rows=True,
    )
    assert found.rows[column].astype(str).isin([*values, "1.0"]).all()
    if check_all:
        try:
            strict = scan.matching_rows(SinglePassFile(content, 1 << 20), schema, column, values)
        except InputFormError as error:
            assert error.where.startswith("https://host/file.csv:")  # noqa: PT017 (or none)
            assert found.bad_rows
        else:
            assert not found.bad_rows
            assert records(strict.rows) == records(found.rows)


def lines_of(rows: int = 90, ending: str = "\n") -> list[bytes]:
    return render(box_rows(rows), BOX_COLUMNS[:13], ending).splitlines(keepends=True)


def without_a_field(line: bytes) -> bytes:
    head, _, tail = line.partition(b",0")
    return head.rpartition(b",")[0] + b",0" + tail


def with_an_extra_field(line: bytes) -> bytes:
    return b"x," + line


def unclosed(line: bytes) -> bytes:
    return line.replace(b",", b',"', 1)


def too_long(line: bytes) -> bytes:
    return line.replace(b",", b',"' + b"long " * 500_000, 1)


DAMAGES = pytest.mark.parametrize(
    "damage", [without_a_field, with_an_extra_field, unclosed, too_long]
)


@DAMAGES
@ENDINGS
@pytest.mark.parametrize("at", [2, 50, 91])
@pytest.mark.parametrize("values", [MIDS[:1], MIDS], ids=["few", "many"])
@pytest.mark.parametrize("size", [1 << 20, 97])
def test_a_malformed_row_is_reported_with_its_line_or_skipped_even_if_it_does_not_match(
    *, damage: Callable[[bytes], bytes], ending: str, at: int, values: Sequence[str], size: int
) -> None:
    if damage is too_long and size == 97:
        pytest.skip("takes 25,000 blocks")
    lines = lines_of(ending=ending)
    whole = b"".join([*lines[: at - 1], *lines[at:]])
    lines[at - 1] = damage(lines[at - 1])
    file = SinglePassFile(b"".join(lines), size)
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(file, scan.BOXES, "LabelName", values)
    assert caught.value.exit_code == 3
    assert caught.value.where == f"{file.where}:{at}"
    assert caught.value.expected == "13 fields"
    assert caught.value.found.startswith(("12 in", "14 in", "a misplaced quote in"))
    found = scan.matching_rows(file, TEXT_BOXES, "LabelName", values, skip_bad_rows=True)
    assert found.bad_rows == 1
    assert records(found.rows) == find_with_pandas(whole, "LabelName", values)


def test_adjacent_rows_whose_field_count_errors_cancel_out_are_both_malformed() -> None:
    lines = lines_of()
    lines[20], lines[21] = with_an_extra_field(lines[20]), without_a_field(lines[21])
    file = SinglePassFile(b"".join(lines))
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(file, scan.BOXES, "LabelName", MIDS[:1])
    assert caught.value.where == f"{file.where}:21"
    assert scan.matching_rows(file, scan.BOXES, "LabelName", (), skip_bad_rows=True).bad_rows == 2


@CHECK_ALL
@pytest.mark.parametrize("values", [MIDS[5:6], MIDS], ids=["few", "many"])
@pytest.mark.parametrize(
    ("value", "column", "found"),
    [
        *((value, "XMax", repr(value))
          for value in ("abc", "", "nan", "inf", "-inf", "0.1.2", "1e999", "0x1", "1_0", "True")),
        ("\0", "", ""),
        ("\r", "", ""),
        ("\udcff", "", ""),
    ],
)  # fmt: skip
def test_a_matching_row_with_an_invalid_value_is_reported_with_its_line_or_skipped(
    value: str, column: str, found: str, values: Sequence[str], *, check_all: bool
) -> None:
    rows = box_rows(60)
    for row, other in ((16, {"XMax": value}), (40, {"IsInside": value})):
        rows[row] |= {"LabelName": "/m/0ph39", **other}
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_NONE, lineterminator="\n", escapechar="|").writerows(
        [BOX_COLUMNS[:13], *(row.values() for row in rows)]
    )
    content = text.getvalue().replace("|", "").encode(errors="surrogateescape")
    file = SinglePassFile(content)
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(file, scan.BOXES, "LabelName", values, check_all=check_all)
    assert column in caught.value.what
    assert caught.value.where == f"{file.where}:18"
    assert found in caught.value.found
    left = scan.matching_rows(
        file, scan.BOXES, "LabelName", values, check_all=check_all, skip_bad_rows=True
    )
    assert left.bad_rows == 2
    good = [row for row in rows if row["LabelName"] in values and value not in row.values()]
    assert left.rows["XMax"].tolist() == [float(row["XMax"]) for row in good]
    assert left.rows["IsInside"].tolist() == [int(row["IsInside"]) for row in good]


def test_skipping_a_malformed_image_row_loses_no_other_row() -> None:
    rows = image_rows(40)
    lines = [render([row], IMAGE_COLUMNS).partition(b"\n")[2] for row in rows]
    lines[17] = lines[17].replace(b",", b',"', 1)
    head = ",".join(IMAGE_COLUMNS).encode() + b"\n"
    file = SinglePassFile(head + b"".join(lines), 100)
    at = 2 + b"".join(lines[:17]).count(b"\n")
    values = [image_id(number) for number in range(40)]
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(file, scan.IMAGES, "ImageID", values)
    assert caught.value.where == f"{file.where}:{at}"
    found = scan.matching_rows(file, scan.IMAGES, "ImageID", values, skip_bad_rows=True)
    assert found.rows["ImageID"].tolist() == [*values[:17], *values[18:]]


@pytest.mark.parametrize("values", [MIDS[:1], MIDS], ids=["few", "many"])
def test_many_batches_make_one_table_in_order(
    values: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.openimages.csvscan.row_parser._BATCH_BYTES", 500)
    content = render(box_rows(300), BOX_COLUMNS[:13])
    found = scan.matching_rows(SinglePassFile(content, 700), TEXT_BOXES, "LabelName", values)
    assert records(found.rows) == find_with_pandas(content, "LabelName", values)
    assert found.rows.index.tolist() == list(range(len(found.rows)))


def test_a_byte_order_mark_is_not_part_of_the_first_column_name() -> None:
    file = SinglePassFile(b"\xef\xbb\xbf" + render(box_rows(9), BOX_COLUMNS[:13]), 2)
    found = scan.matching_rows(file, scan.BOXES, "LabelName", MIDS)
    assert list(found.rows.columns) == list(BOX_COLUMNS[:13])
    assert len(found.rows) == 9


def test_empty_lines_are_ignored() -> None:
    lines = render(box_rows(9), BOX_COLUMNS[:13]).splitlines(keepends=True)
    content = b"".join([*lines[:3], b"\n", *lines[3:], b"\n\r\n\n"])
    for values in (MIDS[:2], MIDS):
        found = scan.matching_rows(SinglePassFile(content), TEXT_BOXES, "LabelName", values)
        assert records(found.rows) == find_with_pandas(content, "LabelName", values)
        assert found.bad_rows == 0


def test_text_that_looks_like_a_missing_value_stays_text() -> None:
    rows = image_rows(3)
    for row in rows:
        row |= {"Author": "NA", "Title": "null", "Rotation": "nan", "OriginalSize": "007"}
    file = SinglePassFile(render(rows, IMAGE_COLUMNS))
    found = scan.matching_rows(file, scan.IMAGES, "ImageID", [image_id(1)])
    assert found.rows.to_dict("records") == [rows[1]]


def test_numbers_are_exact_and_only_kept_columns_are_returned() -> None:
    rows = box_rows(40)
    file = SinglePassFile(render(rows, BOX_COLUMNS[:13]))
    keep = ["ImageID", "XMin", "IsInside"]
    found = scan.matching_rows(file, scan.BOXES, "LabelName", MIDS, keep=keep)
    assert list(found.rows.columns) == keep
    assert found.rows["XMin"].tolist() == [float(row["XMin"]) for row in rows]
    assert found.rows["IsInside"].tolist() == [int(row["IsInside"]) for row in rows]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\n", "an empty file"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "<!DOCTYPE html>"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "<?xml"),
        (b"ImageID,Source,LabelName\n0,1,2\n", "ImageID,Source,LabelName"),
        (b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,YMax\n", "ImageID"),
        (b"ImageID,Source,Label\rName\0\n0,1,2\n", "ImageID"),
        (b"\xff\xd8\xff\xe0" * 50, "..."),
        (b"x" * 200_000, "..."),
    ],
    ids=["empty", "blank", "HTML", "XML", "no column", "twice", "CR", "JPEG", "long"],
)  # fmt: skip
def test_an_unexpected_header_is_rejected(content: bytes, found: str) -> None:
    file = SinglePassFile(content, 1000)
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(file, scan.BOXES, "LabelName", MIDS)
    assert caught.value.where == f"{file.where}:1"
    assert found in caught.value.found
    assert "XMin" in caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("make", [None, Path.mkdir], ids=["absent", "a folder"])
def test_a_file_that_cannot_be_read_raises_an_error(
    tmp_path: Path, make: Callable[[Path], None] | None
) -> None:
    path = tmp_path / "boxes.csv"
    if make:
        make(path)
    with pytest.raises(InputFormError) as caught:
        scan.matching_rows(scan.LocalFile(path), scan.BOXES, "LabelName", MIDS)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("values", [MIDS, MIDS[:1], ()])
def test_a_header_alone_gives_no_rows(values: Sequence[str], *, last: bool) -> None:
    file = SinglePassFile(render([], BOX_COLUMNS, last=last))
    found = scan.matching_rows(file, scan.BOXES, "LabelName", values)
    assert found.rows.empty
    assert list(found.rows.columns) == list(BOX_COLUMNS)
    assert found.rows["XMin"].dtype == float


@pytest.mark.parametrize("count", [1, 3, 40])
@CHECK_ALL
def test_real_boxes_are_found_as_pandas_finds_them(
    real: Path, count: int, *, check_all: bool
) -> None:
    path = real / "metadata" / "v5_boxes" / "train-annotations-bbox.csv"
    values = list(pd.read_csv(path)["LabelName"].value_counts().index[-count:])
    found = scan.matching_rows(
        scan.LocalFile(path), TEXT_BOXES, "LabelName", values, check_all=check_all
    )
    assert len(found.rows)
    assert records(found.rows) == find_with_pandas(path.read_bytes(), "LabelName", values)


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize(
    ("name", "schema", "column"),
    [
        ("images", scan.IMAGES, "ImageID"),
        ("annotations-human-bbox", TEXT_BOXES, "ImageID"),
        ("annotations-human", scan.CsvSchema("labels", scan.LABELS.required), "LabelName"),
        ("annotations-machine", scan.CsvSchema("labels", scan.LABELS.required), "LabelName"),
    ],
)
@pytest.mark.parametrize("step", [1, 300])
def test_real_tables_are_read_as_pandas_reads_them(
    *, real: Path, subset: str, name: str, schema: scan.CsvSchema, column: str, step: int
) -> None:
    path = real / "metadata" / "v3" / subset / f"{name}.csv"
    values = list(pd.read_csv(path, dtype=str)[column].unique()[::step])
    for file in (scan.LocalFile(path), SinglePassFile(path.read_bytes(), 1000)):
        found = scan.matching_rows(file, schema, column, values)
        assert records(found.rows) == find_with_pandas(path.read_bytes(), column, values)


@pytest.mark.parametrize("length", [100_000, 255_000, 300_000, 900_000])
@pytest.mark.parametrize("quote", ["", '"'])
@CHECK_ALL
def test_rows_longer_than_a_block_are_found(
    tmp_path: Path, length: int, quote: str, *, check_all: bool
) -> None:
    rows = [f"{n},{quote}{'long ' * (length // 5)}{quote},{n % 2}\n" for n in range(5)]
    path = tmp_path / "table.csv"
    path.write_text("x,y,z\n" + "".join(rows), encoding="utf-8")
    schema = scan.CsvSchema("table", ("x", "y", "z"))
    for file in (scan.LocalFile(path), SinglePassFile(path.read_bytes(), 70_000)):
        found = scan.matching_rows(file, schema, "z", ["1"], check_all=check_all)
        assert found.rows["x"].tolist() == ["1", "3"]
        assert found.rows["y"].str.len().tolist() == [length, length]


class StrictSinglePassFile(SinglePassFile):
    """A file that raises an error if it is read a second time."""

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        if vars(self).get("was_read"):
            raise AssertionError("this file can be read only once")
        vars(self)["was_read"] = True
        yield from super().blocks(size_bytes)


@pytest.mark.parametrize("at", [2, 3, 2_900, 9_001])
@pytest.mark.parametrize("values", [MIDS[:1], MIDS], ids=["few", "many"])
@pytest.mark.parametrize("damage", ["an extra field", "not a number"])
@pytest.mark.parametrize("title", ["", ',"two\nlines"'], ids=["plain", "quoted"])
def test_an_error_names_the_line_whether_or_not_lines_were_counted(
    *, tmp_path: Path, at: int, values: Sequence[str], damage: str, title: str
) -> None:
    rows = box_rows(max(3_000, at - 1))
    rows[at - 2]["LabelName"] = MIDS[0]
    if damage == "not a number":
        rows[at - 2]["XMax"] = "abc"
    lines = render(rows, BOX_COLUMNS[:13]).splitlines(keepends=True)
    lines[0] = lines[0].replace(b"\n", b",Title\n") if title else lines[0]
    lines[1:] = [line.replace(b"\n", title.encode() + b"\n") for line in lines[1:]]
    if damage == "an extra field":
        lines[at - 1] = lines[at - 1].removesuffix(b"\n") + b",x\n"
    content = b"".join(lines)
    expected = 1 + b"".join(lines[: at - 1]).count(b"\n")
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    cases: list[tuple[scan.Readable, bool]] = [
        *((scan.LocalFile(path), check_all) for check_all in (True, False)),
        (StrictSinglePassFile(content, 1000), True),
    ]
    for file, check_all in cases:
        with pytest.raises(InputFormError) as caught:
            scan.matching_rows(file, scan.BOXES, "LabelName", values, check_all=check_all)
        assert caught.value.where == f"{file.where}:{expected}"


@CHECK_ALL
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_a_quote_inside_an_unquoted_field_is_text(size: int, *, check_all: bool) -> None:
    content = b'x,y,z\na,5" wide,1\nb,"two\na,b",2\na,plain,3\nc,"d",4\n'
    schema = scan.CsvSchema("table", ("x", "y", "z"))
    found = scan.matching_rows(
        SinglePassFile(content, size), schema, "x", ["a"], check_all=check_all
    )
    assert records(found.rows) == find_with_pandas(content, "x", ["a"])
    assert found.rows["z"].tolist() == ["1", "3"]
