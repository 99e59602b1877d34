"""The structural index of a chunk agrees with reading it record by record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.openimages.csvscan import record_reader
from oiyolo.openimages.csvscan.rows import ValueFilter, index_rows
from oiyolo.openimages.csvscan.window import MARGIN_BYTES

if TYPE_CHECKING:
    from oiyolo.openimages.csvscan.rows import StructuralIndex


def index_of(body: bytes) -> StructuralIndex | None:
    """Index a text that is surrounded by bytes which must not affect the result."""
    margin = (b',"\n\rx' * MARGIN_BYTES)[:MARGIN_BYTES]
    text = bytearray(margin + body + margin)
    return index_rows(text, MARGIN_BYTES, MARGIN_BYTES + len(body))


def read_records(body: bytes) -> list[record_reader.Record]:
    """Return all records that end in a text, up to the first with a misplaced quote."""
    records = []
    at = 0
    while at < len(body):
        record = record_reader.read_record(body, at)
        if record is None or record.fields is None:
            break
        records.append(record)
        at = record.stop
    return records


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(['"', ",", "\n", "\r\n", "a", "bcd" * 30, '""', ',"', '",'])))
def test_the_structural_index_agrees_with_reading_record_by_record(pieces: list[str]) -> None:
    body = ("".join(pieces) + "\n").encode()
    index = index_of(body)
    expected = read_records(body)
    if index is None:  # a quote inside an unquoted field requires reading record by record
        assert b'"' in body
        return
    # An error after the last row of the index is left to the next chunk.
    stops = [record.stop for record in expected]
    assert index.size_bytes in {0, *stops}
    expected = expected[: len(index.ends)]
    stops = stops[: len(index.ends)]
    rows = index.all_rows()
    starts = [0, *stops][:-1]
    assert (index.ends + 1).tolist() == stops
    assert index.starts.tolist() == starts
    field_counts = [len(record.fields or ()) for record in expected]
    assert index.field_counts(rows).tolist() == field_counts
    assert index.field_counts(rows[::2]).tolist() == field_counts[::2]
    assert index.line_numbers(rows).tolist() == [body[:at].count(b"\n") for at in starts]
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
def test_no_matching_row_is_missed(rows: list[list[str]], column: int, count: int) -> None:
    body = "".join(",".join(row) + "\r\n" for row in rows).encode()
    index = index_of(body)
    assert index is not None
    values = {row[column] for row in rows[:count]}
    candidates = ValueFilter(values, column, 9).candidates(index, index.all_rows())
    matching = {n for n, row in enumerate(rows) if row[column] in values}
    assert matching <= set(candidates.tolist())
