"""The row index of a checked file selects the same rows as a search of the whole file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.csvscan import membership, row_index, scan
from oiyolo.openimages.csvscan.window import IndexableFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = scan.CsvSchema("things", ("name", "kind"))
COLUMNS = ("first", "name", "kind", "last")
# Shorter than the 8 bytes that are hashed, longer, with a common end, and values that need quotes.
KINDS = (
    "/m/019jd",
    "/m/01",
    "",
    "a",
    "boats of a long name",
    "cats of a long name",
    'a "b"',
    "a,b",
)


@pytest.fixture(params=[None, 2], ids=["one block", "blocks of two rows"])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(row_index, "_BLOCK_ROWS", request.param)
        monkeypatch.setattr(row_index, "_GAP_BYTES", 10)
        monkeypatch.setattr(row_index, "_READ_BYTES", 64)
        monkeypatch.setattr(membership, "_FEW", 1)


def text_of(rows: Sequence[Sequence[str]], ending: str = "\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerows([COLUMNS, *rows])
    return text.getvalue()


def rows_of(count: int) -> list[tuple[str, ...]]:
    return [
        (f"{n}", f"name {n}", KINDS[n % len(KINDS)], "two\nlines" if n % 3 == 0 else "one")
        for n in range(count)
    ]


def write_file(folder: Path, text: str, version: str = "1") -> IndexableFile:
    path = folder / "things.csv"
    path.write_bytes(text.encode())
    return IndexableFile(path, version)


def search(
    file: IndexableFile, column: str, values: Sequence[str], *, check_all: bool
) -> list[list[str]]:
    table = scan.matching_rows(file, SCHEMA, column, values, check_all=check_all).rows
    return [[str(cell) for cell in row] for row in table.to_numpy().tolist()]


def fail_to_search(*_: object, **__: object) -> None:
    raise AssertionError("the file was searched")


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("values", [KINDS[:1], KINDS[4:], KINDS, (), ("3", "one", "name 7")])
def test_rows_are_found_by_the_index_once_all_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, column: str, values: Sequence[str]
) -> None:
    schema = scan.CsvSchema("things", COLUMNS)
    monkeypatch.setattr(f"{__name__}.SCHEMA", schema)
    rows = rows_of(50)
    file = write_file(tmp_path, text_of(rows, ending))
    expected = [list(row) for row in rows if row[COLUMNS.index(column)] in values]
    assert search(file, column, values, check_all=True) == expected
    monkeypatch.setattr(scan, "_search_all", fail_to_search)
    assert search(file, column, values, check_all=False) == expected
    other_columns = [name for name in COLUMNS if name != column]
    with pytest.raises(AssertionError, match="searched"):  # the index covers one column
        search(file, other_columns[0], values, check_all=False)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(*[st.text("ab,\"\n 'é", max_size=12)] * len(COLUMNS)), min_size=1, max_size=20
    ),
    chosen=st.sets(st.integers(0, 19), max_size=4),
)
def test_an_index_gives_the_same_rows_as_a_search_for_any_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], chosen: set[int]
) -> None:
    file = write_file(tmp_path_factory.mktemp("any"), text_of(rows))
    values = sorted({row[2] for n, row in enumerate(rows) if n in chosen})
    expected = [list(row) for row in rows if row[2] in values]
    assert search(file, "kind", values, check_all=True) == expected
    assert search(file, "kind", values, check_all=False) == expected


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("1,a,x,y,too many\n", "a malformed row"),
        ('1,a,x,y\n2,b,x,a "quote" within\n', "quotes that are text"),
        ("1,a,x,y", "no final newline"),
    ],
)
def test_no_index_is_written_if_some_rows_are_not_indexed(
    tmp_path: Path, text: str, case: str
) -> None:
    file = write_file(tmp_path, text_of(rows_of(5)) + text)
    for _ in range(2):
        scan.matching_rows(file, SCHEMA, "kind", ["x"], skip_bad_rows=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"], case


def test_an_error_for_a_malformed_row_leaves_no_index(tmp_path: Path) -> None:
    file = write_file(tmp_path, text_of(rows_of(5)) + "1,a\n")
    with pytest.raises(InputFormError):
        search(file, "kind", ["x"], check_all=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "zeros", "missing"],
)
def test_a_damaged_index_is_ignored_and_rewritten_by_the_next_check(
    tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    file = write_file(tmp_path, text_of(rows_of(20)))
    expected = search(file, "kind", ["a"], check_all=True)
    damage(file.index_path)
    assert search(file, "kind", ["a"], check_all=False) == expected
    assert search(file, "kind", ["a"], check_all=True) == expected
    assert row_index.RowIndex.find(file.path, file.index_path, "kind", "1") is not None


def test_an_index_of_another_version_is_ignored(tmp_path: Path) -> None:
    search(write_file(tmp_path, text_of(rows_of(20))), "kind", ["a"], check_all=True)
    rows = rows_of(20)[::-1]
    file = write_file(tmp_path, text_of(rows), version="2")
    expected = [list(row) for row in rows if row[2] == "a"]
    assert search(file, "kind", ["a"], check_all=False) == expected


def test_a_search_succeeds_if_the_index_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_file(tmp_path, text_of(rows_of(20)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_index.RowIndexWriter, "finish", full)
    expected = [list(row) for row in rows_of(20) if row[2] == "a"]
    assert search(file, "kind", ["a"], check_all=True) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"]
