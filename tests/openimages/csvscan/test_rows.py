"""The index of rows says of every byte what reading one record after the other says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.rows import Wanted, index_rows
from oiyolo.openimages.csvscan.window import MARGIN_BYTES

if TYPE_CHECKING:
    from oiyolo.openimages.csvscan.rows import RowIndex


def index_of(body: bytes) -> RowIndex | None:
    """Index a text that lies within another, whose bytes must not matter."""
    margin = (b',"\n\rx' * MARGIN_BYTES)[:MARGIN_BYTES]
    text = bytearray(margin + body + margin)
    return index_rows(text, MARGIN_BYTES, MARGIN_BYTES + len(body))


def one_by_one(body: bytes) -> list[record_reader.Record]:
    """All records that end in a text, up to the first whose quotes are not in order."""
    found = []
    at = 0
    while at < len(body):
        record = record_reader.read_record(body, at)
        if record is None or record.fields is None:
            break
        found.append(record)
        at = record.stop
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(['"', ",", "\n", "\r\n", "a", "bcd" * 30, '""', ',"', '",'])))
def test_rows_fields_and_lines_are_those_of_reading_one_by_one(pieces: list[str]) -> None:
    body = ("".join(pieces) + "\n").encode()
    index = index_of(body)
    expected = one_by_one(body)
    if index is None:  # a quote within a field without quotes is for reading one by one
        assert b'"' in body
        return
    # Where an error is behind the last row of the index, it is for the next piece.
    stops = [record.stop for record in expected]
    assert index.size_bytes in {0, *stops}
    expected = expected[: len(index.ends)]
    stops = stops[: len(index.ends)]
    rows = index.all_rows()
    starts = [0, *stops][:-1]
    assert (index.ends + 1).tolist() == stops
    assert index.starts.tolist() == starts
    widths = [len(record.fields or ()) for record in expected]
    assert index.widths(rows).tolist() == widths
    assert index.widths(rows[::2]).tolist() == widths[::2]
    assert index.lines(rows).tolist() == [body[:at].count(b"\n") for at in starts]
    assert index.size_bytes == sum(stops[-1:])
    assert index.count_lines() == body[: index.size_bytes].count(b"\n")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.text("ab9", max_size=90), min_size=9, max_size=9), min_size=1, max_size=20
    ),
    column=st.integers(0, 8),
    count=st.integers(0, 20),
)
def test_no_wanted_field_is_passed_over(rows: list[list[str]], column: int, count: int) -> None:
    body = "".join(",".join(row) + "\r\n" for row in rows).encode()
    index = index_of(body)
    assert index is not None
    words = {row[column] for row in rows[:count]}
    found = Wanted(words, column, 9).candidates(index, index.all_rows())
    wanted = {n for n, row in enumerate(rows) if row[column] in words}
    assert wanted <= set(found.tolist())
