"""A map of a checked file's rows leads to the same rows as reading the whole file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.openimages.csvscan import membership, row_index, scan
from oiyolo.openimages.csvscan.window import Mapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORM = scan.CsvForm("things", ("name", "kind"))
COLUMNS = ("first", "name", "kind", "last")
# Shorter than a hash's 8 bytes, longer, with the same end, and what must stand in quotes.
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
        monkeypatch.setattr(row_index, "_NEAR_BYTES", 10)
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


def mapped(folder: Path, text: str, version: str = "1") -> Mapped:
    path = folder / "things.csv"
    path.write_bytes(text.encode())
    return Mapped(path, version)


def found(file: Mapped, column: str, wanted: Sequence[str], *, check_all: bool) -> list[list[str]]:
    table = scan.matching_rows(file, FORM, column, wanted, check_all=check_all).rows
    return [[str(cell) for cell in row] for row in table.to_numpy().tolist()]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the file was searched")


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("wanted", [KINDS[:1], KINDS[4:], KINDS, (), ("3", "one", "name 7")])
def test_rows_are_found_without_searching_once_all_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, column: str, wanted: Sequence[str]
) -> None:
    form = scan.CsvForm("things", COLUMNS)
    monkeypatch.setattr(f"{__name__}.FORM", form)
    rows = rows_of(50)
    file = mapped(tmp_path, text_of(rows, ending))
    expected = [list(row) for row in rows if row[COLUMNS.index(column)] in wanted]
    assert found(file, column, wanted, check_all=True) == expected
    monkeypatch.setattr(scan, "_search_all", refuse)
    assert found(file, column, wanted, check_all=False) == expected
    others = [name for name in COLUMNS if name != column]
    with pytest.raises(AssertionError, match="searched"):  # the map is of one column
        found(file, others[0], wanted, check_all=False)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(*[st.text("ab,\"\n 'é", max_size=12)] * len(COLUMNS)), min_size=1, max_size=20
    ),
    chosen=st.sets(st.integers(0, 19), max_size=4),
)
def test_any_table_is_read_the_same_with_its_map(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], chosen: set[int]
) -> None:
    file = mapped(tmp_path_factory.mktemp("any"), text_of(rows))
    wanted = sorted({row[2] for n, row in enumerate(rows) if n in chosen})
    expected = [list(row) for row in rows if row[2] in wanted]
    assert found(file, "kind", wanted, check_all=True) == expected
    assert found(file, "kind", wanted, check_all=False) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,a,x,y,too many\n", "a row is broken"),
        ('1,a,x,y\n2,b,x,a "quote" within\n', "quotes are text"),
        ("1,a,x,y", "the last line has no end"),
    ],
)
def test_no_map_is_left_where_a_row_could_not_be_told(tmp_path: Path, text: str, why: str) -> None:
    file = mapped(tmp_path, text_of(rows_of(5)) + text)
    for _ in range(2):
        scan.matching_rows(file, FORM, "kind", ["x"], skip_bad_rows=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"], why


def test_a_broken_row_that_ends_the_reading_leaves_no_map(tmp_path: Path) -> None:
    file = mapped(tmp_path, text_of(rows_of(5)) + "1,a\n")
    with pytest.raises(InputFormError):
        found(file, "kind", ["x"], check_all=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
    ],
    ids=["cut off", "empty", "zeros", "gone"],
)
def test_a_damaged_map_is_not_used_and_is_made_anew_by_the_next_check(
    tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    file = mapped(tmp_path, text_of(rows_of(20)))
    expected = found(file, "kind", ["a"], check_all=True)
    damage(file.map_path)
    assert found(file, "kind", ["a"], check_all=False) == expected
    assert found(file, "kind", ["a"], check_all=True) == expected
    assert row_index.RowMap.opened(file.path, file.map_path, "kind", "1") is not None


def test_another_version_is_not_read_by_the_old_map(tmp_path: Path) -> None:
    found(mapped(tmp_path, text_of(rows_of(20))), "kind", ["a"], check_all=True)
    rows = rows_of(20)[::-1]
    file = mapped(tmp_path, text_of(rows), version="2")
    expected = [list(row) for row in rows if row[2] == "a"]
    assert found(file, "kind", ["a"], check_all=False) == expected


def test_a_cache_that_cannot_be_written_to_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = mapped(tmp_path, text_of(rows_of(20)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_index.RowMapWriter, "finish", full)
    expected = [list(row) for row in rows_of(20) if row[2] == "a"]
    assert found(file, "kind", ["a"], check_all=True) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things.csv"]
